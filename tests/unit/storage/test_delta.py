"""Delta tables: what it takes to open one, and writers that meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake.table import TableAlterer, TableOptimizer

from cohortlake.storage import delta
from cohortlake.storage.root import Root

ROWS = pa.table({"kind": pa.array(["version"])})


def test_a_table_is_opened_from_a_checkpoint_and_few_commits(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    table = delta.make_table(root, "image_sets", ROWS.schema)
    for _ in range(25):
        table = delta.commit(root, "image_sets", table, ROWS)
    table = delta.commit(root, "image_sets", table, ROWS, overwrite=True)  # as a rebuild does
    for _ in range(14):
        table = delta.commit(root, "image_sets", table, ROWS)
    log = Path(root.path("image_sets/_delta_log"))
    checkpoints = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    assert checkpoints == [9, 19, 29, 39]
    for path in log.glob("*.json"):
        if int(path.name[:20]) < 39:
            path.unlink()
    opened = delta.open_table(root, "image_sets")
    assert opened
    assert (opened.version(), opened.count()) == (40, 15)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A lake with a table of four small files."""
    root = Root(str(tmp_path))
    table = delta.make_table(root, "image_sets", ROWS.schema)
    for _ in range(4):
        table = delta.commit(root, "image_sets", table, ROWS)
    return root


def compact(root: Root) -> int:
    return delta.compact(root, "image_sets", 1 << 20)


def meanwhile(
    patch: pytest.MonkeyPatch, owner: type, name: str, work: Callable[[], object], *, first: bool
) -> None:
    """Let another writer work before or after the next call of a method."""
    original = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        patch.setattr(owner, name, original)
        if first:
            work()
        result = original(*args, **kwargs)
        if not first:
            work()
        return result

    patch.setattr(owner, name, called)


@pytest.mark.parametrize(
    ("owner", "method", "first"),
    [
        pytest.param(TableAlterer, "set_table_properties", True, id="before it begins"),
        pytest.param(TableAlterer, "set_table_properties", False, id="before it reads"),
        pytest.param(TableOptimizer, "compact", True, id="before it commits"),
    ],
)
def test_of_two_compactions_at_once_one_counts(
    root: Root, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, first: bool
) -> None:
    replaced = list[int]()
    meanwhile(monkeypatch, owner, method, lambda: replaced.append(compact(root)), first=first)
    replaced.append(compact(root))
    assert sorted(replaced) == [0, 4]
    table = delta.reopened(root, "image_sets")
    assert (table.count(), len(table.file_uris())) == (4, 1)
    assert delta.commit(root, "image_sets", table, ROWS).count() == 5, "others go on"
    assert compact(root) == 2
    version = delta.version(root, "image_sets")
    assert compact(root) == 0
    assert delta.version(root, "image_sets") == version, "nothing to do is no commit"


def test_a_compaction_keeps_what_is_appended_meanwhile(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append() -> None:
        delta.commit(root, "image_sets", delta.reopened(root, "image_sets"), ROWS)

    meanwhile(monkeypatch, TableOptimizer, "compact", append, first=True)
    assert compact(root) == 4
    assert delta.reopened(root, "image_sets").count() == 5


def test_a_compaction_does_not_bring_back_rows_that_were_replaced_meanwhile(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        table = delta.reopened(root, "image_sets")
        delta.commit(root, "image_sets", table, ROWS, overwrite=True)

    meanwhile(monkeypatch, TableOptimizer, "compact", replace, first=True)
    assert delta.retrying("image_sets", lambda: compact(root)) == 0
    assert delta.reopened(root, "image_sets").count() == 1
