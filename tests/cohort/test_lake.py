"""An opened lake: what it tells of itself, SQL, and what it was at an instant."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import BEGAN, FIRST_ROWS, image_set, publish

import cohortlake
from cohortlake import Lake, read_table
from cohortlake.errors import BadQuery, InstantError, NotALake, UnknownTable, UnknownValue
from cohortlake.privacy import Policy
from cohortlake.privacy.policy import Treatment
from cohortlake.published import views
from cohortlake.published.views import OF_ALL_TIMES
from cohortlake.schema import PUBLISHED, Identifies


def test_it_opens_at_once_and_gives_what_is_published(hospital_root: str) -> None:
    began = time.monotonic()
    lake = cohortlake.open(hospital_root)
    assert time.monotonic() - began < 1
    assert lake.tables == tuple(PUBLISHED)
    for table in lake.tables:
        found = lake.sql(f"FROM {table}").to_pandas()
        told = read_table(hospital_root, table)
        assert list(found.columns) == list(told.columns)
        assert sorted_rows(found) == sorted_rows(told)


@pytest.mark.parametrize("states", [FIRST_ROWS, []])
def test_opening_imports_only_what_it_uses(states: list[dict[str, Any]], tmp_path: Path) -> None:
    publish(str(tmp_path), states)  # of none, most tables have no file
    opening = f"""
