"""Sorts any number of rows in bounded memory.

DuckDB runs out of memory if it sorts many wide rows in little. Here as many rows are sorted at once
as fit into memory, and the sorted parts are written to files and merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from uuid import uuid4

import pyarrow as pa

from cohortlake.storage import sorted_file
from cohortlake.storage.files import Files
from cohortlake.storage.sorted_file import SortedFile

_PART_BYTES = 24 * 1024 * 1024
_SECTION = "rows"


def in_order(batches: Iterable[pa.RecordBatch], scratch: Files) -> Iterator[pa.RecordBatch]:
    """Yield rows in the order of their first column, an int64 that is never null.

    Args:
        batches: The rows.
        scratch: Where sorted parts are written, if there are several.
    """
    parts, files, before = _parts(batches), list[SortedFile](), None
    for part in parts:
        if before is not None:
            files.append(_written(before, scratch))
        before = part
    if before is None:
        return
    if files:
        files.append(_written(before, scratch))
        before = None
        yield from sorted_file.merged(files, _SECTION)
    else:
        yield from _sorted(before)


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


def _written(rows: pa.Table, scratch: Files) -> SortedFile:
    path = f"sorted/{uuid4().hex}"
    with scratch.writing(path) as stream:
        sorted_file.write(stream, {_SECTION: (rows.schema, _sorted(rows))})
    return SortedFile(path, partial(scratch.open, path))
