"""Checks that read the published tables."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cohortlake.admin import checks
from cohortlake.storage.root import Root


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize(("ids", "repeated"), [("abcdef", 0), ("abacabd", 2), ("", 0), ("aa", 1)])
def test_each_image_set_is_published_once(
    ids: str, repeated: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.table({
        "datastore_id": pa.array(["d"] * (2 * len(ids)), pa.string()),
        "image_set_id": pa.array([*ids, *ids.upper()], pa.string()),
    })  # fmt: skip

    def register(con: Any, root: Root, table: str) -> None:
        con.register(f"published_{table}", rows)

    monkeypatch.setattr(checks, "_HASHES_AT_ONCE", at_once)
    monkeypatch.setattr(checks, "_register_published", register)
    monkeypatch.setattr(checks, "read_marker", lambda _: SimpleNamespace(rows=lambda _: len(rows)))
    result = checks.check_unique(Root(str(tmp_path)))
    assert (result.passed, result.counts) == (not repeated, {"repeated": 2 * repeated})
