"""Packing: the increments that are applied, in few files instead of one each.

Each search with news writes a file. Over years these are hundreds of thousands, and each tick
would list them all. So maintenance copies small files into packed ones, see `increments.packed`.
From then on readers take the packed file, see `increments.files.paths`. A reader that began before
may still take the files that were copied, so these stay until the packed file is older than the
retention.

A kill leaves a hidden file, or files that nobody takes any more. Two runs that pack at once write
the same file, or files that share increments, which changes nothing: the version history is a
function of the set of increments, and the coverage has each increment once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.history import coverage
from cohortlake.increments import files, kinds, packed
from cohortlake.increments.files import axis_of
from cohortlake.increments.kinds import STATELESS_AXES
from cohortlake.increments.pack_writer import PackWriter
from cohortlake.increments.record import format_of
from cohortlake.privacy.guarded_rewrite import copying
from cohortlake.storage.files import Overtaken
from cohortlake.storage.root import Root

T = TypeVar("T")

# Fewer small files of an axis do not slow a tick down.
_FEWEST_SMALL_FILES = 64
# A packed file is read into memory one increment at a time.
_SMALL_BYTES = 4 * 1024 * 1024
_PACK_BYTES = 128 * 1024 * 1024
_PACK_INCREMENTS = 2000


@dataclass(frozen=True)
class Packed:
    """What packing did.

    Attributes:
        increments: Increments that were copied into packed files.
        files: Files that hold all increments now.
        deleted: Files that were deleted, because packed files hold all that they held.
    """

    increments: int
    files: int
    deleted: int


def pack(root: Root, retention: timedelta) -> Packed:
    """Pack small files of increments that are applied, and delete those packed long ago.

    Args:
        root: The lake.
        retention: How long a file is kept after it was packed. It must be longer than any run
            takes.

    Raises:
        RootNotUsable: The root cannot be read or written.
    """
    deleted = delete_copied(root, datetime.now(UTC) - retention)
    applied = set(coverage.read(root, ["increment"])["increment"].to_pylist())
    copied = 0
    for sizes in _by_axis(root.sizes("increments", ".parquet")):
        for sources in _chosen(root, sizes, applied):
            copied += _copy(root, sources)
    return Packed(copied, len(files.listed(root)), deleted)


def delete_copied(root: Root, packed_before: datetime | None = None) -> int:
    """Delete the files whose increments are all in a packed file.

    Args:
        root: The lake.
        packed_before: Only if the packed file was written before this instant. By default all:
            then no other run may be at work.

    Returns:
        How many files were deleted.
    """
    deleted = 0
    for written in _by_axis(root.modified("increments", ".parquet")):
        for path, holders in files.copies(root, written).items():
            if packed_before is None or any(written[p] < packed_before for p in holders):
                root.delete(path)
                deleted += 1
    return deleted


def _by_axis(files_with: Mapping[str, T]) -> list[dict[str, T]]:
    """Group files by data store and axis."""
    groups: dict[str, dict[str, T]] = {}
    for path, value in files_with.items():
        groups.setdefault("/".join(path.split("/")[:3]), {})[path] = value
    return list(groups.values())


def _chosen(root: Root, sizes: Mapping[str, int], applied: Collection[str]) -> list[list[str]]:
    """Choose which files of one axis are copied together, each list into one packed file."""
    small = [
        path
        for path, size in sizes.items()
        if not packed.is_packed(path) and size < _SMALL_BYTES and path in applied
    ]
    if len(small) < _FEWEST_SMALL_FILES:
        return []
    counted = set(files.without_copied(root, sizes))
    small = sorted(counted.intersection(small), key=lambda path: (path.rsplit("/")[-1], path))
    if len(small) < _FEWEST_SMALL_FILES:
        return []
    growing = [
        path
        for path in sorted(counted)
        if packed.is_packed(path)
        and packed.count_in(path) < _PACK_INCREMENTS // 2
        and sizes[path] < _PACK_BYTES // 2
    ]
    chosen: list[list[str]] = []
    count = size = 0
    for path in [*growing, *small]:
        more = packed.count_in(path) if packed.is_packed(path) else 1
        count, size = count + more, size + sizes[path]
        if not chosen or count > _PACK_INCREMENTS or size > _PACK_BYTES:
            chosen.append([])
            count, size = more, sizes[path]
        chosen[-1].append(path)
    return [sources for sources in chosen if len(sources) > 1]


def _copy(root: Root, sources: Sequence[str]) -> int:
    """Copy files into a packed one; return how many increments had a file of their own.

    A file that is damaged or that an older release wrote is left as it is.
    """
    usable = [path for path in sources if _is_usable(root, path)]
    while len(usable) > 1:
        try:
            _write(root, usable, copying(root))
        except Overtaken:
            return 0  # the erasure may have deleted some of the files
        except DamagedFile as error:
            if error.path not in usable:
                raise
            usable.remove(error.path)
            continue
        return sum(not packed.is_packed(source) for source in usable)
    return 0


def _is_usable(root: Root, path: str) -> bool:
    try:
        footer = files.read_footer(root, path)
        columns = next(files.read_batches(root, path)).schema
    except DamagedFile:
        return False
    axis = axis_of(path)
    is_own_format = axis in STATELESS_AXES or format_of(footer) == schema.FORMAT_VERSION
    return is_own_format and columns.names == kinds.schema_of(axis).names


def _write(root: Root, sources: Sequence[str], unless: Callable[[], bool]) -> None:
    records = {r.path: r for source in sources for r in files.read_records(root, source)}
    path = packed.path_of(list(records))
    writer = PackWriter(root, path, kinds.schema_of(axis_of(path)), unless)
    with contextlib.closing(writer):
        for source in sources:
            for record, batches in files.read_increments(root, source):
                if records.pop(record.path, None):  # else it was in an earlier file too
                    for rows in batches:
                        writer.add(rows)
                    writer.finish_increment(record)
        writer.commit()
