"""What a step asks for, in a sentence."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.sentences import column_words, sentence
from cohortlake.cohort.define.steps import Condition, Exclude, Where


def test_each_kind_of_step() -> None:
    text = """
    cohort: screening
    steps:
      - where: {Modality: MG, PatientSex: [F, null]}
      - where: [{Modality: MG}, age_at_study_years between 40 and 65]
      - exclude: "BodyPartExamined = 'CHEST'"
      - with_study: {when: within 30 days, where: {Modality: US}}
      - without_study: {when: any time before, where: {Modality: [MR, PT, NM]}}
      - join: {table: registry, file: registry.csv}
      - one_study_per_patient: last
      - one_study_per_patient: {closest: 2020-01-31}
      - one_study_per_patient: {closest: diagnosed_on}
      - one_study_per_patient: {random: 7}
      - where: {Modality: MG}
        label: Mammograms
    """
    with duckdb.connect() as con:
        sentences = [sentence(con, step) for step in Criteria.from_yaml(text).steps]
    assert sentences == [
        "Modality is MG and patient sex is F or missing",
        "Modality is MG and age at study in years is from 40 to 65",
        "Body part examined is CHEST",
        "Another study within 30 days, where modality is US",
        "No other study any time before, where modality is MR, PT or NM",
        "Patient is in the table registry",
        "Last study of each patient",
        "Study of each patient closest to 2020-01-31",
        "Study of each patient closest to diagnosed on",
        "One study of each patient, drawn at random (seed 7)",
        "Mammograms",
    ]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("StudyDate >= DATE '2020-01-01'", "Study date is at least 2020-01-01"),
        ("Modality in ('CT', 'MR')", "Modality is CT or MR"),
        ("Modality not in ('CT')", "Not (modality is CT)"),
        ("PatientID is null", "Patient ID is missing"),
        ("age < 18 or (age > 70 and sex <> 'F')",
         "Age is below 18 or (age is above 70 and sex is not F)"),
        ("year(StudyDate) = 2024", "Year of study date is 2024"),
        ("list_contains(modalities, 'CT')", "Modalities include CT"),
        ("StudyDescription ilike '%chest%'", "Study description is like %chest%"),
        ("regexp_matches(Modality,\n '^C$')", "regexp_matches(Modality, '^C$')"),
        ("len(PatientID) > 3", "len(PatientID) > 3"),
    ],
)  # fmt: skip
def test_conditions_in_sql(condition: str, words: str) -> None:
    with duckdb.connect() as con:
        assert sentence(con, Where(Condition((), (condition,)))) == words


def test_parts_of_one_condition_stay_apart() -> None:
    step = Exclude(Condition((("sex", ("F",)),), ("age < 18 or age > 70", "Rows = 1 + 1")))
    with duckdb.connect() as con:
        said = sentence(con, step)
        assert said == "Sex is F and (age is below 18 or age is above 70) and Rows = 1 + 1"
        assert sentence(con, replace(step, label="$x")) == "$x"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("StudyInstanceUID", "study instance UID"),
        ("NumberOfStudyRelatedSeries", "number of study related series"),
        ("age_at_study_years", "age at study in years"),
        ("birads", "birads"),
        ("n_studies", "number of studies"),
        ("StudyDate_of_CT", "study date of CT"),
        ("größe", "größe"),
        ("_", "_"),
    ],
)
def test_columns_in_words(name: str, words: str) -> None:
    assert column_words(name) == words
