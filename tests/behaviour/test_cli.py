"""The command line, as a person and as a script use it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from emulator import Emulator, running

COHORTLAKE = Path(sys.executable).parent / "cohortlake"


@pytest.fixture(scope="module")
def hospital() -> Iterator[Emulator]:
    with running(synthetic=600, seed=4, now="2026-06-01T12:00:00Z") as emulator:
        yield emulator


@pytest.fixture
def run(hospital: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", hospital.datastores[0])
    monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("COHORTLAKE_TPS", "500")

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (COHORTLAKE, *arguments),
            env=os.environ | environment | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_sync_status_and_rebuild(run, hospital: Emulator) -> None:  # type: ignore[no-untyped-def]
    before = run("status")
    assert before.returncode == 1
    assert "nothing proven" in before.stdout

    first = run("sync")
    assert first.returncode == 0, first.stderr
    assert "600 created" in first.stdout
    assert "Traceback" not in first.stderr

    again = json.loads(run("sync", "--json").stdout)
    assert (again["requests"], again["applied"]["rows"]) == (1, 0)

    status = run("status", "--json")
    assert status.returncode == 0
    found = json.loads(status.stdout)
    assert found["rows"]["image_sets"] == 600
    assert found["datastores"][0]["gaps"] == []
    assert found["datastores"][0]["complete_until"].startswith("2026-06-01 ")

    rebuilt = run("rebuild", "--json")
    assert json.loads(rebuilt.stdout)["changes"] == {"created": 600}
    assert json.loads(run("publish", "--json").stdout)["written"] == []


def test_search_gives_a_table_json_parquet_and_csv(  # type: ignore[no-untyped-def]
    run, hospital: Emulator, tmp_path: Path
) -> None:
    (truth,) = list(hospital.admin.truth())[:1]
    series = truth["DICOMTags"]["DICOMSeriesInstanceUID"]
    wanted = ("search", "--equal", f"SeriesInstanceUID={series}")
    assert truth["imageSetId"] in run(*wanted).stdout
    lines = run(*wanted, "--json").stdout.splitlines()
    assert truth["imageSetId"] in {json.loads(line)["image_set_id"] for line in lines}
    for name, read in (("found.parquet", pd.read_parquet), ("found.csv", pd.read_csv)):
        assert run(*wanted, "--output", str(tmp_path / name)).returncode == 0
        assert truth["imageSetId"] in set(read(tmp_path / name)["image_set_id"])
    between = "--between=updatedAt=2020-01-01..2030-01-01"
    limited = run("search", between, "--sort", "updatedAt:DESC", "--limit", "7", "--json")
    assert len(limited.stdout.splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (("sync",), {"COHORTLAKE_DATASTORES": ""}, 2, "COHORTLAKE_DATASTORES is not set"),
        (("sync",), {"COHORTLAKE_TPS": "0"}, 2, "COHORTLAKE_TPS"),
        (("sync",), {"AWS_ACCESS_KEY_ID": ""}, 3, "credentials"),
        (("sync", "--datastore", "f" * 32), {}, 3, "no data store"),
        (("sync",), {"COHORTLAKE_ROOT": "/proc/nowhere"}, 5, "COHORTLAKE_ROOT"),
        (("search", "--equal", "Modality=CT"), {}, 2, "cannot be searched for"),
        (("search",), {}, 2, "one or two filters"),
        (("search", "--equal", "PatientID=1", "--output", "x.xlsx"), {}, 2, ".parquet or .csv"),
        (("publish",), {}, 2, "cohortlake sync"),
        (("events",), {}, 2, "COHORTLAKE_EVENTS_QUEUE is not set"),
    ],
)
def test_errors_are_one_line_and_a_code(  # type: ignore[no-untyped-def]
    run, arguments: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    done = run(*arguments, **variables)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_help_names_every_command(run) -> None:  # type: ignore[no-untyped-def]
    text = run("--help").stdout
    commands = ("sync", "reconcile", "events", "status", "search", "rebuild", "publish")
    for command in (*commands, "cohort", "emulator"):
        assert command in text
        assert run(command, "--help").returncode == 0
