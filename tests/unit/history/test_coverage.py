"""The coverage: which intervals the windows cover together, and what is read of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cohortlake import schema
from cohortlake.history import coverage
from cohortlake.history.coverage import CoverageInterval
from cohortlake.increments import writer
from cohortlake.increments.record import Record
from cohortlake.storage.root import Root

DATASTORE = "d" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE = timedelta(minutes=5)
AT = st.integers(0, 12).map(lambda n: START + n * SETTLE)


def _row(start: datetime, end: datetime, at: datetime, **other: Any) -> dict[str, Any]:
    own = {"datastore_id": DATASTORE, "axis": "updated_at", "complete": True}
    return own | {"start": start, "end": end, "searched_at": at} | other


ROWS = st.lists(
    st.builds(_row, AT, AT, AT)
    | st.builds(_row, AT, AT, AT, complete=st.just(False))
    | st.builds(_row, AT, AT, AT, axis=st.just("study_date"))
    | st.builds(_row, AT, AT, AT, datastore_id=st.just("e" * 32)),
    max_size=12,
)


def _one_by_one(rows: list[dict[str, Any]]) -> list[CoverageInterval]:
    """Merge the intervals one after another, as the definition says."""
    merged: list[CoverageInterval] = []
    intervals = []
    for row in rows:
        if (row["datastore_id"], row["axis"], row["complete"]) == (DATASTORE, "updated_at", True):
            trusted = row["searched_at"] - SETTLE
            end = min(row["end"], trusted)
            intervals.append(CoverageInterval(row["start"], end, is_open=trusted < row["end"]))
    for interval in sorted(intervals, key=lambda i: (i.start, i.end)):
        if interval.start >= interval.end:
            continue
        if merged and interval.start <= merged[-1].end:
            last = merged.pop()
            interval = replace(max(last, interval, key=lambda i: i.end), start=last.start)
        merged.append(interval)
    return merged


@given(ROWS)
def test_the_covered_intervals_are_those_of_the_windows(rows: list[dict[str, Any]]) -> None:
    columns = pa.schema([
        field for field in schema.arrow_schema(schema.COVERAGE)
        if field.name in coverage.INTERVAL_COLUMNS
    ])  # fmt: skip
    table = pa.Table.from_pylist(rows, columns)
    assert coverage.covered_intervals(table, DATASTORE, SETTLE) == _one_by_one(rows)


def test_some_columns_are_those_of_all(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    for hour in range(3):
        at = START + timedelta(hours=hour)
        record = Record(DATASTORE, "updated_at", "2026-01-01", START, at, at, f"run-{hour}")
        writer.write_empty(root, record)
        if hour < 2:
            coverage.record(root, [record.path])
    columns = ["searched_at", "run_id", "increment"]
    for function in (coverage.read, coverage.searched):
        everything = function(root)
        assert function(root, columns).equals(everything.select(columns))
        assert function(root, columns[:2]).equals(everything.select(columns[:2]))
    assert len(coverage.searched(root)) == 3
    assert coverage.pending(root) == [record.path]
