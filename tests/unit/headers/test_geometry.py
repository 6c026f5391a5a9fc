"""Slices are a volume, or it is said why not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.headers.geometry import Slices

AXIAL = ["1", "0", "0", "0", "1", "0"]


def slices(places, **more):
    """Axial slices at some distances, in mm. `more` maps an attribute to a value for each slice."""
    found = Slices()
    for number, place in enumerate(places):
        own = {
            "ImagePositionPatient": ["-100", "-100", str(place)],
            "ImageOrientationPatient": AXIAL,
            "PixelSpacing": ["0.7", "0.7"],
            "Rows": 512,
            "Columns": 512,
        }
        found.add(own | {name: values[number] for name, values in more.items()})
    return found.volume()


@given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=30, unique=True),
    st.sampled_from([0.5, 1.25, 5]),
)
def test_the_order_of_slices_does_not_matter(numbers, spacing):
    found = slices([number * spacing for number in numbers])
    is_regular = max(numbers) - min(numbers) == len(numbers) - 1
    distances = {b - a for a, b in zip(sorted(numbers), sorted(numbers)[1:], strict=False)}
    assert found.is_regular == (is_regular or len(distances) == 1)
    assert bool(found.reason) != found.is_regular


def test_what_scanners_round_is_no_reason():
    noise = [(-1) ** number * 2e-5 for number in range(10)]
    orientations = [[f"{1 + n:.7f}", "0", "0", "0", "1", f"{n:.7f}"] for n in noise]
    found = slices([n * 1.5 + noise[n] for n in range(10)], ImageOrientationPatient=orientations)
    assert found.is_regular
    assert found.spacing_mm == pytest.approx(1.5, abs=1e-3)


def several(value, other):
    return [value] * 4 + [other]


REASONS = {
    "fewer than two slices": lambda: slices([0]),
    "several slices at one place": lambda: slices([0, 1, 2, 2, 3]),
    "missing slices": lambda: slices([0, 1, 2, 4, 5]),
    "unequal distances between slices": lambda: slices([0, 1, 2, 3.5, 4.5]),
    "several orientations": lambda: slices(
        range(5), ImageOrientationPatient=several(AXIAL, ["1", "0", "0", "0", "0", "-1"])
    ),
    "several sizes of image": lambda: slices(range(5), Rows=several(512, 256)),
    "several pixel spacings": lambda: slices(
        range(5), PixelSpacing=several(["0.7", "0.7"], ["0.8", "0.7"])
    ),
    "no pixel spacing": lambda: slices(range(5), PixelSpacing=several(["0.7", "0.7"], "0.7")),
    "slices without a position or an orientation": lambda: slices(
        range(5), ImagePositionPatient=several(["0", "0", "9"], ["0", "0"])
    ),
    "rows and columns that are not at right angles": lambda: slices(
        range(5), ImageOrientationPatient=[["1", "0", "0", "0.9", "0.4", "0"]] * 5
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_why_slices_are_no_volume(reason):
    found = REASONS[reason]()
    assert (found.is_regular, found.reason) == (False, reason)


def test_a_tilted_gantry():
    sine, cosine = math.sin(math.radians(15)), math.cos(math.radians(15))
    tilted = ["1", "0", "0", "0", str(cosine), str(-sine)]
    found = slices(range(10), ImageOrientationPatient=[tilted] * 10)
    assert (found.is_regular, found.reason) == (False, "gantry tilt")
    assert found.spacing_mm == pytest.approx(cosine)


@pytest.mark.parametrize(
    "position", [None, [], ["a", "b", "c"], ["nan", "0", "0"], ["1e400", "0", "0"], 5, {}]
)
def test_values_that_are_no_position(position):
    found = slices(range(3), ImagePositionPatient=[["0", "0", "0"], position, ["0", "0", "2"]])
    assert found.reason == "slices without a position or an orientation"
