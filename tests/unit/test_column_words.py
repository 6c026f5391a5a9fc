"""A name that no table has leads to the column that is meant."""

from __future__ import annotations

import pytest

from cohortlake import schema
from cohortlake.dicom_terms import COLUMNS_OF_WORDS, did_you_mean_column

SHOWN = {
    form.name for table in schema.PUBLISHED.values() for c in table for form in schema.forms(c)
}


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("age", "; did you mean 'age_at_study_years' or 'age_band'?"),
        ("PatientAge", "; did you mean 'age_at_study_years' or 'age_band'?"),
        ("patient_age", "; did you mean 'age_at_study_years' or 'age_band'?"),
        ("Sex", "; did you mean 'sex' or 'PatientSex'?"),
        ("gender", "; did you mean 'PatientSex' or 'sex'?"),
        ("modality", "; did you mean 'Modality' or 'modalities'?"),
        ("study_date", "; did you mean 'StudyDate' or 'study_date_shifted'?"),
        ("study_instance_uid", "; did you mean 'StudyInstanceUID'?"),
        ("InstanceUID", "; did you mean 'SeriesInstanceUID' or 'StudyInstanceUID'?"),
        ("BodyPart", "; did you mean 'body_part' or 'BodyPartExamined'?"),
        ("Modalty", "; did you mean 'Modality'?"),
        ("zzz", ""),
    ],
)
def test_a_word_leads_to_its_column(wrong: str, near: str) -> None:
    assert did_you_mean_column(wrong, SHOWN) == near


def test_only_what_is_there_is_suggested() -> None:
    assert did_you_mean_column("age", ["age_band"]) == "; did you mean 'age_band'?"
    assert did_you_mean_column("age", ["Modality"]) == ""


def test_the_words_lead_to_columns_of_the_schema() -> None:
    assert {column for columns in COLUMNS_OF_WORDS.values() for column in columns} - SHOWN <= {
        "study_quarter"
    }
