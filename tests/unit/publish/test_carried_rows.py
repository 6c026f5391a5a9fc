"""Rows that wait for their period: each is given once it is complete, and no file is left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.publish import carried_rows
from cohortlake.publish.carried_rows import CarriedRows, RowsOfPeriods, merged


def _rows(**numbers: list[int]) -> list[tuple[str, Iterator[pa.RecordBatch]]]:
    """Return the rows of some periods: `in_2019=[1, 2]`."""
    return [
        (name.removeprefix("in_"), iter([pa.record_batch({"n": pa.array(sorted(some))})]))
        for name, some in numbers.items()
    ]


def _read(rows: RowsOfPeriods) -> dict[str, list[int]]:
    return {
        period: [number for batch in batches for number in batch["n"].to_pylist()]
        for period, batches in rows
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "it's [temporary] period=1" / "n=2"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_rows_wait_until_their_period_is_complete(temporary: Path) -> None:
    def complete(rows: RowsOfPeriods, *periods: str) -> dict[str, list[int]]:
        return _read(carried.complete("series", ["n"], rows, periods))

    def count_files() -> int:
        return len(list(temporary.rglob("*.arrow")))

    with CarriedRows() as carried:
        assert complete(_rows(in_2019=[1], in_2020=[2, 5]), "2019") == {"2019": [1]}
        assert count_files() == 1
        other = carried.complete("studies", ["n"], _rows(in_2020=[9]), ["2020"])
        assert _read(other) == {"2020": [9]}, "another table"
        assert complete(_rows(in_2020=[3], in_2021=[4]), "2020") == {"2020": [2, 3, 5]}
        assert count_files() == 1, "2020 is written"
        assert complete([], "2021") == {"2021": [4]}, "a batch without rows of the period"
        assert complete([], "2022") == {}
        assert count_files() == 0
    assert not list(temporary.iterdir())


def test_rows_that_wait_for_nothing_are_not_written(temporary: Path) -> None:
    with CarriedRows() as carried:
        rows = carried.complete("series", ["n"], _rows(in_2019=[1]), ["2019"])
        assert _read(rows) == {"2019": [1]}
        assert not list(temporary.iterdir())


def test_an_error_leaves_no_file(temporary: Path) -> None:
    with pytest.raises(ValueError, match="stop"), CarriedRows() as carried:
        assert not _read(carried.complete("series", ["n"], _rows(in_2020=[1]), []))
        assert list(temporary.rglob("*.arrow"))
        raise ValueError("stop")
    assert not list(temporary.iterdir())


KEYS = st.tuples(st.sampled_from(["CT", "MR", None]), st.integers(0, 5) | st.none())


@given(
    parts=st.lists(st.lists(KEYS, min_size=1, max_size=12), min_size=1, max_size=5),
    batch_rows=st.integers(1, 4),
    merged_rows=st.integers(1, 9),
)
def test_sorted_parts_are_merged(
    parts: list[list[tuple[str | None, int | None]]], batch_rows: int, merged_rows: int
) -> None:
    schema = pa.schema({"a": pa.string(), "b": pa.int64(), "part": pa.int64()})
    tables = [
        pa.table([*zip(*keys, strict=True), [number] * len(keys)], schema)
        for number, keys in enumerate(parts)
    ]
    order = ["a", "b"]
    by_order = [(name, "ascending") for name in order]
    batches = [table.sort_by(by_order).to_batches(max_chunksize=batch_rows) for table in tables]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carried_rows, "_BATCH_ROWS", batch_rows)
        patch.setattr(carried_rows, "_MERGED_ROWS", merged_rows)
        found = pa.Table.from_batches(merged(batches, order), schema)
    every = pa.concat_tables(tables)
    assert found.select(order) == every.sort_by(by_order).select(order)
    in_full = [(name, "ascending") for name in schema.names]
    assert found.sort_by(in_full) == every.sort_by(in_full), "no row is lost or there twice"
