"""Counts of few patients stay unknown: laws over any small lake and any cohort of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from cohort import brute
from cohort.strategies import CRITERIA, hospitals
from cohort.tiny import image_set, opened
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import examples

from cohortlake import Lake
from cohortlake.cohort import Criteria
from cohortlake.cohort.describe.attrition_step import Counts
from cohortlake.cohort.select.selected import select
from cohortlake.report.cells import PERSON, breakdown, grid
from cohortlake.report.flow import flow

SERIES = f"SELECT *, {PERSON} FROM series"
ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["CT", "MR", "US", " ", None])),
    min_size=1,
    max_size=60,
)


def lake_of(rows: list[tuple[int, str | None]]) -> Any:
    return opened(
        image_set(n, f"p{patient}", f"1.{n}", Modality=value, PatientSex="FM"[patient % 2])
        for n, (patient, value) in enumerate(rows)
    )


def named(value: str | None) -> str:
    return "missing" if value is None else value.strip() or "blank"


@given(ROWS, st.integers(0, 6), st.integers(1, 4))
@settings(max_examples=examples(15, quick=4))
def test_a_value_is_named_and_counted_only_if_enough_patients_have_it(
    rows: list[tuple[int, str | None]], below: int, most: int
) -> None:
    with lake_of(rows) as lake:
        told = breakdown(lake.opened, SERIES, "Modality", "count(*)", below, most)
    patients: dict[str, set[int]] = {}
    for patient, value in rows:
        patients.setdefault(named(value), set()).add(patient)
    shown = {value.label: value.n for value in told.shown}
    assert len(shown) <= most
    assert len(shown) + told.others == len(patients)
    for label, n in shown.items():
        assert n == sum(named(value) == label for _, value in rows)
        assert len(patients[label]) >= below
    hidden = set().union(*(own for label, own in patients.items() if label not in shown))
    if told.others and told.n_others is not None:
        assert len(hidden) >= below
        assert told.n_others == len(rows) - sum(shown.values())
    elif told.others:
        assert not shown  # or it could be had by subtraction from the total


@given(ROWS, st.integers(1, 6))
@example(
    [(n % 3 * 2, ("CT", "MR")[n // 3]) for n in range(6)] + [(2 * n, "US") for n in range(6)], 4
)
@settings(max_examples=examples(15, quick=4))
def test_a_grid_shows_no_count_of_few(rows: list[tuple[int, str | None]], below: int) -> None:
    with lake_of(rows) as lake:
        relation = f"SELECT coalesce(Modality, '-') AS m, PatientSex AS s, person FROM ({SERIES})"
        told = grid(lake.opened, relation, ("m", "s"), "count(*)", below, ("M",))
    of_cell: dict[tuple[str, str], list[int]] = {}
    for patient, value in rows:
        of_cell.setdefault((value or "-", "FM"[patient % 2]), []).append(patient)
    assert told.cells.keys() == of_cell.keys()
    for key, n in told.cells.items():
        assert n is None or (n == len(of_cell[key]) and len(set(of_cell[key])) >= below)
    for place, name in ((0, None), *((0, m) for m, _ in of_cell), *((1, s) for _, s in of_cell)):
        total = [key for key in of_cell if name in (None, key[place])]
        gone = [key for key in total if told.cells[key] is None]
        persons = {patient for key in gone for patient in of_cell[key]}
        assert not gone or len(gone) == len(total) or (len(gone) > 1 and len(persons) >= below)
    assert told.n_hidden == sum(n is None for n in told.cells.values())
    assert told.rows == tuple(sorted({sex for _, sex in of_cell}, reverse=True))


@given(hospitals(), CRITERIA, st.integers(0, 4))
@settings(max_examples=examples(25, quick=5))
def test_between_told_steps_nobody_or_enough_are_left_out(
    rows: list[dict[str, Any]], criteria: Criteria, below: int
) -> None:
    with opened(rows) as lake:
        series = lake.sql(brute.SERIES).to_arrow().to_pylist()
        told = flow(select(lake.opened, criteria), below)
    stages = brute.stages(series, criteria)
    ends = [0]
    for step in told.steps[1:]:
        ends.append(ends[-1] + len(step.criteria))
    assert ends[-1] == len(stages) - 1  # no criterion is lost
    for end, step in zip(ends, told.steps, strict=True):
        assert step.left in (None, Counts(*brute.counts(stages[end])))
    for (a, _), (b, after) in pairwise(zip(ends, told.steps, strict=True)):
        if after.left is None:
            assert after is told.steps[-1]
            continue
        assert after.excluded == told.steps[ends.index(a)].left - after.left
        for lost in left_out(stages[a], stages[b]):
            assert not lost or len({person(row) for row in lost} - {None}) >= below
    if told.is_shown and below:
        assert told.steps[-1].left.patients not in range(1, below)


def left_out(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[list[Any]]:
    """The series of `before` whose patient, whose study or which themselves are not in `after`."""
    levels = (
        lambda row: row["patient_key"],
        lambda row: (row["datastore_id"], row["StudyInstanceUID"] or row["image_set_id"]),
        lambda row: row["image_set_id"],
    )
    kept = [{level(row) for row in after} for level in levels]
    return [
        [row for row in before if level(row) is not None and level(row) not in own]
        for level, own in zip(levels, kept, strict=True)
    ]


def person(row: dict[str, Any]) -> Any:
    return row["patient_key"] or row["StudyInstanceUID"]


def test_steps_that_leave_out_few_are_told_with_others(hospital: Lake) -> None:
    cohort = hospital.cohort("scans").where(Modality=["CT", "MR", "DX"])
    (one,) = hospital.sql("SELECT patient_key FROM series WHERE Modality = 'CT' LIMIT 1").fetchall()
    cohort = cohort.where(f"patient_key <> '{one[0]}'").where(Modality=["CT", "DX"])
    told = flow(cohort.selected, 11)
    assert told.is_shown
    assert any(len(step.criteria) > 1 for step in told.steps)
    assert not any(len(step.criteria) > 1 for step in flow(cohort.selected, 0).steps)


def test_all_but_a_few_are_not_told(hospital: Lake) -> None:
    (one,) = hospital.sql("SELECT patient_key FROM patients LIMIT 1").fetchall()
    told = flow(hospital.cohort("most").where(f"patient_key <> '{one[0]}'").selected, 11)
    assert not told.is_shown
    assert told.parts == {}


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_small_parts_of_a_split_are_hidden(hospital: Lake, share: float) -> None:
    cohort = hospital.cohort("scans").where(Modality="CT").split(a=share, b=1 - share)
    told = flow(cohort.selected, 11)
    hidden = [name for name, n in told.parts.items() if n is None]
    assert told.parts.keys() == {"a", "b"}
    assert all(n is None or n == 0 or n >= 11 for n in told.parts.values())
    assert len(hidden) in (0, 2)
