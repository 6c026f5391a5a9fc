"""A lake that a release wrote opens in this one, or asks for `rebuild`, and has the same rows.

`tests/fixtures/write_lake.py` writes such a lake, and what its tables must hold.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from endpoint import DATASTORE
from fixtures.write_lake import FIXTURES, POLICIES, TAG, rows_of

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.errors import OldFormat
from cohortlake.published.read import PublishedTables
from cohortlake.schema import FORMAT_VERSION
from cohortlake.storage.root import Root

LAKES = sorted(path.name.removesuffix(".json") for path in FIXTURES.glob("format_*_*.json"))


@pytest.fixture(params=LAKES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    with tarfile.open(FIXTURES / f"{request.param}.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    policy = request.param.rpartition("_")[2]
    return Settings(datastores=(DATASTORE,), root=str(tmp_path), privacy=policy)


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> dict[str, list[dict[str, object]]]:
    name = request.node.callspec.params["settings"]
    tables: dict[str, list[dict[str, object]]] = json.loads((FIXTURES / f"{name}.json").read_text())
    return tables


def test_this_format_has_a_lake_of_each_policy() -> None:
    assert {f"format_{FORMAT_VERSION}_{policy}" for policy in POLICIES} <= {*LAKES}


def test_it_has_the_same_rows(
    settings: Settings, expected: dict[str, list[dict[str, object]]]
) -> None:
    try:
        found = rows_of(settings.root)
    except OldFormat:
        Sync(settings).rebuild()
        found = rows_of(settings.root)
    assert sum(map(len, expected.values())) > 40
    _assert_same(found, expected)


def test_it_has_the_same_rows_cohorts_and_tag_after_a_rebuild(
    settings: Settings, expected: dict[str, list[dict[str, object]]]
) -> None:
    Sync(settings).rebuild()
    _assert_same(rows_of(settings.root), expected)
    with cohortlake.open(settings.root) as lake:
        assert lake.verify("every_study").is_identical
        assert lake.verify("men").is_identical
    snapshots = PublishedTables(Root(settings.root)).snapshots()
    assert [TAG] in [list(tags) for tags in snapshots["tags"]]


def _assert_same(
    found: dict[str, list[dict[str, object]]], expected: dict[str, list[dict[str, object]]]
) -> None:
    """Compare the columns that there were; a later release may have more."""
    for table, rows in expected.items():
        assert len(found[table]) == len(rows), table
        for now, then in zip(found[table], rows, strict=True):
            assert {name: now[name] for name in then} == then, table
