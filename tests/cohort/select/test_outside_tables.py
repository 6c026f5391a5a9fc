"""Outside tables may be called nearly anything, and are never taken for something of ours."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from cohort.tiny import image_set, publish
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws import examples

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import Cohort
from cohortlake.cohort.define.steps import NAME
from cohortlake.errors import BadOutsideTable

DAY = date(2020, 1, 1)
PATIENTS = ["p", "q"]
WORDS = sorted(
    {
        word
        for file in Path(cohortlake.__file__).parent.joinpath("cohort").rglob("*.py")
        for word in re.findall(r"[A-Za-z_]\w*", file.read_text("utf-8"))
    }
)
"""All that our own queries can call anything, and more."""


@pytest.fixture(scope="module")
def lake_of_two(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("outside") / "lake")
    rows = [
        image_set(10 * k + n, patient, f"1.{k}.{n}", StudyDate=DAY + timedelta(days=10 * n))
        for k, patient in enumerate(PATIENTS)
        for n in range(4)
    ]
    publish(root, rows)
    return root


def attach(lake: Lake, table: str, columns: list[str], day: date) -> None:
    named = pd.DataFrame({"patient_key": PATIENTS} | {column: [day] * 2 for column in columns})
    lake.attach(table, named)


def closest(lake: Lake, table: str, column: str) -> Cohort:
    cohort = lake.cohort("outside").join(table).where(f'"{column}" IS NOT NULL')
    return cohort.closest_study_per_patient(to=column)


@settings(max_examples=examples(100, quick=4))
@given(
    st.sampled_from([word for word in WORDS if NAME.fullmatch(word)]),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30, unique_by=str.casefold),
)
def test_no_name_is_taken_for_one_of_ours(lake_of_two: str, table: str, columns: list[str]) -> None:
    with cohortlake.open(lake_of_two) as lake:
        for column in list(columns):
            try:
                attach(lake, "tried", [column], DAY)
            except BadOutsideTable:
                columns.remove(column)
        assume(columns)
    with cohortlake.open(lake_of_two) as lake:
        try:
            attach(lake, table, columns, DAY + timedelta(days=21))
        except BadOutsideTable:
            assume(False)
        cohort = closest(lake, table, columns[0])
        assert list(cohort.to_pandas()["StudyInstanceUID"]) == ["1.0.2", "1.1.2"]
        assert cohort.count(columns[0])["members"].tolist() == [2]
        cohort.freeze()
        assert lake.verify("outside").is_identical
        attach(lake, table, columns, DAY + timedelta(days=22))
        found = lake.verify("outside")
        assert (found.counts, found.outside_changed) == ({"changed": 2}, (table,))
        assert all(set(told) == set(columns) for told in found.differences["changed_columns"])


@pytest.mark.parametrize("column", ["rank", "a", "b", "clock", "patient", "is_there", "what"])
def test_names_that_queries_of_cohorts_use(lake_of_two: str, column: str) -> None:
    with cohortlake.open(lake_of_two) as lake:
        for table in ("t", "m", "own"):
            attach(lake, table, [f"{column}_of_{table}"], DAY)
        attach(lake, "l", [column], DAY + timedelta(days=21))
        cohort = closest(lake, "l", column).join("t").join("m").join("own")
        assert list(cohort.to_pandas()["StudyInstanceUID"]) == ["1.0.2", "1.1.2"]
        cohort.freeze()
        assert lake.verify("outside").is_identical