import sys, cohortlake
lake = cohortlake.open({str(tmp_path)!r})
costly = {{"boto3", "botocore", "deltalake", "pandas", "pyarrow.dataset"}}
print(*costly & set(sys.modules))
print(len(lake.sql("FROM series").to_pandas()), len(lake.table("series")))
"""
    ran = subprocess.run(
        [sys.executable, "-c", opening], capture_output=True, text=True, check=False
    )
    assert ran.stdout.splitlines() == ["", f"{len(states)} {len(states)}"], ran.stderr


def test_what_has_no_date_is_in_no_month(root: str) -> None:
    publish(root, [*FIRST_ROWS, image_set(9, "r", "1.9", Modality="CT")])
    with cohortlake.open(root) as lake:
        later = "FROM series WHERE study_month >= '2020-02'"
        assert lake.sql(f"SELECT count(*) {later}").fetchall() == [(2,)]
        assert lake.sql("FROM series WHERE study_month IS NULL").fetchall() != []
        cohort = lake.cohort("a", level="series")
        assert len(cohort.where("study_month >= '2020-02'").to_pandas()) == 2
        assert len(cohort.where(study_month=None).to_pandas()) == 1
        described = lake.describe("series").set_index("column")
        assert described.loc["study_month", "missing"] == 0.25
        assert cohort.count("study_month").isna()["study_month"].sum() == 1
        assert read_table(root, "series")["study_month"].isna().sum() == 1
        assert lake.table("series")["study_month"].isna().sum() == 1
        # Files of other months are not read.
        explain = f"EXPLAIN ANALYZE SELECT count(*) {later}"
        ((_, plan),) = lake.connection.execute(explain).fetchall()
        assert "Total Files Read: 2" in plan
        # On S3 the rows are asked for in another way, which gives the same.
        for table in ("series", "studies", "image_sets", "history", "patients"):
            names = lake.columns(table)
            on_s3, here = (
                views._rows(table, names, is_local=is_local) for is_local in (False, True)
            )
            both = [lake.sql(f"SELECT * FROM ({q}) ORDER BY ALL").to_arrow() for q in (on_s3, here)]
            assert both[0].equals(both[1])
    with cohortlake.open(root, as_of="2027-01-01") as past:
        months = past.sql("SELECT study_month FROM series ORDER BY ALL").fetchall()
        assert months == [("2020-01",), ("2020-02",), ("2020-03",), (None,)]


def sorted_rows(frame: pd.DataFrame) -> list[str]:
    return sorted(map(str, frame.astype(object).to_dict("records")))


def test_it_reads_no_restricted_folder(hospital_root: str, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake/published").symlink_to(Path(hospital_root) / "published")
    with cohortlake.open(str(tmp_path / "lake")) as lake:
        assert lake.sql("SELECT count(*) FROM image_sets").fetchall() == [(900,)]


def test_describe_says_what_the_schema_says_and_what_is_missing(hospital: Lake) -> None:
    described = hospital.describe("series").set_index("column")
    series = hospital.sql("FROM series").to_pandas()
    assert list(described.index) == list(series.columns)
    assert described.loc["StudyDate", ["tag", "VR"]].tolist() == ["(0008,0020)", "DA"]
    assert described["meaning"].str.endswith(".").all()
    told, null = described.loc["BodyPartExamined"], series["BodyPartExamined"].isna().mean()
    assert told["missing"] + told["withheld"] == pytest.approx(null, abs=2e-4)
    assert 0 < told["missing"] < null < 1


def test_rows_come_out_in_every_form(hospital: Lake) -> None:
    rows = hospital.sql(
        "SELECT last_updated_at, n_series FROM studies WHERE n_series >= $least", {"least": 2}
    )
    assert str(rows.to_arrow().schema.field("last_updated_at").type) == "timestamp[us, tz=UTC]"
    assert str(rows.to_pandas().dtypes["n_series"]) == "Int64"
    assert rows.relation.filter("n_series > 3").shape[0] < len(rows.to_arrow())
    assert rows.columns == ["last_updated_at", "n_series"]
    assert "n_series" in repr(rows)
    with pytest.raises(BadQuery, match="pip install polars"):
        rows.to_polars()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT Modalty FROM series", "did you mean 'Modality'"),
        ("FROM patient", "did you mean 'patients'"),
        ("GIVE 1", "syntax error"),
        ("DROP VIEW series", "one SELECT"),
        ("SELECT 1; DROP VIEW series", "one SELECT"),
        ("", "one SELECT"),
    ],
)
def test_a_query_that_cannot_be_run_says_why(hospital: Lake, query: str, says: str) -> None:
    with pytest.raises(BadQuery, match=says):
        hospital.sql(query)


def test_no_error_holds_a_value_of_a_row(hospital: Lake) -> None:
    for query in (
        "SELECT BodyPartExamined::INT FROM series",
        "SELECT strptime(BodyPartExamined, '%Y') FROM series",
        "SELECT error(BodyPartExamined) FROM series",
    ):
        with pytest.raises(BadQuery, match="fails on some row") as caught:
            hospital.sql(query).to_arrow()
        assert caught.value.__cause__ is None
        parts = hospital.sql("SELECT DISTINCT BodyPartExamined FROM series").fetchall()
        assert not any(part in str(caught.value) for (part,) in parts if part)


def test_a_value_that_does_not_occur_is_told(root: str) -> None:
    rows = [image_set(i, "p", f"1.{i}", Modality="MG" if i else "NM") for i in range(12)]
    publish(root, rows)
    with cohortlake.open(root) as lake:
        lake.check_value("series", "Modality", "NM")
        lake.check_value("series", "n_image_sets", 77)
        with pytest.raises(UnknownValue, match="did you mean 'MG'"):
            lake.check_value("series", "Modality", "MMG")
        with pytest.raises(UnknownValue) as caught:
            lake.check_value("series", "Modality", "NMM")
        assert "did you mean" not in str(caught.value)  # for too few have it


def test_a_meaning_that_does_not_occur_is_told_too(root: str) -> None:
    rows = [image_set(i, "p", f"1.{i}", BodyPartExamined="knees") for i in range(12)]
    publish(root, rows)
    with cohortlake.open(root) as lake:
        lake.check_value("series", "body_part", "KNEE")
        with pytest.raises(UnknownValue, match="did you mean 'KNEE'"):
            lake.check_value("series", "body_part", "KNEES")


def test_unknown_tables_and_lakes_are_told(hospital: Lake, root: str) -> None:
    with pytest.raises(UnknownTable, match="did you mean 'studies'"):
        hospital.describe("study")
    with pytest.raises(NotALake, match="cohortlake sync"):
        cohortlake.open(root)
    with pytest.raises(InstantError, match="2026-06-01T12:00"):
        cohortlake.open(hospital.root.uri, as_of="yesterday")


def test_as_of_now_equals_now(hospital: Lake) -> None:
    with cohortlake.open(hospital.root.uri, as_of="2100-01-01") as later:
        for table in hospital.tables:
            columns = ", ".join(c for c in hospital.columns(table) if c != "changed_fields")
            query = f"SELECT {columns} FROM {table} ORDER BY ALL"
            assert later.sql(query).to_arrow().equals(hospital.sql(query).to_arrow())


def test_as_of_an_instant_shows_what_was_true(root: str) -> None:
    day = timedelta(days=1)
    first = image_set(1, "p", "1.1", Modality="CT")
    ended = {"valid_to": BEGAN + 2 * day, "observed_to": BEGAN + 3 * day}
    publish(
        root,
        [
            first | ended | {"ended_by": "superseded"},
            first | {"version": 2, "Modality": "MR", "valid_from": BEGAN + 2 * day},
            image_set(2, "q", "1.2", Modality="US", valid_from=BEGAN + day),
        ],
    )

    def modalities(at: datetime) -> dict[str, list[str]]:
        with cohortlake.open(root, as_of=at) as lake:
            rows = lake.sql("SELECT patient_key, modalities FROM patients").fetchall()
            assert lake.sql("SELECT count(*) FROM history").fetchall() == [(3,)]
        return dict(rows)

    with pytest.raises(InstantError, match="first search began at 2026-01-01"):
        cohortlake.open(root, as_of=BEGAN - day)
    with cohortlake.open(root, as_of=BEGAN + day) as past, cohortlake.open(root) as now:
        for table in past.tables:
            shown = sorted_rows(past.sql(f"FROM {table}").to_pandas())
            assert sorted_rows(past.table(table)) == shown
            if table not in OF_ALL_TIMES:
                assert sorted_rows(now.table(table, as_of=BEGAN + day)) == shown
    assert modalities(BEGAN) == {"p": ["CT"]}
    assert modalities(BEGAN + day) == {"p": ["CT"], "q": ["US"]}
    assert modalities((BEGAN + 2 * day).replace(tzinfo=None)) == {"p": ["MR"], "q": ["US"]}
    assert modalities(datetime(2100, 1, 1, tzinfo=UTC)) == {"p": ["MR"], "q": ["US"]}


CLOCKS = {"valid_from", "valid_to", "observed_from", "observed_to"}


@pytest.mark.parametrize(
    "withheld",
    [
        ("version",),
        ("is_primary",),
        ("updated_at",),
        ("age_at_study_years",),
        tuple(
            c.name
            for c in PUBLISHED["history"]
            if c.name not in CLOCKS and c.identifies not in (Identifies.DATE, Identifies.UID)
            and c.name not in ("datastore_id", "image_set_id", "patient_key", "study_month")
        ),
    ],
    ids=lambda withheld: withheld[0] if len(withheld) == 1 else "nearly_all",
)  # fmt: skip
def test_the_past_is_told_without_what_a_policy_withholds(
    root: str, withheld: tuple[str, ...]
) -> None:
    hidden = dict.fromkeys(withheld, Treatment.WITHHOLD)
    publish(root, FIRST_ROWS, policy=Policy("ours", "limited", Treatment.KEEP, hidden))
    with cohortlake.open(root, as_of="2100-01-01") as lake:
        for table, rows in {"image_sets": 3, "series": 3, "studies": 2, "patients": 2}.items():
            told = lake.sql(f"FROM {table}").to_arrow()
            assert len(told) == rows
            assert not {*withheld} & {*told.column_names}


def test_a_study_has_its_place_as_of_an_instant(root: str) -> None:
    came_later = {"valid_from": BEGAN + timedelta(days=1)}
    publish(
        root,
        [
            image_set(1, "p", "1.1", StudyDate=date(2020, 3, 1)),
            image_set(2, "p", "1.2", StudyDate=date(2020, 2, 1), **came_later),
            image_set(3, None, "1.3", StudyDate=date(2020, 2, 1)),
            image_set(4, "p", "1.4"),
        ],
    )
    query = "SELECT StudyInstanceUID, study_ordinal, days_since_previous FROM studies ORDER BY ALL"
    nowhere = [("1.3", None, None), ("1.4", None, None)]
    with cohortlake.open(root, as_of=BEGAN) as lake:
        assert lake.sql(query).fetchall() == [("1.1", 1, None), *nowhere]
    with cohortlake.open(root) as lake:
        assert lake.sql(query).fetchall() == [("1.1", 2, 29), ("1.2", 1, None), *nowhere]
