"""What only a local disk has: rights of users, and writes that outlive a loss of power."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path


def make_folders(base: Path, folder: str, *, is_private: bool) -> None:
    """Make a folder and the folders above it.

    Args:
        base: The root of the lake; it is made as the umask says.
        folder: The folder below it.
        is_private: Whether the folders below the root are for their owner only.
    """
    if os.path.isdir(f"{base}/{folder}"):  # noqa: PTH112  # thrice as fast as pathlib, and asked for each file
        return
    parts = folder.split("/")
    base.mkdir(parents=True, exist_ok=True)
    for depth in range(1, len(parts) + 1):
        # Each folder gets its mode when it is made: a default access list could widen it later.
        path = base.joinpath(*parts[:depth])
        if not path.is_dir():
            path.mkdir(mode=0o700 if is_private else 0o777, exist_ok=True)
            sync(path.parent)


def sync(path: str | Path) -> None:
    """Wait until the disk has written a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; after the block, the file there is renamed to the path wanted.

    If the block fails, nothing is left of the file.

    Args:
        path: The file, which a person asked for. Files of the lake go through `root`.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to; after the block, it is renamed to the path wanted.

    If the block fails, nothing is left of the folder.

    Args:
        path: The folder, which a person asked for. It must not be there, or it must be empty.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    draft.mkdir()
    try:
        yield draft
        draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def make_private(paths: Iterable[Path]) -> None:
    """Take all rights on some files and folders from everybody but their owner."""
    for path in paths:
        # Another run may delete a file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if mode & 0o077:
                path.chmod(mode & 0o700)
