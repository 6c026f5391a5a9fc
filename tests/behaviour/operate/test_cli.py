"""The command line, as a person and as a script use it: its output and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer
from command import command
from emulated import emulated
from typer.testing import Result

from cohortlake.cli.app import app
from emulator import Emulator

Run = Callable[..., Result]
IMAGE_SETS = 60


@pytest.fixture(scope="module")
def hospital() -> Iterator[Emulator]:
    with emulated(synthetic=IMAGE_SETS, seed=4, now="2026-06-01T12:00:00Z") as emulator:
        yield emulator


@pytest.fixture
def run(hospital: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", hospital.datastores[0])
    monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("COHORTLAKE_TPS", "500")
    monkeypatch.setenv("COHORTLAKE_PRIVACY", "limited")

    def call(*arguments: str, **environment: str) -> Result:
        return command(*arguments, **environment, COLUMNS="200")

    return call


def test_the_installed_script_gives_its_code_and_one_line(run: Run, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "cohortlake"
    done = subprocess.run(
        (script, "search", "--equal", "Modality=CT"),
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "cannot be searched for" in done.stderr
    assert "Traceback" not in done.stderr


def test_sync_status_and_rebuild(run: Run, hospital: Emulator) -> None:
    before = run("status")
    assert before.exit_code == 2
    assert before.stdout.splitlines()[0] == "misconfigured"
    assert "there is no lake at" in before.stdout

    first = run("sync")
    assert first.exit_code == 0, first.stderr
    assert f"{IMAGE_SETS} created" in first.stdout
    assert "Traceback" not in first.stderr

    again = json.loads(run("sync", "--json").stdout)
    assert (again["requests"], again["applied"]["rows"]) == (1, 0)

    status = run("status", "--json")
    assert status.exit_code == 0
    found = json.loads(status.stdout)
    assert found["rows"]["image_sets"] == IMAGE_SETS
    assert found["datastores"][0]["gaps"] == []
    assert found["datastores"][0]["complete_until"].startswith("2026-06-01 ")

    assert status.stdout.count("\n") == 1, "a line of a log"
    assert run("status", "--within", "1").exit_code == 1
    assert run("status", "--within", "1000000").exit_code == 0

    rebuilt = run("rebuild", "--json")
    assert json.loads(rebuilt.stdout)["changes"] == {"created": IMAGE_SETS}
    assert json.loads(run("publish", "--json").stdout)["written"] == []

    tables = json.loads(run("maintain", "--json").stdout)
    assert [table["table"] for table in tables] == ["image_sets", "coverage", "increments"]
    assert "files deleted" in run("maintain").stdout


def test_older_versions_are_read_only_when_asked_for_and_counted(run: Run) -> None:
    with emulated(synthetic=20, now="2026-06-01T12:00:00Z", clock="stopped") as emulator:
        place = {
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": emulator.endpoint,
            "COHORTLAKE_DATASTORES": emulator.datastores[0],
        }
        archived = {"storageTier": "ARCHIVE_INSTANT_ACCESS", "DICOMTags": {"DICOMPatientId": "P"}}
        (key,) = emulator.admin.import_summaries([archived])
        for sex in "MFO":
            emulator.admin.advance(seconds=60)
            emulator.admin.update(key, {"DICOMPatientSex": sex})
        emulator.admin.advance(seconds=60)
        plain = run("sync", **place)
        assert "older versions" not in plain.stdout
        assert "GetImageSetMetadata" not in emulator.admin.stats()["requests"]
        assert json.loads(run("sync", "--json", **place).stdout)["filled"] is None

        filled = run("sync", "--fill-versions", **place)
        assert filled.exit_code == 0, filled.stderr
        read = emulator.admin.stats()["requests"]["GetImageSetMetadata"]
        assert f"{read} metadata documents read, which moved" in filled.stdout
        again = json.loads(run("sync", "--fill-versions", "--json", **place).stdout)["filled"]
        assert again["requests"] == again["documents"] == 0
    assert "frequent tier" in run("sync", "--help").stdout


def test_diff_snapshots_and_tag(run: Run, hospital: Emulator, tmp_path: Path) -> None:
    assert run("sync").exit_code == 0
    assert run("tag", "paper-1").stdout == "paper-1 names version 1 of image_sets\n"
    changed = next(row for row in hospital.admin.truth() if row["DICOMTags"].get("DICOMPatientSex"))
    hospital.admin.advance(seconds=3600)
    hospital.admin.update(changed["imageSetId"], {"DICOMPatientSex": "O", "DICOMStudyID": "X"})
    hospital.admin.advance(seconds=60)
    assert run("sync").exit_code == 0

    summary = run("diff", "paper-1", "now").stdout
    assert re.search(r"demographic +│ PatientSex +│ +1 ", summary), summary
    assert "1 image sets changed" in summary
    (row,) = json.loads(run("diff", "paper-1", "now", "--json").stdout)
    assert (row["image_set_id"], row["field"]) == (changed["imageSetId"], "PatientSex")
    before = changed["DICOMTags"]["DICOMPatientSex"]
    assert (row["before"], row["after"]) == (before, "O"), "safe shows no StudyID"
    output = tmp_path / "changes.parquet"
    assert run("diff", "2026-06-01T12:30:00", "now", "--output", str(output)).exit_code == 0
    assert pd.read_parquet(output)["field"].tolist() == ["PatientSex"]

    first, second = json.loads(run("snapshots", "--json").stdout)
    assert (first["tags"], second["tags"], second["n_image_sets"]) == (["paper-1"], [], IMAGE_SETS)
    assert "paper-1" in run("snapshots").stdout


def test_search_gives_a_table_json_and_files(run: Run, hospital: Emulator, tmp_path: Path) -> None:
    (truth,) = list(hospital.admin.truth())[:1]
    series = truth["DICOMTags"]["DICOMSeriesInstanceUID"]
    wanted = ("search", "--equal", f"SeriesInstanceUID={series}")
    readers = {
        "found.parquet": pd.read_parquet,
        "found.csv": pd.read_csv,
        "found.xlsx": pd.read_excel,
    }
    assert truth["imageSetId"] in run(*wanted).stdout
    rows = json.loads(run(*wanted, "--json").stdout)
    assert truth["imageSetId"] in {row["image_set_id"] for row in rows}
    assert run("search", "--equal", "SeriesInstanceUID=1.2.3", "--json").stdout == "[]\n"
    for name, read in readers.items():
        assert run(*wanted, "--output", str(tmp_path / name)).exit_code == 0
        assert truth["imageSetId"] in set(read(tmp_path / name)["image_set_id"])
    between = "--between=updatedAt=2020-01-01..2030-01-01"
    limited = run("search", between, "--sort", "updatedAt:DESC", "--limit", "7", "--json")
    assert len(json.loads(limited.stdout)) == 7


def test_without_the_extra_the_emulator_names_it() -> None:
    # As where aiohttp is not installed.
    code = (
        "import sys; sys.modules['aiohttp'] = None; from cohortlake.cli.app import app; "
        "sys.argv = ['cohortlake', 'emulator', 'serve', '--port', '0']; app()"
    )
    python = (sys.executable, "-c", code)
    done = subprocess.run(python, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "aiohttp is not installed: `pip install 'cohortlake[emulator]'`" in done.stderr


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
        (
            ("search", "--equal", "PatientID=1", "--output", "x.doc"),
            {},
            2,
            "in .csv, .xlsx, .parquet",
        ),
        (("publish",), {}, 2, "cohortlake sync"),
        (("diff", "2026-06-01", "now"), {}, 5, "cohortlake sync"),
        (("diff", "2026-06-01", "now", "--output", "x.doc"), {}, 2, "must end in .csv"),
        (("events",), {}, 2, "COHORTLAKE_EVENTS_QUEUE is not set"),
    ],
)
def test_errors_are_one_line_and_a_code(
    run: Run, arguments: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    done = run(*arguments, **variables)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_help_names_every_command(run: Run) -> None:
    text = run("--help").stdout
    commands = typer.main.get_group(app).commands
    assert len(commands) > 10
    for name in commands:
        assert name in text
        assert run(name, "--help").exit_code == 0
