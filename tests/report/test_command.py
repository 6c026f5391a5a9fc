"""`cohortlake report`, as a person and a script use it: its files, its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import command
from typer.testing import Result

YAML = """
cohort: ct
about: Every CT.
steps:
  - where: {Modality: CT}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder that holds a cohort."""
    (tmp_path / "cohorts").mkdir()
    (tmp_path / "cohorts/ct.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)


def run(root: str, *arguments: str) -> Result:
    return command("report", *arguments, COHORTLAKE_ROOT=root, COLUMNS="200")


def test_a_report_and_one_with_a_cohort(hospital_root: str, tmp_path: Path) -> None:
    done = run(hospital_root)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "written to report.html\n")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "fewer than 11 patients are hidden" in page
    assert 'id="cohort"' not in page

    options = ("--cohort", "ct", "--suppress-below", "0", "--output", "ct.html")
    assert run(hospital_root, *options).exit_code == 0
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
    done = run(hospital_root, *arguments)
    assert done.exit_code == code
    assert says in done.stderr.replace("\n", " ")
    assert not list(tmp_path.glob("**/*.html"))
