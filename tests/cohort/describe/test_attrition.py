"""How many are left after each step, and the diagram of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cohort import brute
from cohort.strategies import CRITERIA, hospitals
from cohort.tiny import FIRST_ROWS, opened
from hypothesis import given, settings
from laws import examples

from cohortlake import Lake
from cohortlake.cohort import Cohort, Criteria
from cohortlake.cohort.describe.attrition import Attrition
from cohortlake.cohort.describe.attrition_step import Counts
from cohortlake.cohort.select.selected import select
from cohortlake.errors import BadCriteria, MissingExtra


@given(hospitals(), CRITERIA)
@settings(max_examples=examples(40, quick=6))
def test_counts_equal_plain_loops_and_only_ever_shrink(
    rows: list[dict[str, Any]], criteria: Criteria
) -> None:
    with opened(rows) as lake:
        series = lake.sql(brute.SERIES).to_arrow().to_pylist()
        steps = Cohort(select(lake.opened, criteria)).attrition().steps
    expected = [Counts(*brute.counts(left)) for left in brute.stages(series, criteria)]
    assert [step.counts for step in steps] == expected
    for before, after in pairwise(expected):
        assert min(vars(before - after).values()) >= 0


def test_a_notebook_shows_criteria_in_full(hospital: Lake) -> None:
    long = "Modality IN ('CT', 'DX') AND BodyPartExamined = 'CHEST' AND age_at_study_years > 18"
    assert (
        "age at study in years is above 18"
        in hospital.cohort("long").where(long).attrition()._repr_html_()
    )


@pytest.fixture
def attrition(hospital: Lake) -> Attrition:
    cohort = hospital.cohort("chests", about="Chests.").where(Modality=["CT", "DX"])
    cohort = cohort.where(BodyPartExamined="CHEST").first_study_per_patient()
    return cohort.split(train=0.8, test=0.2).attrition()


def test_a_hospital_in_pandas_and_in_a_table(hospital: Lake, attrition: Attrition) -> None:
    series = hospital.sql("FROM series").to_pandas()
    chests = series[series["Modality"].isin(["CT", "DX"])]
    chests = chests[chests["BodyPartExamined"] == "CHEST"]
    table = attrition.to_pandas()
    assert list(table["series"])[:3] == [
        len(series), series["Modality"].isin(["CT", "DX"]).sum(), len(chests),
    ]  # fmt: skip
    last = table.iloc[-1]
    assert (
        last["patients"]
        == chests.dropna(subset=["patient_key", "StudyDate"])["patient_key"].nunique()
    )
    assert last["studies"] == last["patients"] == sum(attrition.parts.values())
    assert (table["excluded_series"].cumsum() == len(series) - table["series"]).all()
    assert table["criterion"].iloc[-1] == "First study of each patient"


def test_labels_are_counted_written_and_frozen() -> None:
    with opened(FIRST_ROWS) as lake:
        lake.attach("reads", {"patient_key": ["p", "q"], "label": ["a", "b"]})
        cohort = lake.cohort("a").where(Modality="CT", label="Computed tomography")
        cohort = cohort.exclude("age_at_study_years > 60", label="older than 60")
        cohort = cohort.first_study_per_patient(label="First of each").join("reads", label="Read")
        said = list(cohort.attrition().to_pandas()["criterion"])
        assert said == [
            "All series in the lake",
            "Computed tomography",
            "Excluded: older than 60",
            "Excluded: patient or study unknown, or a study of two patients",
            "First of each",
            "Read",
        ]
        frozen = cohort.freeze().read_criteria()
        assert frozen == cohort.criteria == Criteria.from_yaml(cohort.criteria.to_yaml())
        assert [step.label for step in frozen.steps] == [
            "Computed tomography", "older than 60", "First of each", "Read",
        ]  # fmt: skip
        with pytest.raises(BadCriteria, match=r"`label` is the text of the step.*a column of"):
            cohort.where(sex="F", label="a")
        assert len(cohort.where("label = 'a'").to_pandas()) == 1


def test_without_matplotlib_it_says_what_to_install(
    attrition: Attrition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"cohortlake\[report\]"):
        attrition.save(tmp_path / "a.svg")
    assert attrition._repr_html_().startswith("<table")
