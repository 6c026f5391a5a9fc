"""Rewriting increments: an erasure removes rows, or counts that included them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.increments import packed
from cohortlake.increments.files import (
    RowFilter,
    axis_of,
    read_batches,
    read_increments,
    read_record,
)
from cohortlake.increments.kinds import FOUND_SCHEMA, STATELESS_AXES
from cohortlake.increments.pack_writer import PackWriter
from cohortlake.increments.record import Record
from cohortlake.increments.writer import Counts, IncrementWriter, write_empty, write_table
from cohortlake.privacy.guarded_rewrite import Unless, beside_erasures
from cohortlake.storage.root import Root

Change = Callable[[Record, pa.Table], tuple[Record, pa.Table]]
"""Takes an increment of a packed file, and returns it as it shall be."""


def remove_rows(root: Root, path: str, is_removed: RowFilter) -> None:
    """Rewrite a file without the rows that a filter selects, and update the records."""
    if packed.is_packed(path):
        change_packed(root, path, lambda record, rows: _without(record, rows, is_removed))
    else:
        beside_erasures(root, lambda unless: _remove_rows(root, path, is_removed, unless))


def _remove_rows(root: Root, path: str, is_removed: RowFilter, unless: Unless) -> None:
    record = read_record(root, path)
    others = (rows.filter(pc.invert(is_removed(rows))) for rows in read_batches(root, path))
    if record.axis in STATELESS_AXES:
        left = pa.concat_tables(list(others))
        record = replace(record, rows=len(left), kept_rows=len(left))
        write_table(root, record, left, unless)
    else:
        replace_rows(root, record, others, unless)


def clear_counts(root: Root, path: str, increments: Collection[str]) -> None:
    """Rewrite a file in which some increments hold no rows, without the counts of what they found.

    Args:
        root: The lake.
        path: The file.
        increments: The paths of these increments. See `files.locate`.
    """
    if packed.is_packed(path):
        change_packed(
            root,
            path,
            lambda record, rows: (_cleared(record) if record.path in increments else record, rows),
        )
    else:
        write_empty(root, _cleared(read_record(root, path)))


def replace_rows(root: Root, record: Record, batches: Iterable[pa.Table], unless: Unless) -> None:
    """Rewrite the file of one increment with other rows. Rows that are gone count as erased.

    Args:
        root: The lake.
        record: The record of the file.
        batches: The rows.
        unless: See `guarded_rewrite.erasure_began`.
    """
    writer = IncrementWriter(root, record, unless)
    with contextlib.closing(writer):
        for rows in batches:
            writer.add(rows.drop_columns(["observed_at", "run_id"]))
        summary = writer.summary(
            end=record.end,
            pages=record.pages,
            requests=record.requests,
            throttles=record.throttles,
            seconds=record.duration_seconds,
        )
        erased = record.erased_rows + record.rows - summary.rows
        writer.commit(replace(summary, erased_rows=erased))


def change_packed(root: Root, path: str, change: Change) -> None:
    """Rewrite a packed file, increment by increment."""
    beside_erasures(root, lambda unless: _change_packed(root, path, change, unless))


def _change_packed(root: Root, path: str, change: Change, unless: Unless) -> None:
    columns = FOUND_SCHEMA
    if axis_of(path) in STATELESS_AXES:
        columns = next(read_batches(root, path)).schema
    writer = PackWriter(root, path, columns, unless)
    with contextlib.closing(writer):
        for record, batches in read_increments(root, path):
            changed, rows = change(record, pa.concat_tables(list(batches)))
            writer.add(rows)
            writer.finish_increment(changed)
        writer.commit()


def recounted(record: Record, rows: pa.Table) -> Record:
    """Return the record of an increment with the counts of other rows.

    Rows that are gone count as erased.
    """
    if record.axis in STATELESS_AXES:
        return replace(record, rows=len(rows), kept_rows=len(rows))
    counts = Counts()
    counts.add(rows)
    return replace(
        record,
        rows=counts.rows,
        kept_rows=counts.rows,
        content_hash=counts.content_hash,
        invalid_values=counts.invalid_values,
        erased_rows=record.erased_rows + record.rows - counts.rows,
    )


def _without(record: Record, rows: pa.Table, is_removed: RowFilter) -> tuple[Record, pa.Table]:
    left = rows.filter(pc.invert(is_removed(rows)))
    return (recounted(record, left) if len(left) < len(rows) else record), left


def _cleared(record: Record) -> Record:
    return replace(record, rows=0, content_hash=0, invalid_values={}, counted=False)
