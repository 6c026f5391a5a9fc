"""A run on S3 is killed between any two of its writes, and the next run completes its work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos import truth
from chaos.run import Job, Run
from chaos.s3.lake import CONSTANTS, Bucket, Objects, file_rows
from chaos.s3.proxy import FaultProxy
from chaos.s3.servers import MARKS, SERVERS
from cohortlake import Settings, Sync
from emulator import Emulator

PATIENT = "CANARY-ID"
COMMANDS = {
    "tick": ("sync",),
    "publish": ("publish",),
    "reconcile": ("reconcile",),
    "maintain": ("maintain",),
    "erase": ("erase", "--patient", PATIENT, "--yes"),
}


SAMPLE = pytest.param("moto", "tick", False, id="moto-tick-once")
ALL = [
    pytest.param(
        server, work, True, id=f"{server}-{work}", marks=[pytest.mark.chaos, *MARKS[server]]
    )
    for server in SERVERS
    for work in COMMANDS
]


@pytest.mark.parametrize(("bucket", "work", "at_each_write"), [SAMPLE, *ALL], indirect=["bucket"])
def test_a_run_that_is_killed_between_two_writes_is_completed_by_the_next(
    bucket: Bucket, hospital: Emulator, work: str, at_each_write: bool, tmp_path: Path
) -> None:
    kills = Kills(bucket, hospital, work, tmp_path)
    writes = kills.begin()
    chosen = range(writes) if at_each_write else (writes // 2,)
    found = [f"{count} of {writes}: {fault}" for count in chosen for fault in kills.at(count)]
    assert found == []


class Kills:
    """Kills one command after each number of writes.

    Args:
        bucket: Where the lakes are.
        hospital: Their hospital.
        work: The command.
        folder: An empty folder.
    """

    def __init__(self, bucket: Bucket, hospital: Emulator, work: str, folder: Path) -> None:
        self._bucket, self._hospital = bucket, hospital
        self._work, self._folder = work, folder
        self._base: Objects = {}
        self._before: dict[str, list[str]] = {}
        self._after: dict[str, list[str]] = {}

    def begin(self) -> int:
        """Make the lake that each run begins with, and return how many writes a whole run makes."""
        with self._lake("base") as settings:
            # Maintenance needs several commits, or has nothing to do.
            for _ in range(4 if self._work == "maintain" else 1):
                import_patient(self._hospital)
                Sync(settings).run()
            change(self._hospital)
            if self._work == "reconcile":
                self._hospital.admin.delete(min(map(image_set_id, self._hospital.admin.truth())))
            if self._work == "publish":
                sync = Sync(settings)
                store = sync.datastore(settings.datastores[0])
                list(sync.extract(store, sync.due(store)))
                sync.apply()
        self._base = self._bucket.get("base")
        self._before = self._file_rows("base")
        self._bucket.put("whole", self._base)
        with FaultProxy(self._bucket.url).serving() as proxy:
            assert self._start("whole", proxy).wait() == 0
        self._after = self._file_rows("whole")
        return len(proxy.writes)

    def at(self, count: int) -> Iterator[str]:
        """Kill the command after some writes, and yield what is wrong then and afterwards."""
        prefix = f"after-{count}"
        self._bucket.put(prefix, self._base)
        with FaultProxy(self._bucket.url).serving() as proxy:
            run = self._start(prefix, proxy)
            proxy.kill_after(count, lambda: run.kill(0))
            run.wait()
        if not run.was_killed:
            yield "it was not killed"
        for path, rows in self._file_rows(prefix).items():
            if rows not in (self._before.get(path), self._after.get(path)):
                yield f"{path} is neither as before nor as after"
        with self._lake(prefix) as settings:
            self._complete(settings)
            tables = self._bucket.published(prefix, self._folder / prefix)
            erased = self._work == "erase"
            rows = (row for row in self._hospital.admin.truth() if not (erased and is_theirs(row)))
            yield from truth.differences(tables, rows)
            Sync(settings).rebuild()
            rebuilt = self._bucket.published(prefix, self._folder / f"{prefix}-rebuilt")
        yield from truth.different_rows(tables, rebuilt)
        if erased:
            for path, content in self._bucket.get(prefix).items():
                if b"CANARY" in content:
                    yield f"{path} still has the patient"

    def _complete(self, settings: Settings) -> None:
        """Run a tick and then the command again, in this process."""
        Sync(settings).run()
        match self._work:
            case "erase":
                Sync(settings).erase(PATIENT, settings.datastores[0])
            case "maintain":
                Sync(settings).maintain()
            case "reconcile":
                Sync(settings).reconcile()

    @contextmanager
    def _lake(self, prefix: str) -> Iterator[Settings]:
        """Let this process work on a lake while the block lasts."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment(prefix).items():
                patch.setenv(name, value)
            yield Settings.from_env()

    def _start(self, prefix: str, proxy: FaultProxy) -> Run:
        log = self._folder / f"{prefix}.log"
        environment = self._environment(prefix, proxy.url)
        return Run(Job(COMMANDS[self._work], environment, log, constants=CONSTANTS))

    def _environment(self, prefix: str, s3: str = "") -> dict[str, str]:
        return self._bucket.environment(prefix, s3) | {
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": self._hospital.endpoint,
            "COHORTLAKE_DATASTORES": self._hospital.datastores[0],
            "COHORTLAKE_TPS": "1000",
            "COHORTLAKE_PRIVACY": "identified",
        }

    def _file_rows(self, prefix: str) -> dict[str, list[str]]:
        return file_rows(self._bucket.get(prefix, "published/"))


def import_patient(hospital: Emulator) -> None:
    tags = {"DICOMPatientId": PATIENT, "DICOMPatientName": "CANARY^NAME"}
    hospital.admin.import_summaries([{"DICOMTags": tags}])
    hospital.admin.advance(seconds=3600)


def change(hospital: Emulator) -> None:
    """Let some image sets be imported, changed, and moved to another month."""
    _, first, second, *_ = sorted(
        image_set_id(row) for row in hospital.admin.truth() if not is_theirs(row)
    )
    hospital.admin.update(first, {"DICOMPatientSex": "O"})
    hospital.admin.update(second, {"DICOMStudyDate": "20260401"})
    hospital.admin.import_summaries([{"DICOMTags": {"DICOMPatientId": "NEW"}}] * 2)
    hospital.admin.advance(seconds=3600)


def image_set_id(summary: truth.Row) -> str:
    return str(summary["imageSetId"])


def is_theirs(summary: truth.Row) -> bool:
    return summary["DICOMTags"].get("DICOMPatientId") == PATIENT
