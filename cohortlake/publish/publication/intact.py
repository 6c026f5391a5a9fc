"""Checks that the files of the lake are still as they were written.

The marker holds the size and the hash of each published file, a Delta log the size of each data
file, and the coverage the increments that were applied. One listing of a folder compares the sizes.
The content is read only on request. See `publisher` for how published files are written again, and
`admin.diagnosis` for what an operator is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from cohortlake.errors import DamagedFile
from cohortlake.increments import files, packed
from cohortlake.publish.publication.marker import Publication, PublishedFile
from cohortlake.storage import delta, delta_log
from cohortlake.storage.root import Root

_PIECE_BYTES = 8 << 20  # a request each on S3
IS_MISSING = "is not there"
_IS_UNREADABLE = "cannot be read"


def altered(
    root: Root, publication: Publication, sizes: Mapping[str, int], *, verify: bool = False
) -> dict[str, str]:
    """Return which published files are not as they were written, and what is wrong.

    Args:
        root: The lake.
        publication: What is published.
        sizes: Path -> the size of each file that is there. See `sizes`.
        verify: Whether to read the content of the files whose size is right.

    Returns:
        Path below the root -> what is wrong with the file, in words.
    """
    found = {}
    for path, written in publication.files.items():
        if path not in sizes:
            found[path] = IS_MISSING
        elif written.size_bytes not in (None, sizes[path]):
            found[path] = _other_size(sizes[path], written.size_bytes)
        elif verify and not holds_what_was_written(root, path, written):
            found[path] = "does not hold what was written"
    return found


def altered_in_table(root: Root, name: str, *, verify: bool = False) -> dict[str, str]:
    """Return which files of a Delta table are not as they were written, and what is wrong.

    Args:
        root: The lake.
        name: The table. A table that was never made has no files.
        verify: Whether to read the content of the files whose size is right.

    Returns:
        Path below the root -> what is wrong with the file, in words.
    """
    found = dict.fromkeys(delta_log.empty_in_log(root, name), "is empty")
    try:
        table = delta.open_table(root, name)
        written = delta_log.file_sizes(table, name) if table else {}
    except DamagedFile as error:
        return found or {error.path: _IS_UNREADABLE}
    except DeltaError:
        return found or {f"{name}/_delta_log": _IS_UNREADABLE}
    sizes = root.sizes(name, ".parquet")
    for path, size in written.items():
        if path not in sizes:
            found[path] = IS_MISSING
        elif sizes[path] != size:
            found[path] = _other_size(sizes[path], size)
        elif verify and _rows(root, path) is None:
            found[path] = _IS_UNREADABLE
    return found


def altered_increments(root: Root, coverage: pa.Table, *, verify: bool = False) -> dict[str, str]:
    """Return which increments are not as they were written, and what is wrong.

    Args:
        root: The lake.
        coverage: The coverage. See `coverage.read`.
        verify: Whether to read them. By default only missing and empty ones are found.

    Returns:
        Path below the root -> what is wrong with the file, in words.
    """
    sizes = root.sizes("increments", ".parquet")
    found = {path: "is empty" for path, size in sizes.items() if not size}
    applied = dict(zip(*(coverage[c].to_pylist() for c in ("increment", "kept_rows")), strict=True))
    single = {path for path in sizes if not packed.is_packed(path)}
    whole = sizes.keys() - single - found.keys()
    unseen = applied.keys() - single
    # Usually the names of the packed files show that all are there.
    if verify or len(unseen) != sum(map(packed.count_in, whole)):
        inside = {path: _increments_in(root, path, applied, verify=verify) for path in whole}
        found |= {path: _IS_UNREADABLE for path, increments in inside.items() if increments is None}
        # What a damaged packed file holds is unknown, and may not be lost.
        if not any(map(packed.is_packed, found)):
            unseen = unseen.difference(*filter(None, inside.values()))
            found |= dict.fromkeys(unseen, IS_MISSING)
    for path in single - found.keys() if verify else ():
        rows = _rows(root, path)
        if rows is None or rows != applied.get(path, rows) or not _has_record(root, path):
            found[path] = _IS_UNREADABLE
    return dict(sorted(found.items()))


def _increments_in(
    root: Root, path: str, applied: Mapping[str, int], *, verify: bool
) -> set[str] | None:
    """Return the increments of a packed file, or None if it is damaged."""
    try:
        members = {member.record.path: member.rows for member in files.read_members(root, path)}
    except (DamagedFile, TypeError):
        return None
    is_as_applied = all(applied.get(one, rows) == rows for one, rows in members.items())
    if verify and not (is_as_applied and _rows(root, path) is not None):
        return None
    return set(members)


def holds_what_was_written(
    root: Root, path: str, written: PublishedFile, reader: pafs.FileSystem | None = None
) -> bool:
    """Read a published file, and return whether it holds what was written.

    Args:
        root: The lake.
        path: The file, below the root.
        written: What was written.
        reader: What reads it, see `Files.reader`; by default it is read and not kept.
    """
    with checked(root, path, written, reader) as file:
        return file is not None


@contextmanager
def checked(
    root: Root, path: str, written: PublishedFile, reader: pafs.FileSystem | None = None
) -> Iterator[pa.NativeFile | None]:
    """Give a published file for random reading; None if it does not hold what was written.

    A small file is read once. The arguments are those of `holds_what_was_written`.
    """
    with root.open(path, reader) as file:
        if not written.sha256:
            yield file if _rows(root, path) == written.rows else None
        elif file.size() > _PIECE_BYTES:
            yield file if _sha256(file) == written.sha256 else None
        else:
            content = file.read_buffer()
            is_whole = hashlib.sha256(content).hexdigest() == written.sha256
            yield pa.BufferReader(content) if is_whole else None


def sizes(root: Root) -> dict[str, int]:
    """Return the size in bytes of each file below `published/`, by path."""
    return root.sizes("published", "")


def with_sizes(
    files: Mapping[str, PublishedFile], sizes: Mapping[str, int]
) -> dict[str, PublishedFile]:
    """Add the present sizes to files of a marker that has none."""
    return {
        path: replace(file, size_bytes=sizes.get(path)) if file.size_bytes is None else file
        for path, file in files.items()
    }


def _other_size(size: int, written: int | None) -> str:
    return f"has {size:,} bytes, and was written with {written:,}"


def _rows(root: Root, path: str) -> int | None:
    """Read a whole Parquet file and return the number of its rows, or None if it is damaged."""
    with root.open(path) as file:
        try:
            return sum(len(batch) for batch in pq.ParquetFile(file).iter_batches())
        except (pa.ArrowException, OSError):
            return None


def _has_record(root: Root, path: str) -> bool:
    try:
        return files.read_record(root, path).path == path
    except (DamagedFile, TypeError):
        return False


def _sha256(file: pa.NativeFile) -> str:
    found = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        found.update(piece)
    return found.hexdigest()
