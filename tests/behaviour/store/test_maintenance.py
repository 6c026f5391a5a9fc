"""After maintenance a lake has fewer files and the same rows, also for runs at work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from endpoint import Endpoint
from filled import FilledLake, filled
from small_hospital import assert_equal_to_truth, change, fill
from unpublished import unpublished

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.errors import SettingError
from cohortlake.history import coverage, image_sets, maintenance
from cohortlake.storage import delta, engine
from cohortlake.storage.root import Root

MONTH = timedelta(days=30)


@pytest.fixture(scope="module")
def five_hours(tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """A lake after a first load and five hours with a change each; tests work on copies."""
    return filled(tmp_path_factory.mktemp("lived"), live_five_hours, date(2026, 1, 25))


def live_five_hours(endpoint: Endpoint, sync: Sync) -> None:
    fill(endpoint, 12, months=2)
    with unpublished():
        sync.run()
        for hour in range(5):
            endpoint.now += timedelta(hours=1)
            change(endpoint, hour, DICOMPatientSex="F")
            sync.run()
    sync.publish()


@pytest.fixture
def lived(
    five_hours: FilledLake,
    endpoint: Endpoint,
    lake_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Sync:
    monkeypatch.setattr(maintenance, "_FEWEST_SMALL_FILES", 4)
    five_hours.copy_to(lake_settings.root, endpoint)
    return Sync(lake_settings)


def files(root: Root) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in Path(root.uri).rglob("*") if p.is_file()}


def memory(root: Root) -> list[tuple[object, ...]]:
    with engine.connection() as con:
        image_sets.register(con, root)
        return con.sql("SELECT * FROM history ORDER BY interval_key").fetchall()


def table_files(root: Root, name: str) -> int:
    return len(DeltaTable(root.uri_of(name)).file_uris())


def test_few_files_hold_the_same_rows(lived: Sync, endpoint: Endpoint) -> None:
    before, ledger = memory(lived.root), coverage.read(lived.root)
    assert table_files(lived.root, "image_sets") > 10
    by_name = {table.table: table for table in lived.maintain()}
    assert by_name["image_sets"].files == table_files(lived.root, "image_sets") == 2
    assert by_name["coverage"].files == table_files(lived.root, "coverage") == 1
    assert memory(lived.root) == before
    assert coverage.read(lived.root).sort_by("increment") == ledger.sort_by("increment")
    assert_equal_to_truth(lived.settings.root, endpoint)


def test_where_nothing_is_to_do_nothing_is_written(lived: Sync) -> None:
    lived.maintain()
    before = files(lived.root)
    lived.maintain()
    assert files(lived.root) == before


def test_after_it_only_what_changes_is_published(lived: Sync, endpoint: Endpoint) -> None:
    lived.maintain()
    endpoint.now += timedelta(hours=1)
    change(endpoint, 9, DICOMPatientSex="F")
    publication = lived.run().publication
    assert publication
    months = {path.rsplit("/", 2)[1] for path in publication.written if "study_month=" in path}
    assert months == {"study_month=2025-02"}
    assert_equal_to_truth(lived.settings.root, endpoint)


def apply_a_change(lived: Sync, endpoint: Endpoint) -> None:
    endpoint.now += timedelta(hours=1)
    change(endpoint, 9, DICOMPatientSex="F")
    store = lived.datastore(lived.settings.datastores[0])
    list(lived.extract(store, lived.due(store)))
    lived.apply()


def test_it_comes_between_a_change_and_its_publication(lived: Sync, endpoint: Endpoint) -> None:
    apply_a_change(lived, endpoint)
    maintenance.maintain(lived.root, MONTH)
    publication = lived.publish()
    assert publication
    assert len({p for p in publication.written if "/history/" in p}) == 1
    assert_equal_to_truth(lived.settings.root, endpoint)


def test_what_was_compacted_and_is_gone_is_published_whole(lived: Sync, endpoint: Endpoint) -> None:
    apply_a_change(lived, endpoint)
    maintenance.compact(lived.root, "image_sets")
    DeltaTable(lived.root.uri_of("image_sets")).vacuum(
        0, dry_run=False, enforce_retention_duration=False
    )
    lived.publish()
    assert_equal_to_truth(lived.settings.root, endpoint)


def test_what_is_older_than_the_retention_goes_unless_it_is_held(lived: Sync) -> None:
    root = lived.root
    newest = image_sets.version(root)
    assert newest
    held = newest - 3
    rows = DeltaTable(root.uri_of("image_sets"), version=held).count()
    orphan = Path(root.path("image_sets", "row_kind=version", "part-killed.parquet"))
    orphan.write_bytes(b"a run that never committed")
    maintenance.maintain(root, MONTH, [held])
    assert orphan.exists(), "it may be a file of a run at work"
    assert _readable(root) >= set(range(newest + 1))

    maintenance.maintain(root, timedelta(0), [held])
    assert not orphan.exists()
    assert DeltaTable(root.uri_of("image_sets"), version=held).to_pyarrow_table().num_rows == rows
    maintenance.maintain(root, timedelta(0))
    assert held not in _readable(root)
    assert len(root.files("image_sets/_delta_log", "")) < 8
    assert Sync(lived.settings).publish()


def _readable(root: Root) -> set[int]:
    newest = image_sets.version(root) or 0
    return {v for v in range(newest + 1) if delta.open_table(root, "image_sets", v)}


def test_a_tag_holds_its_version(lived: Sync, endpoint: Endpoint) -> None:
    lake = cohortlake.open(lived.settings.root)
    lake.tag("paper")
    tagged = lake.publication().image_sets_version
    for hour in range(3):
        endpoint.now += timedelta(hours=1)
        change(endpoint, hour, DICOMPatientSex="O")
        with unpublished():
            lived.run()
    lived.publish()
    at_once = Sync(replace(lived.settings, retention=timedelta(0)))
    at_once.maintain()
    table = DeltaTable(lived.root.uri_of("image_sets"), version=tagged)
    assert table.to_pyarrow_table().num_rows == table.count()
    lived.root.delete("published/_tags/paper.json")
    at_once.maintain()
    assert tagged not in _readable(lived.root)


def test_a_rebuild_that_a_compaction_overtakes_has_each_row_once(
    lived: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, commit, overtaken = memory(lived.root), delta.commit, []

    def compacted_first(root: Root, name: str, *args: object, **kwargs: object) -> DeltaTable:
        if name not in overtaken:
            overtaken.append(name)
            assert maintenance.compact(root, name)
        return commit(root, name, *args, **kwargs)

    monkeypatch.setattr(delta, "commit", compacted_first)
    lived.rebuild()
    assert overtaken == ["image_sets", "coverage"]
    assert memory(lived.root) == before
    ledger = coverage.read(lived.root)["increment"].to_pylist()
    assert len(ledger) == len(set(ledger))


_WRITING = """
import sys
import pyarrow as pa
from cohortlake.storage import delta
from cohortlake.storage.root import Root

