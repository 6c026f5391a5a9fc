"""A sorted file gives the rows of some keys, reads few others, and is read only if it is intact."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.errors import DamagedFile
from cohortlake.storage import sorted_file
from cohortlake.storage.files import Files
from cohortlake.storage.sorted_file import SortedFile

COLUMNS = pa.schema([("key", pa.int64()), ("value", pa.string())])
OTHER = pa.schema([("hash", pa.int64())])
KEYS = st.lists(st.integers(-30, 30), max_size=60)


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> None:
    """Let the files of these tests have blocks of some rows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sorted_file, "_BLOCK_BYTES", 100)
        patched.setattr(sorted_file, "_GAP_BYTES", 0)
        patched.setattr(sorted_file, "_BLOCKS_AT_ONCE", 3)
        patched.setattr(sorted_file, "_BLOCKS_MERGED", 2)
        yield


def rows_of(keys: Sequence[int], name: str = "") -> list[dict[str, object]]:
    return [{"key": key, "value": f"{name}{key}-{n}"} for n, key in enumerate(sorted(keys))]


def written(rows: list[dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    sections = {
        "other": (OTHER, [pa.RecordBatch.from_pylist([{"hash": 1}], OTHER)]),
        "rows": (COLUMNS, pa.Table.from_pylist(rows, COLUMNS).to_batches()),
    }
    sorted_file.write(pa.PythonFile(stream, "w"), sections)
    return stream.getvalue()


def opened(content: bytes) -> SortedFile:
    return SortedFile("history_index/x", lambda: pa.BufferReader(content))


def found(file: SortedFile, keys: Sequence[int]) -> list[dict[str, object]]:
    tables = file.find("rows", pa.array(sorted(set(keys)), pa.int64()))
    return [row for table in tables for row in table.to_pylist()]


@given(KEYS, st.lists(st.integers(-35, 35), max_size=8))
def test_the_rows_of_some_keys_are_found(keys: list[int], wanted: list[int]) -> None:
    rows = rows_of(keys)
    assert found(opened(written(rows)), wanted) == [row for row in rows if row["key"] in wanted]


@given(KEYS, st.integers(-35, 35) | st.none(), st.integers(-35, 35) | st.none())
def test_the_rows_between_two_keys_are_found(
    keys: list[int], start: int | None, end: int | None
) -> None:
    rows = rows_of(keys)
    tables = opened(written(rows)).between("rows", start, end)
    expected = [
        row
        for row in rows
        if (start is None or row["key"] >= start) and (end is None or row["key"] < end)
    ]
    assert [row for table in tables for row in table.to_pylist()] == expected


@given(st.lists(KEYS, min_size=1, max_size=4))
def test_files_are_merged_in_the_order_of_the_key(several: list[list[int]]) -> None:
    rows = [rows_of(keys, name) for name, keys in zip("abcd", several, strict=False)]
    files = [opened(written(each)) for each in rows]
    merged = [row for batch in sorted_file.merged(files, "rows") for row in batch.to_pylist()]
    assert [row["key"] for row in merged] == sorted(key for keys in several for key in keys)
    assert sorted(row["value"] for row in merged) == sorted(
        row["value"] for each in rows for row in each
    )


def test_other_blocks_are_not_read(tmp_path: Path) -> None:
    content = written(rows_of(range(10_000)))
    (tmp_path / "file").write_bytes(content)
    reads: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            reads.append(size or 0)
            return super().read(-1 if size is None else size)

    file = SortedFile("x", lambda: pa.PythonFile(Counting(tmp_path / "file"), "r"))
    reads.clear()
    assert len(found(file, [5, 7_000])) == 2
    assert len(reads) == 2
    assert sum(reads) < len(content) / 100


@pytest.mark.parametrize("cut", [0, 1, 20, 200, 400])
def test_a_file_that_was_cut_off_is_not_read(cut: int) -> None:
    content = written(rows_of(range(50)))
    with pytest.raises(DamagedFile):
        opened(content[:cut])
    with pytest.raises(DamagedFile):
        opened(content[: len(content) - 1])


def test_a_file_with_any_byte_altered_is_not_read() -> None:
    rows = rows_of(range(20))
    content = written(rows)
    for place in np.linspace(0, len(content) - 1, 150).astype(int):
        altered = bytearray(content)
        altered[place] ^= 0xFF
        with pytest.raises(DamagedFile):
            file = opened(bytes(altered))
            found(file, range(20))
            list(file.between("other", None, None))


def test_a_file_may_be_empty(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    with files.writing("x") as stream:
        sorted_file.write(stream, {"rows": (COLUMNS, [])})
    file = SortedFile("x", lambda: files.open("x"))
    assert found(file, [1]) == []
    assert list(sorted_file.merged([file, file], "rows")) == []
