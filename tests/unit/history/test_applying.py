"""Any number of rows is applied in bounded memory: DuckDB spills them to a file."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import pytest
from changing import Hospital

from cohortlake.history import image_sets
from cohortlake.storage import engine
from cohortlake.storage.root import Root

CHANGE = {"number": 1, "isPrimary": True, "DICOMPatientId": "P1", "DICOMStudyDate": "20240105"}


def test_rows_are_applied_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    limits, find = list[str](), image_sets.new_rows.find

    def found(con: duckdb.DuckDBPyConnection, *given: object) -> str:
        ((limit,),) = con.sql("SELECT current_setting('memory_limit')").fetchall()
        limits.append(limit)
        return find(con, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(image_sets.new_rows, "find", found)
    Hospital(root).step([CHANGE], [])
    assert limits == ["476.8 MiB"]


def test_a_result_is_read_some_rows_at_a_time() -> None:
    bounded: AbstractContextManager[duckdb.DuckDBPyConnection] = engine.bounded_connection()
    with bounded as con:
        query = "SELECT range AS number FROM range(200_000)"
        schema = con.sql(query).to_arrow_table().schema
        sizes = [len(batch) for batch in engine.batches(con, query, schema)]
    assert sum(sizes) == 200_000
    assert max(sizes) < 40_000
