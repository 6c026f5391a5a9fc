"""Files of killed runs are deleted, and a full disk is an error that is explained."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from endpoint import Endpoint

from cohortlake import Settings, Sync, read_table
from cohortlake.errors import RootNotUsable
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_AT_WORK = """
import sys
from cohortlake.storage import engine
from cohortlake.storage.root import Root

root = Root(sys.argv[1])
root.prepare()
drafts = [root.draft(f"{folder}/x.parquet") for folder in ("increments/a", "published/b")]
with engine.connection():
    print("at work", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _at_work(lake: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process in the middle of its work below a root."""
    command = (sys.executable, "-c", _AT_WORK, str(lake))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        yield process


def _prepare_and_connect(lake: Path) -> None:
    Root(str(lake)).prepare()
    with engine.connection():
        pass


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_a_killed_run_left_is_deleted_once_nobody_else_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, spill = tmp_path / "lake", tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setenv("TMPDIR", str(spill))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with _at_work(lake) as killed, _at_work(lake) as living:
        (lake / "image_sets" / "part-0.parquet#1").touch()  # as deltalake has it
        (lake / "increments" / "finished.parquet").touch()
        killed.kill()
        killed.wait()
        _prepare_and_connect(lake)
        assert len([name for name in _files(lake) if name.endswith(".tmp")]) == 4
        assert len(list(spill.iterdir())) == 1, "only the one of the living"
        living.kill()
        living.wait()
    _prepare_and_connect(lake)
    assert [name for name in _files(lake) if not name.endswith(".lock")] == ["finished.parquet"]
    assert list(spill.iterdir()) == []


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond a size fail in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stage", ["extract", "apply", "publish"])
def test_a_full_disk_is_explained_and_healed(
    endpoint: Endpoint, lake_settings: Settings, stage: str
) -> None:
    for number in range(2):  # tables are made, and then added to
        at = endpoint.now.timestamp() - 3600
        endpoint.image_sets.append(
            {"imageSetId": f"{number:032x}", "version": 1, "createdAt": at, "updatedAt": at,
             "DICOMTags": {}}
        )  # fmt: skip
        _run_with_a_full_disk_at(stage, Sync(lake_settings))
        endpoint.now += timedelta(days=1)
    ids = read_table(lake_settings.root, "image_sets")["image_set_id"]
    assert sorted(ids) == [row["imageSetId"] for row in endpoint.image_sets]
    assert not [name for name in _files(Path(lake_settings.root)) if name.endswith(".tmp")]


def _run_with_a_full_disk_at(stage: str, work: Sync) -> None:
    store = work.datastore(work.settings.datastores[0])
    stages = {
        "extract": lambda: list(work.extract(store, work.due(store))),
        "apply": work.apply,
        "publish": work.publish,
    }
    for name, run in stages.items():
        if name == stage:
            with _files_no_larger_than(1500), pytest.raises(RootNotUsable, match="File too large"):
                run()
        run()
