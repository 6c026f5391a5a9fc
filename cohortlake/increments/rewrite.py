"""Rewriting increments: an erasure removes rows, or counts that included them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.increments.files import RowFilter, read_batches, read_record
from cohortlake.increments.kinds import STATELESS_AXES
from cohortlake.increments.record import Record
from cohortlake.increments.writer import IncrementWriter, write_empty, write_table
from cohortlake.storage.root import Root


def remove_rows(root: Root, path: str, is_removed: RowFilter) -> None:
    """Rewrite an increment without the rows that a filter selects, and update its record."""
    record = read_record(root, path)
    others = (rows.filter(pc.invert(is_removed(rows))) for rows in read_batches(root, path))
    if record.axis in STATELESS_AXES:
        left = pa.concat_tables(list(others))
        write_table(root, replace(record, rows=len(left), kept_rows=len(left)), left)
    else:
        replace_rows(root, record, others)


def clear_counts(root: Root, path: str) -> None:
    """Rewrite an increment that holds no rows, without the counts of the rows it found."""
    record = read_record(root, path)
    write_empty(root, replace(record, rows=0, content_hash=0, invalid_values={}, counted=False))


def replace_rows(root: Root, record: Record, batches: Iterable[pa.Table]) -> None:
    """Rewrite an increment with other rows. Rows that are gone count as erased."""
    writer = IncrementWriter(root, record)
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
