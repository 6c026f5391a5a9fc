"""Two runs at once: neither loses anything, and nothing is in the lake twice."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cohortlake import read_table
from cohortlake.lake.publish import KEY_PATH
from cohortlake.lake.root import Root
from emulator import running

COHORTLAKE = Path(sys.executable).parent / "cohortlake"


def test_two_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(synthetic=900, seed=5, now="2026-06-01T12:00:00Z", clock="stopped") as emulator:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        monkeypatch.setenv("COHORTLAKE_DATASTORES", emulator.datastores[0])
        monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "lake"))
        monkeypatch.setenv("COHORTLAKE_TPS", "500")
        for pair in (("sync", "sync"), ("sync", "reconcile")):
            runs = [subprocess.Popen((COHORTLAKE, command)) for command in pair]
            assert [run.wait(timeout=120) for run in runs] == [0, 0]
            frame = read_table(os.environ["COHORTLAKE_ROOT"], "image_sets")
            truth = {row["imageSetId"]: row["version"] for row in emulator.admin.truth()}
            assert len(frame) == len(truth)
            assert dict(zip(frame["image_set_id"], frame["version"], strict=True)) == truth
            emulator.admin.live(3, seed=1)


def test_of_two_keys_the_first_one_stays(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    keys = [bytes([n]) * 32 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: root.create(KEY_PATH, key), keys))
    kept = root.read(KEY_PATH)
    root.create(KEY_PATH, b"another")
    assert root.read(KEY_PATH) == kept in keys
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["patient-key"]
