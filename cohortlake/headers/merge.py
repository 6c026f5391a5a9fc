"""Merging: the many files of a study month of `headers/` become few.

Each run writes a file for each study month. After months of ticks these are thousands, and a
publication lists them all. So maintenance copies small files into merged ones. Each version is in a
merged file once: a header is kept rather than a failure, and of two failures the last one.

A file that was copied stays until the merged file is older than the retention, because a reader
that began before may still open it. Until then both hold the same versions, and readers take each
version once. See `privacy.guarded_rewrite` for what happens if a patient is erased meanwhile. A
kill leaves a hidden file, or files that are copied and stay. Two runs that merge at once write the
same file, or files that share versions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from cohortlake.errors import DamagedFile
from cohortlake.headers import files
from cohortlake.privacy.guarded_rewrite import copying
from cohortlake.storage.files import Overtaken
from cohortlake.storage.root import Root

# Fewer small files of a study month do not slow a publication down.
_FEWEST_SMALL_FILES = 16
_SMALL_BYTES = 32 * 1024 * 1024
_FILE_BYTES = 128 * 1024 * 1024
_PREFIX = "merged-"


@dataclass(frozen=True)
class Merged:
    """What merging did.

    Attributes:
        copied: Files that were copied into merged ones.
        files: Files that hold all headers now, those that were copied included.
        deleted: Files that were deleted, because merged files hold all that they held.
    """

    copied: int
    files: int
    deleted: int


def merge(root: Root, retention: timedelta) -> Merged:
    """Merge small files, and delete those merged long ago.

    Args:
        root: The lake.
        retention: How long a file is kept after it was merged. It must be longer than any run
            takes.

    Raises:
        DamagedFile: A merged file cannot be read.
        RootNotUsable: The root cannot be read or written.
    """
    deleted = _delete_copied(root, datetime.now(UTC) - retention)
    sizes = root.sizes(files.FOLDER, ".parquet")
    copied = 0
    for folder in _by_folder(sizes).values():
        for sources in _chosen(root, {path: sizes[path] for path in folder}):
            copied += _copy(root, sources)
    return Merged(copied, len(files.paths(root)), deleted)


def _delete_copied(root: Root, merged_before: datetime) -> int:
    written, deleted = root.modified(files.FOLDER, ".parquet"), 0
    for folder in _by_folder(written).values():
        for path, holders in _copies(root, folder).items():
            if any(written[holder] < merged_before for holder in holders):
                root.delete(path)
                deleted += 1
    return deleted


def _by_folder(paths: Sequence[str] | dict[str, int] | dict[str, datetime]) -> dict[str, list[str]]:
    """Group files by data store and study month."""
    groups = defaultdict[str, list[str]](list)
    for path in paths:
        groups[path.rpartition("/")[0]].append(path)
    return groups


def _copies(root: Root, folder: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of a folder whose versions are in merged files -> these files."""
    inside = {path: _names_in(root, path) for path in folder if _is_merged(path)}
    copies = defaultdict[str, list[str]](list)
    for path in folder if inside else ():
        own = inside.get(path, {_name(path)})
        for merged, names in inside.items():
            if own < names or (path not in inside and own <= names):
                copies[path].append(merged)
    return copies


def _is_merged(path: str) -> bool:
    return _name(path).startswith(_PREFIX)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _names_in(root: Root, path: str) -> set[str]:
    """Return the names of the files whose versions a file holds, those of merged ones resolved."""
    return set(files.merged_from(root, path)) if _is_merged(path) else {_name(path)}


def _chosen(root: Root, sizes: dict[str, int]) -> list[list[str]]:
    """Choose which files of one folder are copied together, each list into one merged file."""
    small = [path for path, size in sizes.items() if size < _SMALL_BYTES and not _is_merged(path)]
    if len(small) < _FEWEST_SMALL_FILES:
        return []
    copied = _copies(root, list(sizes))
    small = [path for path in small if path not in copied]
    if len(small) < _FEWEST_SMALL_FILES:
        return []
    growing = [
        path
        for path, size in sizes.items()
        if _is_merged(path) and path not in copied and size < _FILE_BYTES // 2
    ]
    chosen, total = [list[str]()], 0
    for path in [*growing, *small]:
        total += sizes[path]
        if chosen[-1] and total > _FILE_BYTES:
            chosen.append([])
            total = sizes[path]
        chosen[-1].append(path)
    return [sources for sources in chosen if len(sources) > 1]


def _copy(root: Root, sources: Sequence[str]) -> int:
    """Copy files into a merged one; return how many. A damaged file is left as it is."""
    usable = list(sources)
    while len(usable) > 1:
        try:
            _write(root, usable, copying(root))
        except Overtaken:
            return 0  # an erasure removes rows of them
        except DamagedFile as error:
            if error.path not in usable:
                raise
            usable.remove(error.path)
            continue
        return len(usable)
    return 0


def _write(root: Root, sources: Sequence[str], unless: Callable[[], bool]) -> None:
    names = sorted(set().union(*(_names_in(root, path) for path in sources)))
    _, datastore_id, month, _ = sources[0].split("/")
    name = f"{_PREFIX}{hashlib.sha256(''.join(names).encode()).hexdigest()[:32]}"
    rows = _each_once(root, sources)
    files.write(root, datastore_id, month, name, rows, unless, merged_from=names)


def _each_once(root: Root, sources: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of some files, each version once."""
    kept: dict[tuple[str, int], tuple[bool, int, int]] = {}
    for number, path in enumerate(sources):
        place = 0
        for rows in files.read(root, path, ("image_set_id", "version", "failure")):
            for image_set_id, version, failure in zip(*rows.to_pydict().values(), strict=True):
                before = kept.get((image_set_id, version))
                if before is None or not before[0]:
                    kept[image_set_id, version] = (failure is None, number, place)
                place += 1
    of_file = defaultdict[int, list[int]](list)
    for _, number, place in kept.values():
        of_file[number].append(place)
    for number, path in enumerate(sources):
        yield from _taken(files.read(root, path), sorted(of_file[number]))


def _taken(tables: Iterator[pa.Table], places: Sequence[int]) -> Iterator[pa.Table]:
    """Yield the rows at some places, in the order of the places."""
    begin, at = 0, 0
    for table in tables:
        first = at
        while at < len(places) and places[at] < begin + len(table):
            at += 1
        if at > first:
            yield table.take([place - begin for place in places[first:at]])
        begin += len(table)
