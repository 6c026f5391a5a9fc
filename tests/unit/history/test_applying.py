"""Any number of rows is applied in bounded memory: DuckDB spills them to a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from changing import START, Hospital
from looks import Looked, write

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
    assert limits == ["190.7 MiB"]


def test_a_result_is_read_some_rows_at_a_time() -> None:
    with engine.bounded_connection() as con:
        query = "SELECT range AS number FROM range(200_000)"
        schema = con.sql(query).to_arrow_table().schema
        sizes = [len(batch) for batch in engine.batches(con, query, schema)]
    assert sum(sizes) == 200_000
    assert max(sizes) < 10_000


def test_a_state_that_was_found_twice_is_stored_as_it_was_found_first(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    summary = {"imageSetId": "1" * 32, "version": 1, "createdAt": START, "updatedAt": START}
    once = {"imageSetId": "2" * 32, "version": 1, "createdAt": START, "updatedAt": START}
    tiers = ("FREQUENT_ACCESS", "ARCHIVE_INSTANT_ACCESS")
    looks = [
        Looked(START + timedelta(hours=hours), [summary | {"storageTier": tier}, *others])
        for hours, tier, others in ((2, tiers[1], []), (1, tiers[0], [once]))
    ]
    assert image_sets.apply(root, write(root, looks)).changes == {"created": 2}
    with engine.connection() as con:
        history = image_sets.register(con, root)
        query = f"SELECT image_set_id, storage_tier FROM {history.stored} ORDER BY ALL"
        assert con.sql(query).fetchall() == [("1" * 32, tiers[0]), ("2" * 32, None)]
