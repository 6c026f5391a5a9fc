"""Two runs at once lose no row and write no row twice."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command import process_of
from emulated import emulated

from cohortlake import Settings, Sync, read_table
from cohortlake.history import coverage
from cohortlake.increments import files
from cohortlake.privacy.key_store import KEY_PATH
from cohortlake.storage.root import Root
from emulator import Emulator


@pytest.mark.parametrize(
    "pair", [("sync", "reconcile"), pytest.param(("sync", "sync"), marks=pytest.mark.chaos)]
)
def test_two_runs_at_once(hospital: Emulator, pair: tuple[str, str]) -> None:
    hospital.admin.live(3, seed=1)
    runs = [subprocess.Popen(process_of(name)) for name in pair]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert _published() == _versions(hospital)


def test_of_two_keys_the_first_one_stays(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    keys = [bytes([n]) * 32 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: root.create(KEY_PATH, key), keys))
    kept = root.read(KEY_PATH)
    root.create(KEY_PATH, b"another")
    assert root.read(KEY_PATH) == kept in keys
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["patient-key"]


@pytest.fixture
def hospital(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    with emulated(synthetic=20, seed=5, now="2026-06-01T12:00:00Z", clock="stopped") as emulator:
        monkeypatch.setenv("COHORTLAKE_DATASTORES", emulator.datastores[0])
        monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "lake"))
        monkeypatch.setenv("COHORTLAKE_TPS", "500")
        monkeypatch.setenv("COHORTLAKE_PRIVACY", "limited")
        yield emulator


def _update(hospital: Emulator) -> None:
    """Give the first image set a new version, and let time pass."""
    hospital.admin.update(next(hospital.admin.truth())["imageSetId"], {"DICOMPatientSex": None})
    hospital.admin.advance(seconds=60)


def _versions(hospital: Emulator) -> dict[str, int]:
    return {row["imageSetId"]: row["version"] for row in hospital.admin.truth()}


def _published() -> dict[str, int]:
    frame = read_table(os.environ["COHORTLAKE_ROOT"], "image_sets")
    assert not frame.duplicated(["image_set_id"]).any()
    return dict(zip(frame["image_set_id"], frame["version"], strict=True))


def test_what_is_applied_during_a_rebuild_is_not_lost(
    hospital: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env()
    Sync(settings).run()
    _update(hospital)
    committed, rebuilt = threading.Event(), threading.Event()
    paths, record = files.paths, coverage.record

    def listed_before_the_other_run_commits(root: Root) -> list[str]:
        listed = paths(root)
        if threading.current_thread() is threading.main_thread() and not committed.is_set():
            other.start()
            assert committed.wait(60)
        return listed

    def recorded_after_the_rebuild(*args: Any, **kwargs: Any) -> None:
        if threading.current_thread() is other:
            committed.set()
            assert rebuilt.wait(60)
        record(*args, **kwargs)

    other = threading.Thread(target=Sync(settings).run)
    monkeypatch.setattr(files, "paths", listed_before_the_other_run_commits)
    monkeypatch.setattr(coverage, "record", recorded_after_the_rebuild)
    Sync(settings).rebuild()
    rebuilt.set()
    other.join()
    Sync(settings).apply()
    Sync(settings).publish()
    assert _published() == _versions(hospital)


_KILLED_WHEN_ONE_MONTH_IS_PUBLISHED = """
import os, signal, sys
from cohortlake.cli.app import app
from cohortlake.storage.files import Draft

keep = Draft.keep

def keep_and_die(draft):
    print("writing", flush=True)
    sys.stdin.readline()
    keep(draft)
    os.kill(os.getpid(), signal.SIGKILL)

Draft.keep = keep_and_die
app(["publish"])
"""


def test_a_killed_publisher_leaves_no_older_rows_over_newer_ones(hospital: Emulator) -> None:
    work = Sync(Settings.from_env())
    work.run()
    _update(hospital)
    _extract_and_apply(work)
    command = (sys.executable, "-c", _KILLED_WHEN_ONE_MONTH_IS_PUBLISHED)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as older:
        assert older.stdin and older.stdout
        older.stdout.readline()
        _update(hospital)
        _extract_and_apply(work)
        with subprocess.Popen(process_of("publish")) as newer:
            # It waits for the other one; if it did not, it would be done by then.
            with contextlib.suppress(subprocess.TimeoutExpired):
                newer.wait(4)
            older.stdin.write(b"go on\n")
            older.stdin.close()
            assert newer.wait(60) == 0
    assert _published() == _versions(hospital)


def _extract_and_apply(work: Sync) -> None:
    store = work.datastore(work.settings.datastores[0])
    list(work.extract(store, work.due(store)))
    work.apply()


def test_what_another_run_has_deleted_is_deleted(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.create("published/one.parquet", b"")
    root.delete("published/one.parquet")
    root.delete("published/one.parquet")
    assert not root.exists("published/one.parquet")
