"""The plots as pictures: what they show of one sex, of few and of many, and that no text is cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cohort import pictures
from cohort.tiny import image_set, opened
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cohortlake.cohort.describe.plot import Plots
from cohortlake.report.cells import Grid
from cohortlake.report.charts import pyramid

LONGEST = "CERVICOTHORACIC_SPINE_OF_A_SENDER"
KINDS = ("studies_over_time", "age_sex_pyramid", "modality_by_body_part")


def plots(sexes: str, number: int) -> Iterator[Plots]:
    rows = [
        image_set(
            n, f"p{n}", f"1.{n}", Modality=f"M{n % 9}", PatientSex=sexes[n % len(sexes)],
            BodyPartExamined=f"{LONGEST}{n % 30}", age_at_study_years=n % 100,
            StudyDate=date(2020 + n % 6, 1, 1),
        )
        for n in range(number)
    ]  # fmt: skip
    with opened(rows) as lake:
        yield lake.cohort("a").plot


@pytest.fixture(scope="module")
def of_one() -> Iterator[Plots]:
    yield from plots("F", 1)


@pytest.fixture(scope="module")
def of_many() -> Iterator[Plots]:
    yield from plots("FM", 300)


def labels(axis: Any) -> list[str]:
    FigureCanvasAgg(axis.figure).draw()
    low, high = sorted(axis.get_view_interval())
    return [
        t.label1.get_text() for t in axis.get_major_ticks() if low - 1e-9 <= t.get_loc() <= high
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", ["of_one", "of_many"])
def test_no_text_is_cut_and_the_border_is_white(
    request: pytest.FixtureRequest, members: str, kind: str, tmp_path: Path
) -> None:
    figure = getattr(request.getfixturevalue(members), kind)()
    assert pictures.is_whole(figure)
    for suffix in (".png", ".svg", ".pdf"):
        path = tmp_path / f"a{suffix}"
        figure.savefig(path, dpi=100)
        assert pictures.size_inches(path, 100) == pytest.approx(
            tuple(figure.get_size_inches()), abs=0.02
        )
    bottom_and_left = pictures.border(tmp_path / "a.png")
    assert (bottom_and_left == 1).mean() > 0.99


def test_one_sex_has_one_side(of_one: Plots, of_many: Plots) -> None:
    (axes,) = of_one.age_sex_pyramid().axes
    assert [side.get_label() for side in axes.containers] == ["female"]
    assert axes.get_xlim()[0] == 0
    assert labels(axes.xaxis) == ["0", "1"]
    (axes,) = of_many.age_sex_pyramid().axes
    assert [side.get_label() for side in axes.containers] == ["female", "male"]
    low, high = axes.get_xlim()
    assert low == -high
    assert labels(axes.xaxis) == labels(axes.xaxis)[::-1]


def test_one_sex_has_one_side_in_the_report() -> None:
    one = pyramid("a", Grid(("60-69",), ("F",), {("60-69", "F"): 7}))
    both = Grid(("60-69",), ("F", "M"), {("60-69", "F"): 7, ("60-69", "M"): None})
    assert "--series-1" in one
    assert "--series-0" not in one
    assert one.count(">0<") == 1
    assert "*" in pyramid("a", both)


def test_counts_have_whole_numbers(of_one: Plots, of_many: Plots) -> None:
    for members in (of_one, of_many):
        (axes,) = members.studies_over_time().axes
        ticks = [int(label) for label in labels(axes.yaxis)]
        assert ticks[0] == 0
        assert len(set(ticks)) == len(ticks) >= 2


def test_a_single_month_is_a_month(of_one: Plots) -> None:
    (axes,) = of_one.studies_over_time().axes
    assert {"2020-01", "2020-02"} <= set(labels(axes.xaxis))
    assert axes.get_xlabel() == "study date, by month"


def test_a_heat_map_can_be_read_at_the_width_of_a_column(of_many: Plots) -> None:
    figure = of_many.modality_by_body_part()
    assert figure.get_size_inches()[0] == 3.5
    assert pictures.is_whole(figure)
    axes = figure.axes[0]
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
    assert all(text.get_fontsize() >= 7 for text in texts)
    cells = [text.get_window_extent() for text in figure.axes[0].texts]
    for i, cell in enumerate(cells):
        assert not any(cell.overlaps(other) for other in cells[i + 1 :])
    ticks = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(ticks))
