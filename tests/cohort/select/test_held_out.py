"""Parts of a split that are held out by a condition: whole patients, and none in two parts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from cohort.tiny import image_set, opened

from cohortlake import Lake
from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.errors import BadCondition, BadCriteria, UnknownColumn, UnknownValue

DAY = date(2020, 1, 1)
PATIENTS = 60
ROWS = [
    image_set(2 * n + k, f"p{n}", f"1.{n}", Modality="MR" if n % 4 == 0 else "CT",
              PatientSex="F" if n % 3 else "M", StudyDate=DAY)
    for n in range(PATIENTS) for k in range(2)
]  # fmt: skip
"""Two series of each patient, of one modality."""
MIXED = [
    image_set(900, "p0", "1.0", Modality="CT", StudyDate=DAY),
    image_set(901, "p1", "1.1", Modality=None, StudyDate=DAY),
]


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with opened(ROWS) as filled:
        yield filled


def parts(cohort: Cohort) -> dict[str, str]:
    """Return the part of each patient, which is one."""
    pairs = {*cohort.to_pandas()[["patient_key", "split"]].itertuples(index=False, name=None)}
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("level", ["patient", "study", "series"])
@pytest.mark.parametrize("condition", [{"Modality": "MR"}, "Modality = 'MR'", {"modalities": "MR"}])
def test_whole_patients_are_held_out(lake: Lake, level: str, condition: object) -> None:
    plain = parts(lake.cohort("a", level=level).split(train=0.5, val=0.5))
    found = parts(lake.cohort("a", level=level).split(train=0.5, val=0.5, test=condition))
    held = {f"p{n}" for n in range(0, PATIENTS, 4)}
    assert {patient for patient, part in found.items() if part == "test"} == held
    # Nobody else moves.
    assert all(plain[patient] == part for patient, part in found.items() if patient not in held)
    assert {*found.values()} == {"train", "val", "test"}


def test_a_part_can_be_held_out_by_a_joined_column(lake: Lake) -> None:
    keys = [f"p{n}" for n in range(PATIENTS)]
    lake.attach("registry", {"patient_key": keys, "site": ["x", "y", "z"] * 20})
    cohort = lake.cohort("sites").join("registry")
    found = parts(cohort.split(train=1, test={"site": ["y", "z"]}))
    assert {p: part == "test" for p, part in found.items()} == {
        f"p{n}": n % 3 > 0 for n in range(PATIENTS)
    }
    two = parts(cohort.split(train=1, test={"site": "y"}, other="site = 'z'"))
    assert sorted({*two.values()}) == ["other", "test", "train"]
    with pytest.raises(BadCriteria, match="20 patients meet the conditions of two parts"):
        cohort.split(train=1, test={"site": "y"}, other={"site": ["x", "y"]})


def test_a_patient_whose_series_differ_is_refused_until_it_is_left_out() -> None:
    with opened([*ROWS, *MIXED]) as lake:
        everybody = lake.cohort("a", level="series")
        with pytest.raises(BadCriteria, match="1 patients have series of which it is not known"):
            everybody.split(train=1, test={"Modality": "MR"})
        known = everybody.where(Modality=["CT", "MR"])
        with pytest.raises(BadCriteria, match=r"1 patients have series that meet .* that do not"):
            known.split(train=1, test={"Modality": "MR"})
        found = parts(known.exclude(patient_key="p0").split(train=1, test={"Modality": "MR"}))
        assert "p0" not in found
        assert found["p4"] == "test"


def test_a_file_holds_the_parts_that_are_held_out(lake: Lake, tmp_path: Path) -> None:
    cohort = lake.cohort("kept").split(train=0.5, val=0.5, test={"Modality": "MR"}, seed=3)
    text = cohort.criteria.to_yaml()
    assert Criteria.from_yaml(text) == cohort.criteria
    (tmp_path / "kept.yaml").write_text(text)
    assert parts(lake.load_cohort(tmp_path / "kept.yaml")) == parts(cohort)
    by_hand = "cohort: kept\nsplit: {train: 1, test: \"Modality = 'MR'\"}\n"
    assert (
        Criteria.from_yaml(by_hand).split
        == cohort.split(train=1, test="Modality = 'MR'").criteria.split
    )
    with opened([*ROWS, *MIXED]) as other, pytest.raises(BadCriteria, match="not known"):
        other.load_cohort(tmp_path / "kept.yaml")


def test_the_attrition_counts_each_part(lake: Lake) -> None:
    cohort = lake.cohort("a").split(train=0.5, val=0.5, test={"Modality": "MR"})
    counted = cohort.attrition().parts
    assert counted["test"] == 15
    assert sum(counted.values()) == PATIENTS


def test_what_is_no_part_is_refused(lake: Lake) -> None:
    cohort = lake.cohort("a")
    with pytest.raises(BadCriteria, match="add up to 1; parts that are held out are not"):
        cohort.split(train=0.7, test={"Modality": "MR"})
    with pytest.raises(BadCriteria, match="add up to 1"):
        cohort.split(test={"Modality": "MR"})
    with pytest.raises((BadCondition, UnknownColumn), match="Manufakturer"):
        cohort.split(train=1, test={"Manufakturer": "x"})
    with pytest.raises(UnknownValue):
        cohort.split(train=1, test={"Modality": "XY"})
    with pytest.raises(BadCriteria, match="empty"):
        cohort.split(train=1, test={})
    with pytest.raises(BadCriteria, match="no series meets the condition of the part 'test'"):
        cohort.split(train=1, test="Modality = 'Mr'")
    nobody = cohort.where("age_at_study_years > 500").split(train=1, test={"Modality": "MR"})
    assert len(nobody) == 0
