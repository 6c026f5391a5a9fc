"""Temporary folders: those of killed processes go, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cohortlake.errors import Stopped
from cohortlake.stop import Stop
from cohortlake.storage import locks

DIES = """
import os, signal
from cohortlake.storage import locks
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


HOLDS_A_TURN = """
import sys, time
from pathlib import Path
from cohortlake.storage import locks
from cohortlake.stop import Stop
with locks.in_turn(Path(sys.argv[1]), Stop(), print):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_turn_ends_with_its_process(tmp_path: Path) -> None:
    lock, told = tmp_path / "lock", list[bool]()
    command = (sys.executable, "-c", HOLDS_A_TURN, lock)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "mine\n"
        with locks.in_turn(lock, Stop(), lambda: (told.append(True), process.kill())):
            assert process.wait() == -signal.SIGKILL
    assert told == [True]


def test_one_may_wait_for_its_turn_and_no_other(tmp_path: Path) -> None:
    lock, stop = tmp_path / "lock", Stop()

    def come_third() -> None:
        with pytest.raises(BlockingIOError), locks.in_turn(lock, Stop(), stop.ask):
            pass
        stop.ask()

    first = locks.in_turn(lock, Stop(), stop.ask)
    second = locks.in_turn(lock, stop, come_third)
    with first, pytest.raises(Stopped), second:
        pass
    with locks.in_turn(lock, Stop(), come_third):
        pass
