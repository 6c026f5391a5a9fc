"""Merged header files: the same headers in fewer files, whatever ends midway."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from documents import read, write_headers

from cohortlake.headers import files, merge
from cohortlake.history import maintenance
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import Erasure
from cohortlake.storage import files as storage_files
from cohortlake.storage.files import Draft
from cohortlake.storage.root import Root

DATASTORE, OTHER = "d" * 32, "e" * 32
WEEK = timedelta(days=7)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    monkeypatch.setattr(merge, "_FEWEST_SMALL_FILES", 2)
    return Root(str(tmp_path))


def fetch(root: Root, *numbers: int, month: str = "2024-01", store: str = DATASTORE) -> None:
    """Write a file for each number: a header of its own, and one that all have."""
    for number in numbers:
        header = read({"KVP": str(number)}, {"KVP": str(number)})
        own = {(f"{number:032x}", 1): header, ("f" * 32, 1): header}
        write_headers(root, store, month, own, name=f"run-{number}")


def failed(root: Root, number: int, failure: str, run: str) -> None:
    """Write a file with a version whose header could not be read."""
    row = {
        "datastore_id": DATASTORE,
        "image_set_id": f"{number:032x}",
        "version": 1,
        "failure": failure,
        "fetched_at": datetime(2026, 1, 1, tzinfo=UTC),
        "run_id": run,
    }
    table = pa.Table.from_pylist([row], files.SCHEMA)
    files.write(root, DATASTORE, "2024-01", run, [table])


def headers(root: Root) -> dict[tuple[str, str, int], set[str]]:
    """Return what readers may take of each version: its header, or why there is none."""
    found: dict[tuple[str, str, int], set[str]] = {}
    for path in files.paths(root):
        for rows in files.read(root, path):
            for row in rows.to_pylist():
                key = row["datastore_id"], row["image_set_id"], row["version"]
                found.setdefault(key, set()).add(row["header"] or row["failure"])
    return found


def age(root: Root) -> None:
    at = (datetime.now(UTC) - 2 * WEEK).timestamp()
    for path in files.paths(root):
        os.utime(root.path(path), (at, at))


def names(root: Root) -> list[str]:
    return [path.rpartition("/")[2] for path in files.paths(root)]


def merged(root: Root) -> list[str]:
    return [name for name in names(root) if name.startswith("merged-")]


def test_each_version_is_kept_and_the_copied_files_stay_until_the_retention(root: Root) -> None:
    fetch(root, *range(4))
    fetch(root, 7, month="undated")
    before = headers(root)
    done = merge.merge(root, WEEK)
    assert (done.copied, done.files, done.deleted) == (4, 6, 0)
    assert headers(root) == before
    assert merge.merge(root, WEEK).copied == 0, "nothing is merged twice"
    age(root)
    done = merge.merge(root, WEEK)
    assert (done.copied, done.files, done.deleted) == (0, 2, 4)
    assert headers(root).keys() == before.keys()
    (path,) = (path for path in files.paths(root) if "merged-" in path)
    rows = pa.concat_tables(files.read(root, path))
    assert len(rows) == len(set(rows["image_set_id"].to_pylist())) == 5, "each version once"
    assert pq.read_metadata(root.path(path)).num_row_groups == 1


def test_data_stores_and_months_are_not_mixed(root: Root) -> None:
    fetch(root, 1, 2)
    fetch(root, 3, 4, month="2024-02")
    fetch(root, 5, 6, store=OTHER)
    before = headers(root)
    assert merge.merge(root, WEEK).copied == 6
    assert len(merged(root)) == 3
    age(root)
    merge.merge(root, WEEK)
    assert len(names(root)) == 3
    assert headers(root).keys() == before.keys()


def test_merged_files_grow(root: Root) -> None:
    for number in range(0, 12, 3):
        fetch(root, *range(number, number + 3))
        merge.merge(root, WEEK)
        age(root)
    merge.merge(root, WEEK)
    assert names(root) == merged(root)
    assert len(names(root)) == 1
    assert len(headers(root)) == 13


def test_few_files_and_large_ones_stay(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(root, 1, 2, 3)
    monkeypatch.setattr(merge, "_FEWEST_SMALL_FILES", 4)
    assert merge.merge(root, WEEK).copied == 0
    monkeypatch.setattr(merge, "_FEWEST_SMALL_FILES", 2)
    monkeypatch.setattr(merge, "_SMALL_BYTES", 10)
    assert merge.merge(root, WEEK).copied == 0


def test_a_header_is_kept_before_a_failure_and_the_last_failure(root: Root) -> None:
    fetch(root, 1)
    failed(root, 1, "cut", "run-2")
    failed(root, 2, "cut", "run-3")
    failed(root, 2, "busy", "run-4")
    failed(root, 3, "cut", "run-0")
    fetch(root, 3)
    merge.merge(root, WEEK)
    age(root)
    merge.merge(root, WEEK)
    asked = files.read_fetched(root, files.paths(root)).to_pylist()
    found = {row["image_set_id"][-1]: row["failure"] for row in asked}
    assert found == {"1": None, "2": "busy", "3": None, "f": None}


def test_a_damaged_file_is_left_as_it_is(root: Root) -> None:
    fetch(root, *range(4))
    path = files.paths(root)[0]
    Path(root.path(path)).write_bytes(b"no parquet")
    assert merge.merge(root, WEEK).copied == 3
    age(root)
    merge.merge(root, WEEK)
    assert len(names(root)) == 2
    assert root.exists(path)


def test_two_runs_merge_at_once(root: Root) -> None:
    fetch(root, *range(6))
    paths, before = files.paths(root), headers(root)
    merge._copy(root, paths[:4])
    merge._copy(root, paths[2:])  # it had listed the files before
    merge._copy(root, paths)
    merge._copy(root, paths)
    assert headers(root) == before
    age(root)
    merge.merge(root, WEEK)
    assert names(root) == merged(root)
    assert len(names(root)) == 1
    assert headers(root).keys() == before.keys()


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (pq.ParquetWriter, "write_table", 1),
        (Draft, "keep", 1),
        (Draft, "keep", 2),
        (erasures, "read", 2),
        (Root, "delete", 1),
        (Root, "delete", 3),
    ],
)
def test_an_end_at_any_step_leaves_the_same_headers(
    root: Root, owner: Any, name: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(root, *range(4))
    fetch(root, *range(4, 8), month="2024-02")
    before = headers(root)
    if owner is Root:
        merge.merge(root, WEEK)
        age(root)
    calls, real = 0, getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing)
        with pytest.raises(KeyboardInterrupt):
            merge.merge(root, WEEK)
    assert headers(root).keys() == before.keys()
    merge.merge(root, WEEK)
    age(root)
    merge.merge(root, WEEK)
    assert headers(root).keys() == before.keys()
    assert names(root) == merged(root)
    assert len(names(root)) == 2


def record(erased_at: str | None = None) -> Erasure:
    return Erasure(DATASTORE, "hash", (), "2026-01-01T00:00:00+00:00", erased_at)


def is_gone(rows: pa.Table) -> pa.Array:
    return pc.equal(rows["image_set_id"], f"{1:032x}")


def erase(root: Root) -> None:
    """Erase as another machine does: the record, the hidden files, then the files it lists."""
    erasures.write(root, record())
    for path in Path(root.path("headers")).rglob("*"):
        if storage_files.DRAFT_NAME.fullmatch(path.name):
            path.unlink()
    for path in files.paths(root):
        files.remove_rows(root, path, is_gone)


@pytest.mark.parametrize("instant", ["whole", "before the look", "after the look", "kept"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_no_merged_file_brings_back_who_is_erased_meanwhile(
    root: Root, instant: str, is_killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(root, *range(4))
    keep: Callable[[Draft], None] = Draft.keep

    def act() -> None:
        monkeypatch.setattr(Draft, "keep", keep)
        erase(root)
        if is_killed:
            raise KeyboardInterrupt

    def kept(draft: Draft) -> None:
        original = draft._unless
        assert original

        def look() -> bool:
            if instant == "before the look":
                act()
            answer = original()
            if instant == "after the look":
                act()
            return answer

        draft._unless = look
        if instant == "whole":
            act()
        keep(draft)
        if instant == "kept":
            act()

    monkeypatch.setattr(Draft, "keep", kept)
    with suppress(KeyboardInterrupt):
        merge.merge(root, WEEK)
    found = {key[1] for key in headers(root)}
    assert found == {f"{number:032x}" for number in (0, 2, 3)} | {"f" * 32}


def test_nothing_is_merged_while_an_erasure_is_under_way(root: Root) -> None:
    fetch(root, *range(4))
    erasures.write(root, record())
    assert merge.merge(root, WEEK).copied == 0
    erasures.write(root, record("2026-01-02T00:00:00+00:00"))
    assert merge.merge(root, WEEK).copied == 4


def test_rows_are_removed_from_a_merged_file_and_the_copied_ones_still_go(root: Root) -> None:
    fetch(root, *range(4))
    merge.merge(root, WEEK)
    assert sum(files.remove_rows(root, path, is_gone) for path in files.paths(root)) == 2
    assert f"{1:032x}" not in {key[1] for key in headers(root)}
    age(root)
    merge.merge(root, WEEK)
    assert names(root) == merged(root)


def test_maintenance_merges_and_says_so(root: Root) -> None:
    fetch(root, *range(4))
    (done,) = maintenance.maintain(root, WEEK)
    assert asdict(done) == {
        "table": "headers",
        "version": None,
        "compacted": 4,
        "files": 5,
        "log_files_deleted": 0,
        "files_deleted": 0,
    }
