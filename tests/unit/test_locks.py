"""Temporary folders: those of killed processes go, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cohortlake.lake import locks

DIES = """
import os, signal
from cohortlake.lake import locks
with locks.temporary_folder() as folder:
    (folder / "spilled").write_text("rows")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_deleted(temporary: Path) -> None:
    environment = os.environ | {"TMPDIR": str(temporary)}
    killed = subprocess.run((sys.executable, "-c", DIES), env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    with locks.temporary_folder() as folder:
        assert [*temporary.iterdir()] == [folder]
        assert folder != left
    assert [*temporary.iterdir()] == []


def test_a_folder_that_another_process_works_in_stays(temporary: Path) -> None:
    with locks.temporary_folder() as one:
        (one / "spilled").touch()
        with locks.temporary_folder():
            assert (one / "spilled").exists()


@pytest.mark.parametrize("name", ["cohortlake-data", "cohortlake-spill-mine", "cohortlake-main"])
def test_a_folder_of_somebody_else_s_stays_whatever_it_is_called(
    temporary: Path, name: str
) -> None:
    increment = temporary / name / "increments/found.parquet"
    increment.parent.mkdir(parents=True)
    increment.touch()
    with locks.temporary_folder():
        pass
    assert increment.exists()
