"""Counts, and that what is suppressed stays unknown."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake import Lake
from cohortlake.cohort.counts import Cell, hidden
from cohortlake.errors import BadCriteria, UnknownColumn

CELLS = st.integers(1, 3).flatmap(
    lambda width: st.dictionaries(
        st.tuples(*[st.sampled_from("abc")] * width), st.integers(1, 30), min_size=1
    )
)


@given(CELLS, st.integers(0, 15))
def test_no_total_gives_a_small_cell_away(cells: dict[Any, int], below: int) -> None:
    table = [Cell(key, n, n) for key, n in cells.items()]
    out = hidden(table, below)
    assert all(cell.patients >= below for i, cell in enumerate(table) if i not in out)
    width = len(table[0].key)
    for kept in (c for n in range(width) for c in combinations(range(width), n)):
        totals: dict[Any, list[int]] = {}
        for i, cell in enumerate(table):
            totals.setdefault(tuple(cell.key[c] for c in kept), []).append(i)
        for own in totals.values():
            gone = [i for i in own if i in out]
            enough = len(gone) >= 2 and sum(table[i].patients for i in gone) >= below
            assert not gone or enough or len(gone) == len(own)


PEOPLE = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc")),
    st.frozensets(st.integers(0, 12), min_size=1),
    min_size=1,
)


@given(PEOPLE, st.integers(0, 8))
def test_the_same_few_patients_in_two_cells_do_not_hide_each_other(
    people: dict[Any, frozenset[int]], below: int
) -> None:
    table = [
        Cell(key, len(own), len(own), own if len(own) < below else frozenset())
        for key, own in people.items()
    ]
    out = hidden(table, below)
    for column in (None, 0, 1):
        totals: dict[Any, list[int]] = {}
        for i, cell in enumerate(table):
            totals.setdefault(None if column is None else cell.key[column], []).append(i)
        for own in totals.values():
            gone = [i for i in own if i in out]
            behind = frozenset[int]().union(*(people[table[i].key] for i in gone))
            assert not gone or len(gone) == len(own) or len(behind) >= below


@given(CELLS)
def test_where_no_cell_is_small_none_is_hidden(cells: dict[Any, int]) -> None:
    table = [Cell(key, n, n) for key, n in cells.items()]
    assert not hidden(table, min(cells.values()))


def test_counts_of_a_hospital(hospital: Lake) -> None:
    cohort = hospital.cohort("all", level="series").split(a=0.5, b=0.5)
    members = cohort.to_pandas()
    table = cohort.count("PatientSex", "Modality")
    assert table["members"].sum() == len(members)
    grouped = members.groupby(["PatientSex", "Modality"])["patient_key"].nunique()
    whole = table.dropna().set_index(["PatientSex", "Modality"])["patients"]
    assert whole.to_dict() == grouped.to_dict()
    assert cohort.count("split")["members"].sum() == len(members)
    assert cohort.count()["patients"].item() == members["patient_key"].nunique()

    suppressed = cohort.count("PatientSex", "Modality", suppress_below=11)
    assert (suppressed["patients"].dropna() >= 11).all()
    assert suppressed["patients"].isna().equals(suppressed["members"].isna())
    assert suppressed["patients"].isna().sum() >= (table["patients"] < 11).sum()
    pd.testing.assert_frame_equal(
        suppressed[["PatientSex", "Modality"]], table[["PatientSex", "Modality"]]
    )


def test_a_cohort_of_few_is_not_counted(hospital: Lake) -> None:
    few = hospital.cohort("few").where("age_at_study_years = 90 and Modality = 'MR'")
    assert few.count()["patients"].item() < 11
    assert few.count(suppress_below=11)["patients"].isna().all()


def test_wrong_questions_are_told(hospital: Lake) -> None:
    cohort = hospital.cohort("all")
    with pytest.raises(UnknownColumn, match="did you mean 'PatientSex'"):
        cohort.count("PatientSexx")
    with pytest.raises(BadCriteria, match="0 or more"):
        cohort.count(suppress_below=-1)
