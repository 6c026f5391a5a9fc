"""Counts of the members of a cohort."""

from __future__ import annotations

import pandas as pd
import pytest

from cohortlake import Lake
from cohortlake.errors import BadCriteria, UnknownColumn


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
