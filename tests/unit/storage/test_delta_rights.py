"""What a commit writes is for its owner only, and a commit looks at nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from cohortlake.storage import delta
from cohortlake.storage.root import Root

COLUMNS = pa.schema([("kind", pa.string()), ("n", pa.int64())])
ROWS = pa.table({"kind": ["a b", "c/d"], "n": [1, 2]}, COLUMNS)


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(f"{tmp_path}/lake")
    root.prepare()
    return root


def table_of(root: Root) -> DeltaTable:
    return delta.make_table(root, "image_sets", COLUMNS, partition_by=["kind"])


def open_to_others(root: Root) -> list[Path]:
    folder = Path(root.path("image_sets"))
    return [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_what_a_commit_writes_is_private(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(root)
    table.alter.set_table_properties({"delta.checkpointInterval": "2"})
    root.make_all_private("image_sets")
    for overwrite in (False, False, True):
        with monkeypatch.context() as patched:
            patched.delattr(Root, "make_all_private")  # a commit does not look at all files
            table = delta.commit(root, "image_sets", table, ROWS, overwrite=overwrite)
        assert open_to_others(root) == []
    log = Path(root.path("image_sets/_delta_log"))
    assert list(log.glob("*.checkpoint.parquet"))
    assert (log / "_last_checkpoint").exists()


def test_what_a_failed_commit_leaves_is_private(root: Root) -> None:
    table_of(root)
    first, second = table_of(root), table_of(root)
    delta.commit(root, "image_sets", first, ROWS)
    with pytest.raises(CommitFailedError):
        delta.commit(root, "image_sets", second, ROWS)
    assert len(list(Path(root.path("image_sets")).rglob("*.parquet"))) == 4
    assert open_to_others(root) == []


def test_what_a_killed_run_leaves_is_made_private_by_the_next(root: Root) -> None:
    table_of(root)
    left = Path(root.path("image_sets/kind=a/part-0.parquet"))
    left.parent.mkdir()
    left.touch()
    assert open_to_others(root) == [left.parent, left]
    with root.alone():
        assert open_to_others(root) == []
