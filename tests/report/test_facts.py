"""What the report says is what the tables hold: compared with pandas, tableone and coverage."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import image_set, opened, publish

import cohortlake
from cohortlake import Lake, Settings, report
from cohortlake.errors import BadCriteria, MissingExtra, SettingError
from cohortlake.privacy import built_in
from cohortlake.report.cells import Breakdown, Grid
from cohortlake.report.completeness import completeness
from cohortlake.report.holdings import holdings
from cohortlake.report.members import Number, members
from cohortlake.report.quality import _STATUS, quality
from cohortlake.report.trends import _STUDY_DATES, by_year, study_dates, trends
from cohortlake.storage.root import Root

SETTLE = Settings.settle


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def test_holdings_are_what_the_tables_hold(hospital: Lake) -> None:
    held = holdings(hospital.opened, 0)
    series = hospital.sql("FROM series").to_pandas()
    assert held.rows == {t: len(hospital.table(t)) for t in held.rows}
    modalities = series["Modality"].fillna("missing").value_counts().to_dict()
    shown = {value.label: value.n for value in held.modalities.shown}
    assert shown == {label: modalities[label] for label in shown}
    rest = sum(modalities.values()) - sum(shown.values())
    assert held.modalities.others == len(modalities) - len(shown)
    assert (held.modalities.n_others or 0) == rest


def test_quality_is_the_share_of_the_image_sets(hospital: Lake) -> None:
    rows = hospital.sql("FROM image_sets").to_pandas()
    told = {field.name: field for field in quality(hospital.opened, 0)}
    assert {"PatientSex", "Modality", "patient_key", "age_at_study_years"} <= told.keys()
    assert told["Modality"].tag == "(0008,0060)"
    for name, field in told.items():
        assert field.missing.share == pytest.approx(lacks(rows, name).mean())
    few = {field.name for field in quality(hospital.opened, 11) if field.missing.share is None}
    for name in told:
        lacking = rows[lacks(rows, name)]
        persons = lacking["patient_key"].fillna(lacking["StudyInstanceUID"]).nunique()
        assert (name in few) == (len(lacking) > 0 and persons < 11)


def lacks(rows: pd.DataFrame, name: str) -> Any:
    status = _STATUS.get(name)
    return rows[status] == "missing" if status in rows else rows[name].isna()


def test_what_a_policy_may_hide_is_not_told_as_missing(tmp_path: Path) -> None:
    day = date(2020, 1, 1)
    rows = [image_set(n, f"p{n}", f"1.{n}", Modality="CT", StudyDate=day) for n in range(30)]
    marked = {}
    for name in ("limited", "identified"):
        publish(str(tmp_path / name), rows, policy=built_in(name))
        with cohortlake.open(str(tmp_path / name)) as lake:
            marked[name] = {field.name for field in quality(lake.opened, 11) if field.may_be_hidden}
            report.write(lake, tmp_path / f"{name}.html")
        is_noted = "Missing or not shown" in text_of(tmp_path / f"{name}.html")
        assert is_noted == bool(marked[name])
    assert {"SeriesNumber", "StudyTime"} <= marked["limited"]
    assert not {"Modality", "StudyDate"} & marked["limited"]  # all have one
    # A status tells what was sent of these; keys are never made null.
    assert not {"PatientSex", "BodyPartExamined", "patient_key"} & marked["limited"]
    assert marked["identified"] == set()


def test_an_empty_lake_has_a_report(root: str, tmp_path: Path) -> None:
    publish(root, [])
    with cohortlake.open(root) as lake:
        report.write(lake, tmp_path / "a.html", lake.cohort("nobody"), suppress_below=0)
    assert "of 0 members" in text_of(tmp_path / "a.html")


def test_a_field_that_all_but_a_few_lack_is_not_told() -> None:
    rows = [image_set(n, f"p{n}", f"1.{n}", Modality="CT") for n in range(30)]
    rows[0]["SeriesNumber"] = 1
    with opened(rows) as lake:
        told = {field.name: field.missing for field in quality(lake.opened, 11)}
    assert (told["SeriesNumber"].share, told["SeriesNumber"].is_small) == (None, False)
    assert told["Modality"].share == 0
    assert told["accession_key"].share == 1


def test_a_status_says_what_is_wrong(hospital: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.connection.execute("""
        CREATE OR REPLACE TEMP VIEW image_sets AS SELECT
            'p' || n AS patient_key, 's' || n AS StudyInstanceUID,
            CASE WHEN n < 100 THEN 'F' END AS PatientSex,
            CASE WHEN n < 120 THEN 'ok' WHEN n < 160 THEN 'invalid' ELSE 'missing' END
                AS sex_status,
            CASE WHEN n >= 20 THEN DATE '2020-01-01' END AS StudyDate,
            CASE WHEN n < 15 THEN 'soon' END AS "StudyDate_raw",
            CASE WHEN n > 50 THEN 40 END AS age_at_study_years,
            CASE WHEN n > 50 THEN 'ok' WHEN n > 45 THEN 'missing' ELSE 'implausible' END
                AS age_status
        FROM range(200) t(n)
    """)
    columns = tuple(hospital.sql("FROM image_sets").columns)
    monkeypatch.setattr(hospital.opened, "columns", lambda _: columns)
    told = {
        field.name: [share and share.share for share in
                     (field.missing, field.invalid, field.implausible)]
        for field in quality(hospital.opened, 11)
    }  # fmt: skip
    assert told == {
        "patient_key": [0, None, None],
        "StudyInstanceUID": [0, None, None],
        "PatientSex": [0.2, 0.2, 0],
        "StudyDate": [None, 0.075, None],
        "age_at_study_years": [None, 0, 0.23],
    }


def test_years_are_those_of_the_studies(hospital: Lake) -> None:
    dates = study_dates(hospital.opened)
    assert dates is not None
    found = trends(hospital.opened, ["CT", "MR"], 0).years
    assert found is not None
    told = f"SELECT {dates.year} AS year, Modality, StudyInstanceUID FROM series"
    series = hospital.sql(told).to_pandas()
    for year, row in (c for c in found.cells if c[0].isdecimal() and c[1] != "others"):
        own = series[(series["year"] == int(year)) & (series["Modality"] == row)]
        assert found.cells[year, row] == own["StudyInstanceUID"].nunique()
    assert found.rows[:2] == ("CT", "MR")


@pytest.mark.parametrize("dates", _STUDY_DATES, ids=lambda dates: dates.column)
def test_years_of_few_are_one_with_those_beside_them(hospital: Lake, dates: Any) -> None:
    relation = """
        SELECT 'p' || n AS person, d AS "StudyDate", d AS study_date_shifted, year(d) AS study_year
        FROM (SELECT n, CASE WHEN n = 0 THEN DATE '1900-01-01' WHEN n = 1 THEN DATE '2900-01-01'
                             WHEN n > 2 THEN DATE '2010-05-05' + INTERVAL (n // 20) YEAR END AS d
              FROM range(60) t(n))
    """
    made = by_year(hospital.opened, relation, dates, "'studies'", 11)
    assert made is not None
    counted = f"SELECT year, count(*) FROM ({made}) GROUP BY 1 ORDER BY 1"
    assert hospital.sql(counted).fetchall() == [
        *[("2010 and before", 18), ("2011", 20), ("2012 and after", 21), ("undated", 1)]
    ]
    assert by_year(hospital.opened, relation, dates, "'studies'", 61) is None


def test_months_are_those_of_the_data_and_not_of_the_day_of_the_report() -> None:
    typing_error, latest = date(2025, 12, 31), date(2025, 6, 30)
    days = (date(2023, 12, 31), date(2024, 1, 1), latest, typing_error)
    rows = [image_set(n, f"p{n}", f"1.{n}", StudyDate=day) for n, day in enumerate(days)]
    with opened(rows) as lake:
        # The last search began before the last of these days, and today is after it.
        marker = replace(lake.opened.publication, observed_until="2025-07-01T00:00:00+00:00")
        tables = lake.opened
        tables.publication = marker
        months = trends(tables, [], 0).months
        assert months is not None
        assert months.cells == {("2024-01", "2024"): 1, ("2025-06", "2025"): 1}
    with opened([image_set(1, "p", "1.1")]) as lake:
        assert trends(lake.opened, [], 0).months == Grid((), (), {})


def test_changes_are_told_by_kind(hospital: Lake) -> None:
    history = hospital.sql("FROM history").to_pandas()
    told = trends(hospital.opened, [], 0)
    shown = {value.label: value.n for value in told.changes.shown}
    kinds = history["kind"].value_counts().to_dict()
    deleted = int((history["ended_by"] == "deleted").sum())
    assert shown == (kinds | {"deleted": deleted} if deleted else kinds)
    assert len(shown) > 3
    assert (told.changed_in is None) == ("valid_from" not in history)
    if told.changed_in:
        assert sum(filter(None, told.changed_in.cells.values())) == (
            sum(shown.values()) - shown["created"]
        )


def test_table_one_says_what_tableone_says(hospital: Lake) -> None:
    cohort = hospital.cohort("scans").where(Modality=["CT", "MR"]).first_study_per_patient()
    table = cohort.table_one().tableone
    flat = {" ".join(map(str, key)).strip(): str(row.iloc[-1]) for key, row in table.iterrows()}
    told = members(cohort.selected, 0)
    assert told.n == int(flat["n"])
    assert told.table_one is not None
    for column, said in told.table_one.items():
        if isinstance(said, Number):
            assert flat[f"{column}, mean (SD)"] == f"{said.mean:.1f} ({said.deviation:.1f})"
        else:
            for value in said.shown:
                share = 100 * value.n / told.n
                assert flat[f"{column}, n (%) {value.label}"] == f"{value.n} ({share:.1f})"


def test_what_was_joined_is_told_too(hospital: Lake) -> None:
    keys = hospital.sql("SELECT patient_key FROM patients ORDER BY 1").to_pandas()
    registry = keys.assign(arm=["a", "b"] * (len(keys) // 2) + ["a"] * (len(keys) % 2), grade=1.5)
    hospital.attach("registry", registry.assign(note=keys["patient_key"]))
    for level in ("patient", "study", "series"):
        cohort = hospital.cohort("all", level=level).where(Modality="CT").join("registry")
        told = members(cohort.selected, 11).table_one
        assert told is not None
        assert {"arm", "grade"} <= told.keys()
        assert "note" not in told
        assert isinstance(told["arm"], Breakdown)
        assert told["grade"] == Number(1.5, 0.0, 1.5, 0)
    temporary = hospital.sql("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall()
    assert temporary == [(0,)]


def test_a_number_that_few_have_is_not_told() -> None:
    day = date(2020, 1, 1)
    rows = [
        image_set(n, f"p{n}", f"1.{n}", Modality="CT", StudyDate=day, PatientSex="F",
                  age_at_study_years=50 + n if n < 5 else None)
        for n in range(40)
    ]  # fmt: skip
    with opened(rows) as lake:
        few = members(lake.cohort("a").where(Modality="CT").selected, 11).table_one
        all_of_them = members(lake.cohort("a").where(Modality="CT").selected, 0).table_one
    assert few is not None
    assert few["age_at_study_years"] == Number(None, None, None, None)  # 35 of 40 would tell 5
    assert all_of_them is not None
    assert all_of_them["age_at_study_years"].mean == 52
    assert all_of_them["age_at_study_years"].missing == 35


def test_how_many_patients_a_lake_has_is_not_told_where_few_are_known(tmp_path: Path) -> None:
    rows = [image_set(n, f"p{n}" if n < 3 else None, f"1.{n}", Modality="CT") for n in range(40)]
    with opened(rows) as lake:
        assert holdings(lake.opened, 11).rows["patients"] is None
        assert holdings(lake.opened, 11).rows["studies"] == 40
        assert holdings(lake.opened, 3).rows["patients"] == 3
        told = members(lake.cohort("all").where(Modality="CT").selected, 11)
        assert [step.left for step in told.flow.steps] == [None, None]
        assert members(lake.cohort("all").selected, 11).n is None
        report.write(lake, tmp_path / "a.html", lake.cohort("all"))
    page = text_of(tmp_path / "a.html")
    assert '<span class="hidden">hidden</span></b> patients' in page
    assert "3 patients" not in page


def test_nobody_is_described_too(hospital: Lake, tmp_path: Path) -> None:
    for level in ("patient", "study", "series"):
        nobody = hospital.cohort("nobody", level=level).where("age_at_study_years > 200")
        report.write(hospital, tmp_path / "a.html", nobody)
        assert "of 0 members" in text_of(tmp_path / "a.html")


def test_a_cohort_of_few_is_not_described(hospital: Lake, tmp_path: Path) -> None:
    (one,) = hospital.sql("SELECT patient_key FROM series WHERE Modality = 'CT' LIMIT 1").fetchall()
    few = hospital.cohort("few").where(f"patient_key = '{one[0]}'")
    report.write(hospital, tmp_path / "a.html", few)
    page = text_of(tmp_path / "a.html")
    assert "No more is shown of its members" in page
    assert "Table 1" not in page
    report.write(hospital, tmp_path / "a.html", few, suppress_below=0)
    assert "Table 1" in text_of(tmp_path / "a.html")


def test_a_value_of_few_and_the_lakes_path_are_nowhere_on_the_page(tmp_path: Path) -> None:
    rows = [
        image_set(n, f"p{n}", f"1.{n}", Modality="CT", StudyDate=date(2020, 1, 1),
                  BodyPartExamined="BREAST" if n < 10 else "CHEST")
        for n in range(60)
    ]  # fmt: skip
    with opened(rows) as lake:
        path = tmp_path / "a.html"
        report.write(lake, path, lake.cohort("cts").where(Modality="CT"))
        assert "BREAST" not in text_of(path)
        assert "CHEST" not in text_of(path)  # or what is not the chest could be subtracted
        assert lake.root.uri not in text_of(path)
        report.write(lake, path, lake.cohort("cts").where(Modality="CT"), suppress_below=0)
        assert "BREAST" in text_of(path)


def test_complete_until_is_that_of_coverage(hospital_root: str) -> None:
    (store,) = completeness(Root(hospital_root), SETTLE) or ()
    with cohortlake.open(hospital_root) as lake:
        assert store.datastore_id == lake.sql("SELECT any_value(datastore_id) FROM series"
                                              ).fetchall()[0][0]  # fmt: skip
    assert store.gaps == ()
    assert store.last_search_at is not None
    assert store.complete_until == store.last_search_at - SETTLE


def test_a_reader_of_published_alone_has_a_report(hospital_root: str, tmp_path: Path) -> None:
    shutil.copytree(Path(hospital_root, "published"), tmp_path / "copy/published")
    with cohortlake.open(str(tmp_path / "copy")) as lake:
        report.write(lake, tmp_path / "a.html")
    assert "which this reader may not read" in text_of(tmp_path / "a.html")
    assert "Series by modality" in text_of(tmp_path / "a.html")


def test_coverage_that_may_not_be_read_is_no_error(hospital_root: str, tmp_path: Path) -> None:
    coverage = tmp_path / "lake/coverage"
    shutil.copytree(Path(hospital_root, "coverage"), coverage)
    assert completeness(Root(str(tmp_path / "lake")), SETTLE)
    for path in (*coverage.rglob("*"), coverage):
        path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        assert completeness(Root(str(tmp_path / "lake")), SETTLE) is None
    finally:
        if root:
            os.seteuid(0)
        for path in (coverage, *coverage.rglob("*")):
            path.chmod(0o700)


def test_an_old_report_is_replaced_or_stays_whole(hospital: Lake, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")
    with pytest.raises(BadCriteria, match="0 or more"):
        report.write(hospital, path, suppress_below=-1)
    assert path.read_text() == "old"
    report.write(hospital, path)
    assert text_of(path).startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(SettingError, match=r"cannot write .*none/a\.html: No such file"):
        report.write(hospital, tmp_path / "none/a.html")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_without_the_extra_it_says_what_to_install(
    hospital: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"{library} is not installed.*cohortlake\[report\]"):
        report.write(hospital, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())
