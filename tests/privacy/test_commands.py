"""What those who answer for a lake type: values looked through, some allowed, the key changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command import command
from privacy.people import copy_of, lake_of, summaries
from typer.testing import Result

import cohortlake
from cohortlake.privacy import policy_of
from cohortlake.settings import Settings
from cohortlake.storage.root import Root

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "privacy.md"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake that nothing is published of yet; each test works on a copy."""
    found = summaries(60, days=30)
    found[0]["DICOMTags"]["DICOMStudyDescription"] = "Seen with Ms Rare"
    return lake_of(str(tmp_path_factory.mktemp("commands") / "lake"), found)


@pytest.fixture
def root(pristine: Root, tmp_path: Path) -> Root:
    return copy_of(pristine, tmp_path)


def run(root: Root, *arguments: str, **settings: str) -> Result:
    return command(*arguments, COHORTLAKE_ROOT=root.uri, **settings)


def test_frequent_values_are_listed_for_a_person_and_rare_ones_are_not(
    root: Root, tmp_path: Path
) -> None:
    done = run(root, "privacy", "review", "--at-least", "5")
    assert done.exit_code == 0, done.stderr
    allow = yaml.safe_load(done.stdout)["allow"]
    assert set(allow["StudyDescription"]) == {"CT CHEST", "MR HEAD", "Knee of Mr Brown"}
    assert allow["Modality"] == ["JONES"]
    assert "Rare" not in done.stdout + done.stderr
    assert "StudyDescription: 3 values to look through; 1 that fewer than 5" in done.stderr
    assert not any(value in done.stderr for values in allow.values() for value in values)

    allow["StudyDescription"].remove("Knee of Mr Brown")
    allow.pop("Modality"), allow.pop("PatientSex"), allow.pop("BodyPartExamined")
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"policy": "ours", "extends": "safe", "allow": allow}))
    done = run(root, "publish", COHORTLAKE_PRIVACY_FILE=str(policy))
    assert done.exit_code == 0, done.stderr
    shown = cohortlake.read_table(root.uri, "image_sets")["StudyDescription"].dropna()
    assert set(shown) == {"CT CHEST", "MR HEAD"}
    done = run(root, "privacy", "review", "--at-least", "5", COHORTLAKE_PRIVACY_FILE=str(policy))
    assert yaml.safe_load(done.stdout)["allow"]["StudyDescription"] == ["Knee of Mr Brown"]


def test_a_policy_that_cannot_be_used_stops_a_run_before_it_begins(
    root: Root, tmp_path: Path
) -> None:
    for settings, says in (
        ({"COHORTLAKE_PRIVACY": "save"}, "did you mean 'safe'"),
        ({"COHORTLAKE_PRIVACY_FILE": f"{tmp_path}/none.yaml"}, "cannot be read"),
    ):
        done = run(root, "sync", COHORTLAKE_DATASTORES="d" * 32, **settings)
        assert done.exit_code == 2
        assert says in done.stderr


def test_the_key_is_changed_and_the_new_place_told(root: Root, tmp_path: Path) -> None:
    assert run(root, "publish").exit_code == 0
    before = set(cohortlake.read_table(root.uri, "patients")["patient_key"])
    key = tmp_path / "key"
    key.write_text("cd" * 32)
    done = run(root, "key", "rotate", "--to", f"file:{key}")
    assert done.exit_code == 0, done.stderr
    assert f"set COHORTLAKE_PATIENT_KEY=file:{key} from now on" in done.stderr
    assert not root.exists("keys/patient-key")
    assert before.isdisjoint(cohortlake.read_table(root.uri, "patients")["patient_key"])
    done = run(root, "publish", COHORTLAKE_PRIVACY="limited")
    assert done.exit_code == 5
    assert "set COHORTLAKE_PATIENT_KEY to where `cohortlake key rotate` put it" in done.stderr
    note, error = done.stderr.splitlines()
    assert note.startswith("note: the lake is published under the policy 'safe'")
    assert error.startswith("error: "), "a line, however long"
    settings = {"COHORTLAKE_PRIVACY": "limited", "COHORTLAKE_PATIENT_KEY": f"file:{key}"}
    assert run(root, "publish", **settings).exit_code == 0
    done = run(root, "key", "rotate", **settings)
    assert done.exit_code == 0, done.stderr
    assert "set COHORTLAKE_PATIENT_KEY=lake from now on" in done.stderr


def test_the_guides_policy_file_can_be_used(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    policy = policy_of(Settings(privacy_file=str(path)))
    assert policy.name == "our_hospital"
    assert "BodyPartExamined" not in policy.tables["series"]
