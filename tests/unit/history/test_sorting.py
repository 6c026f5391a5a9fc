"""Rows are sorted in parts that fit into memory."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohortlake.history import sorting
from cohortlake.storage.files import Files


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.integers(-9, 9), max_size=6), max_size=6),
    part_bytes=st.sampled_from([1, 99, 9**9]),
    most_merged=st.integers(2, 4),
)
def test_rows_come_in_the_order_of_their_first_column(
    batches: list[list[int]], part_bytes: int, most_merged: int, tmp_path: Path
) -> None:
    given_batches = [
        pa.record_batch({"key": pa.array(keys, pa.int64()), "text": [f"{k}" for k in keys]})
        for keys in batches
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_PART_BYTES", part_bytes)
        patch.setattr(sorting, "_MOST_MERGED", most_merged)
        found = list(sorting.in_order(filter(len, given_batches), Files(str(tmp_path))))
    expected = sorted(key for keys in batches for key in keys)
    assert [key for batch in found for key in batch["key"].to_pylist()] == expected
    assert [text for batch in found for text in batch["text"].to_pylist()] == [*map(str, expected)]


def test_few_rows_need_no_file(tmp_path: Path) -> None:
    rows = pa.record_batch({"key": pa.array([2, 1], pa.int64())})
    (found,) = sorting.in_order([rows], Files(str(tmp_path)))
    assert found["key"].to_pylist() == [1, 2]
    assert not list(tmp_path.rglob("*"))
