"""Sorts any number of rows in bounded memory.

DuckDB runs out of memory if it sorts many wide rows in little. Here as many rows are sorted at once
as fit into memory, and the sorted parts are written to files and merged, not many at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from uuid import uuid4

import pyarrow as pa

from cohortlake.storage import sorted_file
from cohortlake.storage.files import Files
from cohortlake.storage.sorted_file import SortedFile

_PART_BYTES = 24 * 1024 * 1024
_MOST_MERGED = 150  # a merge has some blocks of each file in memory
_SECTION = "rows"


def in_order(batches: Iterable[pa.RecordBatch], scratch: Files) -> Iterator[pa.RecordBatch]:
    """Yield rows in the order of their first column, an int64 that is never null.

    Args:
        batches: The rows.
        scratch: Where sorted parts are written, if there are several.
    """
    paths, before = list[str](), None
    for part in _parts(batches):
        if before is not None:
            paths.append(_written(before.schema, _sorted(before), scratch))
        before = part
    if before is None:
        return
    if not paths:
        yield from _sorted(before)
        return
    columns = before.schema
    paths.append(_written(columns, _sorted(before), scratch))
    before = None
    while len(paths) > _MOST_MERGED:
        some, paths = paths[:_MOST_MERGED], paths[_MOST_MERGED:]
        paths.append(_written(columns, _merged(some, scratch), scratch))
        for path in some:
            scratch.delete(path)
    yield from _merged(paths, scratch)


def _parts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows, as many at once as fit into memory."""
    held, size_bytes = list[pa.RecordBatch](), 0
    for batch in batches:
        held.append(batch)
        size_bytes += batch.nbytes
        if size_bytes > _PART_BYTES:
            yield pa.Table.from_batches(held)
            held, size_bytes = [], 0
    if held:
        yield pa.Table.from_batches(held)


def _sorted(rows: pa.Table) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.sort_by(rows.column_names[0]).combine_chunks().to_batches()
    return batches


def _written(columns: pa.Schema, rows: Iterable[pa.RecordBatch], scratch: Files) -> str:
    path = f"sorted/{uuid4().hex}"
    with scratch.writing(path) as stream:
        sorted_file.write(stream, {_SECTION: (columns, rows)})
    return path


def _merged(paths: Sequence[str], scratch: Files) -> Iterator[pa.RecordBatch]:
    files = [SortedFile(path, partial(scratch.open, path)) for path in paths]
    return sorted_file.merged(files, _SECTION)
