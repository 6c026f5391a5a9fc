"""Who is in a cohort: the laws, against plain loops over the same rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort import brute
from cohort.strategies import CRITERIA, hospitals
from cohort.tiny import FIRST_ROWS, image_set, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from cohortlake import Lake
from cohortlake.cohort import Cohort, Criteria
from cohortlake.cohort.select.selected import select
from cohortlake.errors import (
    BadCondition,
    BadCriteria,
    BadOutsideTable,
    UnknownTable,
    UnknownValue,
)

DAY = date(2020, 1, 1)
DAYS = [0, 31, 400]


@pytest.fixture(scope="module")
def small() -> Iterator[Lake]:
    """A lake of FIRST_ROWS to which no test attaches a table."""
    with opened(FIRST_ROWS) as lake:
        yield lake


@pytest.fixture(scope="module")
def spaced() -> Iterator[Lake]:
    """A lake of a patient with a CT on each of DAYS, and of another one with one study."""
    rows = [
        image_set(n, "p", f"1.{n}", Modality="CT", StudyDate=DAY + timedelta(days=n)) for n in DAYS
    ]
    with opened([*rows, image_set(500, "q", "1.500", StudyDate=DAY)]) as lake:
        yield lake


@given(hospitals(), CRITERIA)
@settings(max_examples=examples(60, quick=8))
def test_each_step_leaves_what_plain_loops_leave(
    rows: list[dict[str, Any]], criteria: Criteria
) -> None:
    with opened(rows) as lake:
        series = lake.sql(brute.SERIES).to_arrow().to_pylist()
        cohort = Cohort(select(lake.opened, criteria))
        expected = brute.stages(series, criteria)
        for stage, left in zip(cohort.selected.query.stages, expected, strict=True):
            found = cohort.ask(f"SELECT series_id FROM {stage.name}").fetchall()
            assert sorted(uid for (uid,) in found) == sorted(r["SeriesInstanceUID"] for r in left)
        members = cohort.to_arrow().to_pylist()
    key = {"patient": "patient_key", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
    ids = [member[key[criteria.level]] for member in members]
    assert ids == sorted({row[key[criteria.level]] for row in expected[-1]})
    owners = {row[key[criteria.level]]: row["patient_key"] for row in expected[-1]}
    assert {member[key[criteria.level]]: member["patient_key"] for member in members} == owners


def test_a_random_study_is_the_one_with_the_least_hash() -> None:
    rows = [image_set(n, f"p{n % 3}", f"1.{n}") for n in range(30)]
    with opened(rows) as lake:
        for seed in range(5):
            cohort = lake.cohort("a").random_study_per_patient(seed)
            series = lake.sql(brute.SERIES).to_arrow().to_pylist()
            left = brute.stages(series, cohort.criteria)[-1]
            found = set(cohort.to_pandas()["StudyInstanceUID"])
            assert found == {row["StudyInstanceUID"] for row in left}
            assert len(found) == 3


@given(hospitals(), CRITERIA, st.randoms(use_true_random=False))
@settings(max_examples=examples(15, quick=5))
def test_the_order_of_the_rows_does_not_matter(
    rows: list[dict[str, Any]], criteria: Criteria, order: random.Random
) -> None:
    shuffled = order.sample(rows, len(rows))
    with opened(rows) as one, opened(shuffled) as other:
        assert (
            select(one.opened, criteria).members.to_arrow()
            == select(other.opened, criteria).members.to_arrow()
        )


@given(hospitals(), hospitals(), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=examples(15, quick=5))
def test_a_split_keeps_patients_whole_and_moves_nobody(
    rows: list[dict[str, Any]], more: list[dict[str, Any]], tenths: int, seed: int
) -> None:
    others = [
        row | {"image_set_id": f"f{row['image_set_id'][1:]}", "SeriesInstanceUID": f"1.4.{n}",
               "StudyInstanceUID": f"1.5.{n}", "patient_key": f"new {row['patient_key']}"}
        for n, row in enumerate(more)
    ]  # fmt: skip
    parts = []
    for held in (rows, rows + others):
        with opened(held) as lake:
            cohort = lake.cohort("a", level="series")
            frame = cohort.split(a=tenths / 10, b=1 - tenths / 10, seed=seed).to_pandas()
        assert (frame.groupby("patient_key")["split"].nunique() <= 1).all()
        parts.append(dict(zip(frame["patient_key"], frame["split"], strict=True)))
    before, after = parts
    assert before.items() <= after.items()


def test_a_split_meets_its_shares() -> None:
    with opened([image_set(n, f"p{n}", f"1.{n}") for n in range(8000)]) as lake:
        cohort = lake.cohort("a", level="patient").split(train=0.7, validation=0.2, test=0.1)
        shares = cohort.to_pandas()["split"].value_counts(normalize=True)
        other = cohort.split(train=0.7, validation=0.2, test=0.1, seed=1).to_pandas()
        assert (other["split"] != cohort.to_pandas()["split"]).mean() > 0.3
    for part, share in {"train": 0.7, "validation": 0.2, "test": 0.1}.items():
        assert shares[part] == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("within 31 days", {0, 31}),
        ("within 30 days", set()),
        ("within 31 days after", {0}),
        ("within 31 days before", {31}),
        ("1 to 1 months after", {0}),
        ("6 to 18 months apart", {0, 31, 400}),
        ("6 to 18 months after", {0, 31}),
        ("1 to 2 years after", {0, 31}),
        ("any time before", {31, 400}),
        ("any time", {0, 31, 400}),
    ],
)
def test_intervals_count_calendar_units_and_both_ends(
    spaced: Lake, when: str, found: set[int]
) -> None:
    near = spaced.cohort("a").with_study(when, Modality="CT").to_pandas()
    rest = spaced.cohort("a").without_study(when, Modality="CT").to_pandas()
    assert {int(uid[2:]) for uid in near["StudyInstanceUID"]} == found
    assert {int(uid[2:]) for uid in rest["StudyInstanceUID"]} == {*DAYS, 500} - found


def test_who_is_nobodys_or_two_patients_is_left_out() -> None:
    rows = [
        image_set(0, None, "1.0"),
        image_set(1, "p", None),
        image_set(2, "p", "1.2"),
        image_set(3, "q", "1.2"),
        image_set(4, "q", "1.4"),
    ]
    with opened(rows) as lake:
        assert list(lake.cohort("a").to_pandas()["StudyInstanceUID"]) == ["1.4"]


def test_no_filter_hides_that_a_study_is_two_patients() -> None:
    rows = [
        image_set(0, "p", "1.1", Modality="CT", PatientSex="F", SeriesNumber=1),
        image_set(1, "q", "1.1", Modality="MR", PatientSex="M"),
        image_set(2, "q", "1.2", Modality="CT", PatientSex="M"),
    ]
    with opened(rows) as lake:
        for cohort in (
            lake.cohort("a").where(Modality="CT"),
            lake.cohort("a").exclude(Modality="MR"),
        ):
            assert list(cohort.to_pandas()["StudyInstanceUID"]) == ["1.2"]
            *_, filtered, identified = cohort.attrition().steps
            assert (filtered.counts.patients, identified.counts.patients) == (2, 1)


def test_a_list_column_has_a_value_that_is_in_it(small: Lake) -> None:
    assert len(small.cohort("a").where(modalities="MR").to_pandas()) == 1
    assert len(small.cohort("a").where(modalities=["MR", "CT"]).to_pandas()) == 2


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_an_outside_table_is_joined_by_patient(kind: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"patient_key": ["p", "x"], "biopsy": [date(2020, 2, 8)] * 2, "grade": 3})
    source: Any = frame
    if kind != "frame":
        source = tmp_path / f"biopsies.{kind}"
        frame.to_csv(source, index=False) if kind == "csv" else frame.to_parquet(source)
    rows = [image_set(9, "p", "1.3", Modality="CT", StudyDate=date(2020, 2, 11)), *FIRST_ROWS]
    with opened(rows) as lake:
        lake.attach("biopsies", source)
        assert "biopsies" in lake.tables
        assert list(lake.describe("biopsies")["column"]) == ["patient_key", "biopsy", "grade"]
        cohort = lake.cohort("a").join("biopsies").where(grade=3)
        assert set(cohort.to_pandas()["patient_key"]) == {"p"}
        members = cohort.closest_study_per_patient(to="biopsy").to_pandas()
        assert list(members["StudyInstanceUID"]) == ["1.1"]  # a series of it lies a day away
        assert list(members["grade"]) == [3]
        assert cohort.where("grade > 3").to_pandas().empty
        if kind != "frame":
            (tmp_path / "a.yaml").write_text(cohort.criteria.to_yaml())
            again = lake.load_cohort(tmp_path / "a.yaml")
            assert again.to_arrow() == cohort.to_arrow()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"patient": ["p"]}, "no column 'patient_key'"),
        ({"patient_keys": ["p"]}, "did you mean 'patient_keys'"),
        ({"patient_key": [1]}, "must be text"),
        ({"patient_key": ["p", None]}, "1 rows have no patient_key"),
        ({"patient_key": ["p", "p"]}, "1 rows repeat"),
        ({"patient_key": ["p"], "Modality": ["CT"]}, "'Modality' is already a column"),
        ({"patient_key": ["p"], "modality": ["CT"]}, "'modality' is already a column"),
        ({"patient_key": ["p"], "grade": [1], "Grade": [1]}, "'Grade' is already a column"),
        ({"patient_key": ["p"], "": [1]}, "cannot be the name"),
        ({"patient_key": ["p"], "erased_on": ["a"]}, "'erased_on' is already a column"),
        ({"patient_key": ["p"], "members": ["a"]}, "'members' is already a column"),
        ({"patient_key": ["p"], "split": ["a"]}, "'split' is already a column"),
        ({"patient_key": ["p"], "member_digest": ["a"]}, "'member_digest' is already a column"),
        ({"patient_key": ["p"], "a' THEN (SELECT 1) --": [1]}, "cannot be the name"),
        ({"patient_key": ["p"], 'a" FROM series --': [1]}, "cannot be the name"),
    ],
)
def test_an_outside_table_that_cannot_be_joined_is_told(
    small: Lake, table: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadOutsideTable, match=says):
        small.attach("registry", pd.DataFrame(table))


def test_what_is_wrong_is_said_where_it_was_written(small: Lake, tmp_path: Path) -> None:
    cohort = small.cohort("a")
    with pytest.raises(UnknownValue, match="Modality"):
        cohort.where(Modality="CAT")
    with pytest.raises(UnknownValue):
        cohort.with_study("any time", Modality="CAT")
    assert cohort.where("Modality = 'CAT'").to_pandas().empty  # SQL may find nothing
    with pytest.raises(BadCondition, match="no table has a column 'biopsy'"):
        cohort.closest_study_per_patient(to="biopsy")
    with pytest.raises(BadCriteria, match="is not in the calendar"):
        cohort.closest_study_per_patient(to="2020-02-31")
    with pytest.raises(BadCriteria, match="correct the path"):
        small.load_cohort(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("cohort: a\nabout: Möller".encode("latin-1"))
    with pytest.raises(BadCriteria, match="UTF-8"):
        small.load_cohort(tmp_path / "latin.yaml")
    with pytest.raises(BadCriteria, match="name each column once"):
        cohort.count("PatientSex", "PatientSex")
    with pytest.raises(BadCondition, match="series or of studies"):
        cohort.with_study("any time", "n_studies > 1")
    with pytest.raises(UnknownTable):
        cohort.join("registry")
    with pytest.raises(BadCriteria, match="lower case"):
        small.attach("My registry", pd.DataFrame({"patient_key": ["p"]}))
    for name in ("step_1", "series", "before"):
        with pytest.raises(BadOutsideTable, match="take another name"):
            small.attach(name, pd.DataFrame({"patient_key": ["p"]}))
    with pytest.raises(BadOutsideTable, match="is not there"):
        small.attach("registry", tmp_path / "x.csv")
    for file, content in {"x.parquet": "Smith", "x.csv": 'patient_key\nSm"ith\0\xff'}.items():
        (tmp_path / file).write_text(content, encoding="latin-1")
        with pytest.raises(BadOutsideTable, match="cannot be read as") as caught:
            small.attach("registry", tmp_path / file)
        assert "mith" not in str(caught.value)
    (tmp_path / "x.csv").unlink()
    with pytest.raises(BadOutsideTable, match=r"\.parquet or a \.csv"):
        small.attach("registry", tmp_path / "x.xlsx")


def test_a_cohort_shows_as_yaml(hospital: Lake) -> None:
    cohort = hospital.cohort("ct", about="Chests.").where(Modality="CT").last_study_per_patient()
    assert Criteria.from_yaml(repr(cohort)) == cohort.criteria
    assert not cohort.to_pandas()["patient_key"].duplicated().any()
    assert len(cohort.random_study_per_patient(1).to_pandas()) == len(cohort.to_pandas())
    assert len(cohort.first_study_per_patient().to_arrow()) == len(cohort.to_arrow())
