"""A storm on S3: pairs of runs work on one root at the same time, and S3 fails.

It draws the pairs, the faults and the kills of a seed. Between the pairs the hospital changes. A
reader reads what is published all the time. See `s3_proxy` for the faults, and `truth` for the
comparison at the end.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chaos import truth
from chaos.run import Job, Run
from chaos.s3.lake import CONSTANTS, Bucket, Objects, file_rows
from chaos.s3.proxy import FaultProxy
from chaos.storm import StormResult
from cohortlake import Settings, Sync, read_table
from cohortlake.admin.diagnosis import diagnose
from cohortlake.storage.root import Root
from emulator import Emulator

PAIRS = (
    ("sync", "sync"),
    ("sync", "reconcile"),
    ("sync", "maintain"),
    ("publish", "sync"),
    ("reconcile", "maintain"),
    ("reconcile", "reconcile"),
    ("sync", "rebuild"),
    ("maintain", "maintain"),
)
_LAKE = "lake"
_TRANSIENT = 4
_NOTHING_YET = 2
_FAULT_RATES = (0.0, 0.01, 0.03, 0.1)
_SECONDS = 240


class S3Storm:
    """Disturbs a lake, and compares it with its hospital.

    Args:
        bucket: Where the lake is.
        hospital: Its hospital.
        seed: The seed of everything that is drawn.
        folder: An empty folder.

    Attributes:
        result: What happened, and what was wrong.
    """

    def __init__(self, bucket: Bucket, hospital: Emulator, seed: int, folder: Path) -> None:
        self._bucket, self._hospital, self._folder = bucket, hospital, folder
        self._chance = random.Random(f"storm on S3 {seed}")  # noqa: S311
        self._numbers = itertools.count()
        self.result = StormResult()

    def run(self, rounds: int) -> None:
        """Let pairs of runs work at the same time, so many times."""
        pairs = itertools.islice(itertools.cycle(PAIRS), rounds)
        with self._read_all_the_time():
            for pair in pairs:
                self._change()
                self._two_at_once(*self._chance.sample(pair, 2))

    def compare(self) -> None:
        """Bring the lake up to date without any fault, and compare it with the hospital."""
        self._hospital.admin.advance(days=1.5)
        with self._here(_LAKE) as settings:
            Sync(settings).run()
            for fault in truth.losses(self._tables("before"), self._truth()):
                self._report(f"before the reconciliation, {fault}")
            Sync(settings).reconcile()
            self._hospital.admin.advance(days=1.5)
            Sync(settings).run()
            if Sync(settings).run().applied.rows:
                self._report("a run after the last change found something new")
            tables = self._tables("after")
            for finding in diagnose(Root(settings.root), settings, verify=True).findings:
                self._report(f"the lake is {finding.verdict}: {finding.what}")
        faults = truth.differences(tables, self._truth())
        objects = self._bucket.get(_LAKE)
        kept = {p: c for p, c in objects.items() if p.startswith(("increments/", "keys/"))}
        self._bucket.put("copy", kept)
        with self._here("copy") as settings:
            Sync(settings).rebuild()
        faults += truth.different_rows(tables, self._tables("rebuilt", "copy"))
        for fault in faults:
            self._report(fault)
        if self.result.differences:
            self._save(objects)

    def _save(self, objects: Objects) -> None:
        """Keep the lake beside the output of the runs."""
        for path, content in objects.items():
            file = self._folder / "lake" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def _two_at_once(self, first: str, second: str) -> None:
        self.result.disturbances[f"{first} and {second} at once"] += 1
        with ExitStack() as stack:
            proxies = [
                stack.enter_context(FaultProxy(self._bucket.url).serving()) for _ in range(2)
            ]
            for proxy in proxies:
                proxy.disturb(self._chance.choice(_FAULT_RATES), self._chance.getrandbits(30))
            runs = [self._start(*one) for one in zip((first, second), proxies, strict=True)]
            if self._chance.random() < 0.4:
                killed = self._chance.randrange(2)
                proxies[killed].kill_after(self._chance.randint(0, 40), _kill(runs[killed]))
            for run in runs:
                self._await(run)
            for proxy in proxies:
                self.result.faults += proxy.faults

    def _start(self, command: str, proxy: FaultProxy) -> Run:
        self.result.runs[command] += 1
        log = self._folder / f"{next(self._numbers):03}-{command}.log"
        environment = self._environment(_LAKE, proxy.url)
        return Run(Job((command,), environment, log, constants=CONSTANTS))

    def _await(self, run: Run) -> None:
        command = run.job.command[0]
        code = run.wait(_SECONDS)
        if run.was_killed:
            self.result.kills["between two writes"] += 1
        elif code == _TRANSIENT:
            self.result.disturbances["a run that ended with a transient error"] += 1
        elif code not in ((0, _NOTHING_YET) if command == "publish" else (0,)):
            self._report(f"{command} exited with {code}; see {run.job.log}")

    def _change(self) -> None:
        """Let image sets be imported, changed, moved to another month and deleted."""
        admin, chance = self._hospital.admin, self._chance
        ids = sorted(summary["imageSetId"] for summary in self._truth())
        changed, moved, deleted = chance.sample(ids, 3)
        admin.update(changed, {"DICOMPatientSex": chance.choice("MFO")})
        admin.update(moved, {"DICOMStudyDate": f"2026{chance.randint(2, 5):02}15"})
        admin.delete(deleted)
        patient = {"DICOMPatientId": f"P{chance.getrandbits(3)}"}
        admin.import_summaries([{"DICOMTags": patient}] * 2)
        self.result.changes.update(("updated", "moved", "deleted", "imported", "imported"))
        admin.advance(seconds=chance.choice((1, 600, 7200)))

    @contextmanager
    def _read_all_the_time(self) -> Iterator[None]:
        is_over = threading.Event()
        with ThreadPoolExecutor(1) as pool, self._here(_LAKE) as settings:
            reading = pool.submit(self._read, settings.root, is_over)
            try:
                yield
            finally:
                is_over.set()
                reading.result()

    def _read(self, root: str, is_over: threading.Event) -> None:
        """Read what is published, by the library and by pattern, until the storm is over."""
        while not is_over.wait(0.5):
            published = self._bucket.get(_LAKE, "published/")
            file_rows(published)  # each file is whole
            if "published/_published.json" not in published:
                continue
            for table in truth.TABLES:
                read_table(root, table)
            self.result.disturbances["the published tables were read"] += 1

    @contextmanager
    def _here(self, prefix: str) -> Iterator[Settings]:
        """Let this process work on a lake while the block lasts."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment(prefix).items():
                patch.setenv(name, value)
            yield Settings.from_env()

    def _environment(self, prefix: str, s3: str = "") -> dict[str, str]:
        return self._bucket.environment(prefix, s3) | {
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": self._hospital.endpoint,
            "COHORTLAKE_DATASTORES": self._hospital.datastores[0],
            "COHORTLAKE_TPS": "1000",
            "COHORTLAKE_MAX_DELETED_SHARE": "1",
            "COHORTLAKE_PRIVACY": "identified",
        }

    def _tables(self, name: str, prefix: str = _LAKE) -> dict[str, list[truth.Row]]:
        return self._bucket.published(prefix, self._folder / name)

    def _truth(self) -> list[truth.Row]:
        return list(self._hospital.admin.truth())

    def _report(self, fault: str) -> None:
        self.result.differences.append(fault)


def _kill(run: Run) -> Callable[[], None]:
    return lambda: run.kill(0)
