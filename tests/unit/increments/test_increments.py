"""An increment is written, counted, rewritten and set aside; without a commit no file remains."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cohortlake.flatten import flatten_summaries
from cohortlake.increments import files, rewrite, writer
from cohortlake.increments.record import Record, content_hash
from cohortlake.storage.root import Root

DATASTORE = "d" * 32
START, END = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
RECORD = Record(DATASTORE, "updated_at", "2026-01-05", START, END, END, "run-1")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(str(tmp_path))
    root.prepare()
    return root


def states(numbers: Iterable[int]) -> pa.Table:
    """Return a row for each number; the patient is the number modulo 3."""
    summaries = [
        {
            "imageSetId": f"{number:032x}",
            "version": 1,
            "createdAt": START.timestamp(),
            "updatedAt": (START + timedelta(minutes=number)).timestamp(),
            "DICOMTags": {"DICOMPatientId": f"P{number % 3}", "DICOMStudyDate": "20260101"},
        }
        for number in numbers
    ]
    rows = flatten_summaries(summaries, DATASTORE)
    return rows.append_column("page", pa.nulls(len(rows), pa.int32()))


def write(root: Root, count: int, *, commit: bool = True) -> Record | None:
    increment = writer.IncrementWriter(root, RECORD)
    with closing(increment):
        for start in range(0, count, 4):
            increment.add(states(range(start, min(start + 4, count))))
        summary = increment.summary(end=END, pages=3, requests=4, throttles=1, seconds=2.0)
        return increment.commit(summary) if commit else None


def is_patient(rows: pa.Table) -> pa.Array:
    return pc.equal(rows["PatientID"], "P1")


@pytest.mark.parametrize("row_group", [25_000, 5, 1])
def test_what_is_read_is_what_was_written(
    root: Root, monkeypatch: pytest.MonkeyPatch, row_group: int
) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", row_group)
    record = write(root, 10)
    assert files.paths(root) == [RECORD.path]
    assert record == files.read_record(root, RECORD.path)
    assert (record.rows, record.kept_rows, record.pages, record.throttles) == (10, 10, 3, 1)
    keys = states(range(10))["state_key"].to_numpy()
    assert record.content_hash == content_hash(keys) == content_hash(keys[::-1])
    rows = pa.concat_tables(list(files.read_batches(root, RECORD.path)))
    assert rows["image_set_id"].to_pylist() == [f"{number:032x}" for number in range(10)]
    assert set(rows["run_id"].to_pylist()) == {"run-1"}


@pytest.mark.parametrize("row_group", [25_000, 1])
def test_without_a_commit_no_file_remains(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int
) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", row_group)
    write(root, 10, commit=False)
    assert not list((tmp_path / "increments").rglob("*.parquet*"))


def test_rows_are_removed_and_the_record_follows(root: Root) -> None:
    write(root, 10)
    assert files.count_rows(root, RECORD.path, is_patient) == 3
    rewrite.remove_rows(root, RECORD.path, is_patient)
    record = files.read_record(root, RECORD.path)
    assert (record.rows, record.kept_rows, record.erased_rows) == (7, 7, 3)
    others = states(n for n in range(10) if n % 3 != 1)
    assert record.content_hash == content_hash(others["state_key"].to_numpy())
    assert files.count_rows(root, RECORD.path, is_patient) == 0


def test_counts_are_cleared_and_the_window_stays(root: Root) -> None:
    increment = writer.IncrementWriter(root, RECORD)
    increment.add(states(range(3)))
    summary = increment.summary(end=END, pages=1, requests=1, throttles=0, seconds=1.0)
    writer.write_empty(root, summary)
    assert files.read_record(root, RECORD.path).rows == 3
    rewrite.clear_counts(root, RECORD.path, {RECORD.path})
    record = files.read_record(root, RECORD.path)
    assert (record.rows, record.content_hash, record.counted) == (0, 0, False)
    assert (record.start, record.end, record.requests) == (START, END, 1)


def test_a_damaged_file_that_is_set_aside_is_no_increment(root: Root, tmp_path: Path) -> None:
    write(root, 3)
    assert not files.is_damaged(root, RECORD.path)
    path = tmp_path / RECORD.path
    path.write_bytes(path.read_bytes()[:-20])
    assert files.is_damaged(root, RECORD.path)
    files.set_aside(root, RECORD.path)
    assert files.paths(root) == files.paths_of_datastore(root, DATASTORE) == []
    assert files.paths_set_aside(root, DATASTORE) == [f"{RECORD.path}.damaged"]
