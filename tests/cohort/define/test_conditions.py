"""Conditions in SQL: what may stand in one, and that nothing else can be brought in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cohort.tiny import FIRST_ROWS, publish
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cohortlake
from cohortlake import Lake
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import BadCondition, BadQuery


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    root = str(tmp_path_factory.mktemp("conditions") / "lake")
    publish(root, FIRST_ROWS)
    with cohortlake.open(root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("condition", "series"),
    [
        ("Modality = 'CT'", {0, 2}),
        ("Modality = 'CT' and PatientSex = 'F' or Modality = 'MR'", {0, 1}),
        ("Modality = 'CT') or (Modality = 'MR'", {0, 1, 2}),
        ("Modality = 'CT' -- all of them", {0, 2}),
        ("age_at_study_years between 40 and 65", {0, 1}),
        ("StudyDate >= '2020-02-01'", {1, 2}),
        ("StudyDate >= DATE '2020-01-01' + INTERVAL 1 MONTH", {1, 2}),
        ("year(StudyDate) = 2020 and not PatientSex = 'F'", {2}),
        ("PatientSex is null", set()),
        ("BodyPartExamined ilike 'che%'", {0}),
        ("regexp_matches(BodyPartExamined, '^(CHEST|HEAD)$')", {0, 1}),
        ("n_series > 1", {0, 1}),  # a column of studies
        ("list_contains(modalities, 'MR')", {0, 1}),
        ("n_studies = 1 and first_study_date > '2020-02-15'", {2}),  # of patients
    ],
)
def test_conditions_mean_what_they_say(lake: Lake, condition: str, series: set[int]) -> None:
    found = lake.cohort("a", level="series").where(condition).to_pandas()
    assert {int(uid.rsplit(".", 1)[1]) for uid in found["SeriesInstanceUID"]} == series
    rest = lake.cohort("a", level="series").exclude(condition).to_pandas()
    assert len(rest) == 3 - len(series)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("Modalty = 'CT'", "did you mean 'Modality'"),
        ("modality = 'CT'", "did you mean 'Modality'"),
        ("Modality = ", "cannot be read"),
        ("", "'row'"),
        ("Modality = 'CT'; DROP VIEW series", "cannot be read"),
        ("true); DROP VIEW series; SELECT (1", "cannot be read"),
        ("true); SELECT (1", "one expression"),
        ("true) ORDER BY (1", "one expression"),
        ("true) GROUP BY ALL HAVING (true", "one expression"),
        ("true) UNION SELECT (1", "one expression"),
        ("Modality IN (SELECT Modality FROM series)", "subquery"),
        ("EXISTS (FROM 'x.csv')", "subquery"),
        ("read_text('/etc/hosts') <> ''", "read_text"),
        ("getenv('HOME') <> ''", "getenv"),
        ("current_date > StudyDate", "'current_date' .* any day: write a date"),
        ("StudyDate >= CURRENT_DATE - interval 2 year", "'CURRENT_DATE' .* any day"),
        ("StudyDate >= now() - interval 2 year", "'now' .* any day: write .*'2024-01-31'"),
        ("StudyDate >= today()", "'today' .* any day"),
        ("StudyDate >= current_timestamp", "'current_timestamp' .* any day"),
        ("StudyDate >= 'today'::date", "a text beside it is no date"),
        ("random() > 0.5", r"'random' .* each time: use random_study_per_patient\(seed=1\)"),
        ("uuid() > ''", "'uuid' .* each time"),
        ("count(*) > 1", "count_star"),
        ("row_number() OVER () = 1", "window"),
        ("Modality = $value_1", "one expression"),
        ("series.Modality = 'CT'", "without its table"),
        ("#1 = 'CT'", "positional"),
        ("COLUMNS(*) = 1", "star"),
        ("n_studies > 1 and Modality = 'CT'", "no one table has all"),
    ],
)
def test_what_may_not_stand_in_one_is_told(lake: Lake, condition: str, says: str) -> None:
    with pytest.raises(BadCondition, match=says):
        lake.cohort("a").where(condition)


@given(st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_condition_or_refused(lake: Lake, text: str) -> None:
    with contextlib.suppress(BadCondition, BadQuery):
        lake.cohort("a").where(text).to_arrow()
    assert lake.sql("SELECT count(*) FROM series").fetchall() == [(3,)]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["' OR 1=1 --", "$value_1", "'; DROP VIEW series; --", "\\", '"', "CT' OR 'a'='a"]
))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_value_is_only_ever_a_value(lake: Lake, value: str) -> None:
    cohort, canonical = lake.cohort("a", level="series"), canonical_text("UI", value)
    found = cohort.where(StudyInstanceUID=canonical or "none").to_pandas()
    assert list(found["StudyInstanceUID"].unique()) == [canonical] * (canonical in ("1.1", "1.2"))
    params = cohort.where(StudyInstanceUID=value).selected.query.params.values()
    assert list(params) == ([canonical] if canonical else [])


def test_a_comparison_that_fails_tells_no_value(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(BadQuery) as caught:
        lake.cohort("a").where("BodyPartExamined::INT = 3").to_arrow()
    assert "CHEST" not in str(caught.value)
