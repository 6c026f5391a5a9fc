"""Increments of an older format: rewriting them with the columns of this release."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import pyarrow as pa

from cohortlake import schema
from cohortlake.flatten import read_again
from cohortlake.increments import packed, written
from cohortlake.increments.files import axis_of, read_batches, read_footer, read_record
from cohortlake.increments.kinds import FOUND_SCHEMA, STATELESS_AXES, with_run_columns
from cohortlake.increments.record import Record, format_of
from cohortlake.increments.rewrite import change_packed, recounted, replace_rows
from cohortlake.increments.writer import write_empty
from cohortlake.privacy.guarded_rewrite import Unless, beside_erasures
from cohortlake.storage.root import Root


def upgrade(root: Root, paths: Iterable[str]) -> None:
    """Rewrite the files that an older release wrote; leave the others as they are.

    No row is lost, and the values as the service sent them stay readable.
    """
    for path in paths:
        if axis_of(path) in STATELESS_AXES or written.record_of(root, path):
            continue
        footer = read_footer(root, path)
        if format_of(footer) == schema.FORMAT_VERSION:
            continue
        if packed.is_packed(path):
            change_packed(root, path, _upgraded)
            continue
        record = Record.from_footer(footer)
        if record.kept_rows:
            beside_erasures(root, functools.partial(_upgrade, root, path))
        else:
            write_empty(root, record)


def _upgrade(root: Root, path: str, unless: Unless) -> None:
    record, batches = read_record(root, path), read_batches(root, path)
    replace_rows(root, record, (read_again(rows) for rows in batches if len(rows)), unless)


def _upgraded(record: Record, rows: pa.Table) -> tuple[Record, pa.Table]:
    if not len(rows):
        return record, FOUND_SCHEMA.empty_table()
    states = read_again(rows.drop_columns(["observed_at", "run_id"]))
    return recounted(record, states), with_run_columns(states, record)