root, columns = Root(sys.argv[1]), pa.schema([("n", pa.int64())])

def write(n):
    table = delta.make_table(root, "image_sets", columns)
    delta.commit(root, "image_sets", table, pa.table({"n": [n]}))

n = 0
while not sys.stdin.closed:
    delta.retrying("image_sets", lambda: write(n))
    n += 1
    print(n, flush=True)
    if not sys.stdin.readline():
        break
"""


def test_readers_and_writers_go_on_meanwhile(tmp_path: Path) -> None:
    root = Root(str(tmp_path / "lake"))
    command = (sys.executable, "-c", _WRITING, root.uri)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin and writer.stdout
        writer.stdin.write(b"\n" * 200)
        writer.stdin.flush()
        committed = int(writer.stdout.readline())
        rounds = compacted = 0
        while committed < 140:
            for _ in range(20):
                committed = int(writer.stdout.readline())
            table = DeltaTable(root.uri_of("image_sets"))
            done = maintenance.maintain(root, timedelta(days=7))
            compacted += done[0].compacted
            rounds += 1
            # One that stands on the version from before, and one that opens the table now.
            assert sorted(table.to_pyarrow_table()["n"].to_pylist()) == list(range(table.count()))
            now = DeltaTable(root.uri_of("image_sets")).to_pyarrow_table()["n"].to_pylist()
            assert sorted(now) == list(range(len(now)))
            assert len(now) >= committed
        writer.stdin.close()
        for line in writer.stdout:
            committed = int(line)
        assert writer.wait(60) == 0
    assert rounds > 5
    assert compacted > 60
    assert DeltaTable(root.uri_of("image_sets")).count() == committed


@pytest.mark.parametrize("text", ["6", "0", "-1", "30.5", "month"])
def test_a_retention_shorter_than_a_run_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="COHORTLAKE_RETENTION_DAYS must be a whole number from"):
        Settings.from_env({"COHORTLAKE_RETENTION_DAYS": text})
    assert Settings.from_env({"COHORTLAKE_RETENTION_DAYS": "7"}).retention == timedelta(days=7)


def test_an_empty_lake_has_nothing_to_maintain(lake_settings: Settings) -> None:
    assert Sync(lake_settings).maintain() == ()
