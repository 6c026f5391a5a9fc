"""Locks between the processes of one machine. A lock ends with its process, killed or not.

They tell files of a killed run from files that another run is writing, and keep two runs from
publishing at once. A lake on S3 has no such locks. fcntl is imported where it is used, because
Windows does not have it; there a lake can only be read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cohortlake.stop import Stop

_SECONDS_BETWEEN_LOOKS = 0.5
_PREFIX, _MARKER = "cohortlake-spill-", ".made-by-cohortlake"


def present(path: Path, clean: Callable[[], None]) -> int:
    """Hold a lock that several processes can hold together.

    Args:
        path: The lock file.
        clean: Called first if no other process holds it. A process that comes meanwhile waits.

    Returns:
        The open file; the lock ends when it is closed.
    """
    import fcntl

    file = _lock_file(path)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        clean()
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextmanager
def only_one_present(file: int) -> Iterator[None]:
    """Let no other process hold the lock of `present` while the block lasts; others wait.

    Args:
        file: What `present` returned.

    Raises:
        BlockingIOError: Another process holds it.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let only one process at a time run a block under a lock file; wait for the others."""
    import fcntl

    file = _lock_file(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Return whether a process runs a block under a lock file; do not make the file."""
    import fcntl

    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


@contextmanager
def in_turn(path: Path, stop: Stop, tell: Callable[[], None]) -> Iterator[None]:
    """Let only one process at a time run a block under a lock file, and one other wait for it.

    Args:
        path: The lock file. A process that waits holds a second file beside it.
        stop: Ends the waiting.
        tell: Called once if the process has to wait.

    Raises:
        BlockingIOError: Another process waits already.
        Stopped: A stop was asked for.
    """
    import fcntl

    with contextlib.ExitStack() as stack:
        turn = _lock_file(path)
        stack.callback(os.close, turn)
        if not _is_locked(turn):
            with contextlib.ExitStack() as while_waiting:
                next_one = _lock_file(path.with_name(f"{path.name}.next"))
                while_waiting.callback(os.close, next_one)
                fcntl.flock(next_one, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tell()
                while not _is_locked(turn):
                    stop.wait(_SECONDS_BETWEEN_LOOKS)
        yield


def _is_locked(file: int) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a temporary folder of mode 0700; first delete those that killed processes left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (claim := _claimed(folder, wait=False)) is not None:
            _delete_leftover(folder)
            os.close(claim)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    while (claim := _claimed(folder, wait=True)) is None:  # another process deleted it
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _MARKER).touch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(claim)


def _delete_leftover(folder: Path) -> None:
    """Delete a folder that has our marker or is empty; others may use the same name."""
    if (folder / _MARKER).exists():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _claimed(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return it open; None if another process holds it, or it is gone."""
    import fcntl

    try:
        claim = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(claim, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(claim).st_nlink:
            return claim
    os.close(claim)
    return None


def _lock_file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
