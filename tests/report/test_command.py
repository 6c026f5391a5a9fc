"""`cohortlake report`, as a person and a script use it: a process, its files, its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COHORTLAKE = Path(sys.executable).parent / "cohortlake"
YAML = """
cohort: ct
about: Every CT.
steps:
  - where: {Modality: CT}
"""


def run(folder: Path, root: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "cohorts").mkdir(exist_ok=True)
    (folder / "cohorts/ct.yaml").write_text(YAML)
    return subprocess.run(
        (COHORTLAKE, "report", *arguments),
        cwd=folder,
        env=os.environ | {"COHORTLAKE_ROOT": root, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_report_and_one_with_a_cohort(hospital_root: str, tmp_path: Path) -> None:
    done = run(tmp_path, hospital_root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "written to report.html\n")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "fewer than 11 patients are hidden" in page
    assert 'id="cohort"' not in page

    options = ("--cohort", "ct", "--suppress-below", "0", "--output", "ct.html")
    assert run(tmp_path, hospital_root, *options).returncode == 0
    page = (tmp_path / "ct.html").read_text("utf-8")
    assert "Small counts are not hidden" in page
    assert "Every CT." in page
    assert ">hidden<" not in page


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--cohort", "cts"), 2, "did you mean 'ct'"),
        (("--output", "none/report.html"), 2, "cannot write none/report.html"),
        (("--suppress-below", "-1"), 2, "Invalid value for '--suppress-below'"),
        (("--root", "nowhere"), 5, "run `cohortlake sync` first"),
    ],
)
def test_errors_say_the_fix(
    hospital_root: str, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(tmp_path, hospital_root, *arguments)
    assert done.returncode == code
    assert says in done.stderr.replace("\n", " ")
    assert not list(tmp_path.glob("**/*.html"))
