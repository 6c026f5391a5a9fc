"""Maintenance and erasure are killed before and after each step, and then run again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from chaos import steps
from chaos.run import NO_AWS, Job, Run
from cohortlake import Settings, Sync, read_table
from cohortlake.ingest import partitions
from emulator import Emulator, running

PATIENT = "CANARY-ID"
OF_UPKEEP = [
    pytest.param(
        step,
        when,
        count,
        id=f"{when} {step.name} {count}",
        # Before a step is mostly as after the one before it.
        marks=[pytest.mark.chaos] if count > 1 or when == "before" else [],
    )
    for step in steps.STEPS
    if step.command in ("maintain", "erase")
    for count in range(1, step.often + 1)
    for when in ("before", "after")
]


@pytest.fixture(scope="module")
def hospital() -> Iterator[Emulator]:
    with running(synthetic=12, seed=3, now="2026-06-01T12:00:00Z", clock="stopped") as emulator:
        yield emulator


@pytest.fixture(scope="module")
def lived(hospital: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the patient, swept until a sweep finds nothing new."""
    lake = tmp_path_factory.mktemp("lived") / "lake"
    tags = {"DICOMPatientId": PATIENT, "DICOMPatientName": "CANARY^NAME"}
    theirs = hospital.admin.import_summaries([{"DICOMTags": tags}] * 3)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(hospital, lake).items():
            patch.setenv(name, value)
        shorten(patch)
        sync = Sync(Settings.from_env())
        for image_set_id in theirs:
            hospital.admin.advance(seconds=3600)
            hospital.admin.update(image_set_id, {"DICOMStudyID": None})
            hospital.admin.advance(seconds=60)
            sync.run()
        sync.reconcile()
        hospital.admin.advance(seconds=3600)
        sync.reconcile()
    return lake


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Begin with recent days and months, so that there are fewer files."""
    patch.setattr(partitions, "FIRST_MONTH", date(2026, 3, 1))
    patch.setattr(partitions, "FIRST_DAY", date(2026, 5, 25))


def environment(hospital: Emulator, lake: Path) -> dict[str, str]:
    return NO_AWS | {
        "AWS_ENDPOINT_URL_MEDICAL_IMAGING": hospital.endpoint,
        "COHORTLAKE_DATASTORES": hospital.datastores[0],
        "COHORTLAKE_ROOT": str(lake),
        "COHORTLAKE_TPS": "2000",
        "COHORTLAKE_PRIVACY": "identified",
    }


def ids(hospital: Emulator) -> set[str]:
    return {row["imageSetId"] for row in hospital.admin.truth()}


def of_others(hospital: Emulator) -> set[str]:
    rows = hospital.admin.truth()
    return {r["imageSetId"] for r in rows if r["DICOMTags"].get("DICOMPatientId") != PATIENT}


COMMANDS = {"maintain": ("maintain",), "erase": ("erase", "--patient", PATIENT, "--yes")}


def do(sync: Sync, command: str) -> None:
    """Do what a command does, without another process."""
    if command == "erase":
        sync.erase(PATIENT, sync.settings.datastores[0])
    else:
        sync.maintain()


@pytest.mark.parametrize(("step", "when", "count"), OF_UPKEEP)
def test_a_killed_command_is_completed_by_running_it_again(
    step: steps.Step,
    when: str,
    count: int,
    hospital: Emulator,
    lived: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(lived, lake)
    settings = environment(hospital, lake)
    command, kill_at = COMMANDS[step.command], (f"{when} {step.name}", count)
    killed = Run(Job(command, settings, tmp_path / "killed.log", kill_at=kill_at))
    killed.wait()
    assert killed.was_killed
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    shorten(monkeypatch)
    # A run in between works, and brings no erased patient back.
    Sync(Settings.from_env()).run()
    do(Sync(Settings.from_env()), step.command)
    expected = of_others(hospital) if step.command == "erase" else ids(hospital)
    assert set(read_table(str(lake), "image_sets")["image_set_id"]) == expected
    Sync(Settings.from_env()).rebuild()
    assert set(read_table(str(lake), "image_sets")["image_set_id"]) == expected
    if step.command == "erase":
        everything = b"".join(p.read_bytes() for p in lake.rglob("*") if p.is_file())
        assert b"CANARY" not in everything
