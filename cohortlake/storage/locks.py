"""Locks between the processes of one machine, which end with their holder, killed or not.

They tell what a killed run left behind from what another one is still writing, and keep two
runs from publishing over each other. A lake on S3 has no such locks. fcntl is imported where it
is used: it is not on Windows, where a lake can only be read.
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
    """Say that this process is there, beside others.

    Args:
        path: The lock file.
        clean: Called first if no other process is there. One that comes then waits for it.

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
    """Let no other process be there while the block lasts; those that come wait.

    Args:
        file: What `present` returned.

    Raises:
        BlockingIOError: Another one is there.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let nobody else into a block under the same lock file; wait for whoever is in it."""
    import fcntl

    file = _lock_file(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def is_held(path: Path) -> bool:
    """Return whether a process is in a block under a lock file; the file is not made."""
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
    """Let nobody else into a block under the same lock file, and one process wait for it.

    Args:
        path: The lock file. Who waits holds another one beside it.
        stop: Ends the waiting.
        tell: Called once if there is somebody to wait for.

    Raises:
        BlockingIOError: Another one waits already.
        Stopped: Somebody asked to end.
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
    """Give a temporary folder of mode 0700; delete those that killed processes left, too."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (claim := _claimed(folder, wait=False)) is not None:
            _delete_leftover(folder)
            os.close(claim)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    while (claim := _claimed(folder, wait=True)) is None:  # another took it for a leftover
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _MARKER).touch()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(claim)


def _delete_leftover(folder: Path) -> None:
    """Delete a folder that was made here, or is empty; a name like ours may be anybody's."""
    if (folder / _MARKER).exists():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _claimed(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return it, open; None where it is another's, or gone."""
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
