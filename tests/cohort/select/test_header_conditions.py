"""Conditions about headers, in any order with others, leave what plain loops leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import permutations
from typing import Any

import pytest
from cohort.tiny import image_set, opened

from cohortlake import Lake
from cohortlake.cohort.cohort import Cohort

Row = dict[str, Any]
THICKNESSES = (0.6, 1.5, 5.0, None)


def series(number: int) -> Row:
    """Every fifth has no header."""
    header = {
        "Manufacturer": ("GE", "SIEMENS", None)[number % 3],
        "SliceThickness": THICKNESSES[number % 4],
        "instance_count": number,
    }
    day = date(2020, 1, 1) + timedelta(days=number)
    patient, modality = f"p{number % 7}", "CT" if number % 2 else "MR"
    more = header if number % 5 else {}
    return image_set(number, patient, f"1.{number}", Modality=modality, StudyDate=day, **more)


ROWS = [series(number) for number in range(60)]
STEPS: tuple[tuple[Callable[[Cohort], Cohort], Callable[[Row], bool], bool], ...] = (
    (lambda c: c.where("SliceThickness <= 1.5"), lambda r: (r["SliceThickness"] or 9) < 2, True),
    (lambda c: c.exclude(Manufacturer="GE"), lambda r: r["Manufacturer"] != "GE", True),
    (lambda c: c.where("instance_count > 9"), lambda r: r["instance_count"] > 9, True),
    (lambda c: c.where(Modality="CT"), lambda r: r["Modality"] == "CT", False),
)
"""A step, which rows it keeps, and whether it is about headers."""


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with opened(ROWS) as filled:
        yield filled


def left(steps: tuple[int, ...]) -> list[int]:
    """Return how many series are left after each step."""
    rows, counts, asked = ROWS, [len(ROWS)], False
    for _, keeps, is_of_header in (STEPS[number] for number in steps):
        if is_of_header and not asked:
            rows, asked = [row for row in rows if "instance_count" in row], True
            counts.append(len(rows))
        rows = [row for row in rows if keeps(row)]
        counts.append(len(rows))
    return [*counts, len(rows)]  # each has one patient


@pytest.mark.parametrize("steps", [p for n in (1, 2, 3) for p in permutations(range(4), n)])
@pytest.mark.parametrize("is_dated", [False, True])
def test_conditions_in_any_order(lake: Lake, steps: tuple[int, ...], *, is_dated: bool) -> None:
    cohort = lake.cohort("a", level="series")
    for number in steps:
        cohort = STEPS[number][0](cohort)
    counts = left(steps)
    assert len(cohort) == cohort.count()["members"][0] == counts[-1]
    if is_dated:  # the dates are in `series`
        cohort = cohort.last_study_per_patient()
    found = cohort.attrition().to_pandas()["series"].tolist()
    assert found[: len(counts)] == counts
    assert not is_dated or found[-1] == len({*cohort.to_pandas()["patient_key"]}) > 0


def test_an_other_study_with_a_header_is_no_condition_about_the_series(lake: Lake) -> None:
    cohort = lake.cohort("a", level="series").with_study("any time after", "SliceThickness <= 1.5")
    criteria = cohort.where("instance_count >= 0").attrition().to_pandas()["criterion"]
    assert [text for text in criteria if "no header fetched" in text], "a step of its own"


def test_members_are_counted_and_described_by_columns_of_headers(lake: Lake) -> None:
    with_header = [row for row in ROWS if "instance_count" in row]
    cohort = lake.cohort("a", level="series").where("instance_count >= 0")
    counted = cohort.count("Manufacturer").set_index("Manufacturer", drop=True)["members"]
    assert counted["GE"] == sum(row["Manufacturer"] == "GE" for row in with_header)
    table = str(cohort.table_one(columns=["Manufacturer", "SliceThickness"]).tabulate())
    siemens = sum(row["Manufacturer"] == "SIEMENS" for row in with_header)
    assert any("SIEMENS" in line and f" {siemens} (" in line for line in table.splitlines())
    assert "SliceThickness, mean (SD)" in table or "SliceThickness, median" in table
