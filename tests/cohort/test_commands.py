"""`cohortlake cohort`, as a person and as a script use it: its output and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from cohort.freeze.test_freeze import ROWS, a_day_later
from cohort.tiny import publish
from command import command
from typer.testing import Result

YAML = """
cohort: ct
about: The first CT of each woman.
steps:
  - join: {table: registry, file: registry.csv}
  - where: {Modality: CT, PatientSex: F}
  - one_study_per_patient: first
"""

Run = Callable[..., Result]


@pytest.fixture
def run(root: str, tmp_path: Path) -> Run:
    publish(root, ROWS)
    folder = tmp_path / "cohorts"
    folder.mkdir()
    (folder / "ct.yaml").write_text(YAML)
    keys = ["p0", "p1", "p2", "p3", "new"]
    pd.DataFrame({"patient_key": keys, "grade": 1}).to_csv(folder / "registry.csv", index=False)

    def call(*arguments: str) -> Result:
        variables = {"COHORTLAKE_ROOT": root, "COHORTLAKE_COHORTS": str(folder), "COLUMNS": "200"}
        return command("cohort", *arguments, **variables)

    return call


def test_a_cohort_from_its_file_to_its_proof(run: Run, root: str) -> None:
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["cohort"], listed["frozen"]) == ("ct", None)

    first = run("run", "ct")
    assert first.exit_code == 0, first.stderr
    assert "First study of each patient" in first.stdout
    assert "4 members written to" in first.stdout
    assert "4 members as they were in" in run("run", "ct").stdout
    (current,) = (Path(root) / "cohorts/ct/current").glob("*.parquet")
    assert len(pd.read_parquet(current)) == 4

    assert "ct@1: 4 members, not signed" in run("freeze", "ct").stdout
    assert json.loads(run("freeze", "ct", "--json").stdout)["number"] == 1
    same = run("verify", "ct")
    assert (same.exit_code, same.stderr) == (0, "")
    assert "identical" in same.stdout

    publish(root, a_day_later(), 1)
    other = run("verify", "ct@1")
    assert other.exit_code == 1
    assert "3 joined, 2 left, 1 changed" in other.stdout
    assert "1 left: changed PatientSex (2026-01-02)" in other.stdout
    told = json.loads(run("verify", "ct", "--json").stdout)
    assert told["counts"] == {"joined": 3, "left": 2, "changed": 1}
    assert "1.50" not in other.stdout + json.dumps(told)  # no member is named

    assert "ct@2" in run("freeze", "ct").stdout
    compared = run("diff", "ct@1", "ct@2")
    assert "the same criteria" in compared.stdout
    assert "3 joined" in compared.stdout
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["frozen"], listed["members"]) == ("ct@2", 5)
    assert "ct@2" in run("list").stdout


def test_a_run_goes_on_where_what_was_frozen_cannot_be_drawn(run: Run, tmp_path: Path) -> None:
    assert run("freeze", "ct").exit_code == 0
    (tmp_path / "cohorts/ct.yaml").write_text("cohort: ct\nsteps: [where: {Modality: CT}]\n")
    assert "cannot be verified" not in run("run", "ct").stdout
    (tmp_path / "cohorts/registry.csv").unlink()
    done = run("run", "ct")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "8 members as they were in" in done.stdout
    assert "its last freezing cannot be verified: " in done.stdout
    assert "registry.csv is not there" in done.stdout


def test_members_for_a_spreadsheet(run: Run, tmp_path: Path) -> None:
    for name in ("members.csv", "members.xlsx"):
        done = run("export", "ct", "--output", str(tmp_path / name))
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == f"4 members written to {tmp_path / name}\n"
    members = pd.read_csv(tmp_path / "members.csv")
    assert sorted(members) == sorted(pd.read_excel(tmp_path / "members.xlsx", "members"))
    assert len(members) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "cts"), "did you mean 'ct'"),
        (("freeze", "other"), "holds the cohort 'ct': rename one"),
        (("verify", "ct"), "was frozen below"),
        (("diff", "ct", "ct"), "was frozen below"),
        (("export", "ct", "--output", "ct.doc"), "'ct.doc' must end in .csv, .xlsx, .parquet"),
        (("export", "ct", "--output", "/nowhere/ct.csv"), "name a folder that is there"),
    ],
)
def test_errors_are_one_line_and_a_code(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "cohorts/other.yaml").write_text(YAML)
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr.replace("\n", " ")
