"""A storm: runs with faults and kills, and a comparison when they are over.

It draws the runs of a seed and what happens to each of them. See `hospital` for the changes of the
data store, `run` for one process, and `truth` for the comparison.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import steps, truth
from chaos.hospital import SETTLE_SECONDS, ChangingHospital, serve
from chaos.run import NO_AWS, Job, Run

_DISK = "96m"
_TRANSIENT, _NOT_WRITABLE = 4, 5
_NOBODY = 2
# Exit codes without any fault: nothing to publish yet, nobody to erase, the lake is not complete.
_MAY_END = {"publish": (2,), "erase": (_NOBODY,), "status": (1, 2, 5, 6)}
# The commands of a storm, with their weights. A full sweep finds what ticks have missed, and a
# rebuild repairs the version history, so some storms have neither.
_KINDS = (
    {"sync": 6, "publish": 1, "maintain": 2},
    {"sync": 6, "reconcile": 3, "publish": 1, "maintain": 1, "erase": 1},
    {"sync": 6, "reconcile": 3, "publish": 1, "rebuild": 2, "maintain": 2, "erase": 2},
)
_PAIRS = (
    ("sync", "sync"),
    ("sync", "publish"),
    ("publish", "sync"),
    ("sync", "reconcile"),
    ("reconcile", "sync"),
    ("reconcile", "reconcile"),
    ("rebuild", "sync"),
    ("sync", "rebuild"),
    ("maintain", "sync"),
    ("sync", "maintain"),
    ("publish", "maintain"),
    ("rebuild", "maintain"),
    ("maintain", "rebuild"),
    ("sync", "erase"),
    ("erase", "reconcile"),
)


@dataclass
class StormResult:
    """What happened in a storm, and what was wrong after it.

    Attributes:
        runs: Runs by command.
        kills: Kills by point, or `at a random instant`.
        faults: Injected faults by kind.
        disturbances: What else was done to the runs, by kind.
        changes: Changes in the hospital, by kind.
        reached: Every point that a run came to.
        differences: What was wrong, each with its seed.
    """

    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    def add(self, other: StormResult) -> None:
        """Add the counts of another storm."""
        self.runs += other.runs
        self.kills += other.kills
        self.faults += other.faults
        self.disturbances += other.disturbances
        self.changes += other.changes
        self.reached |= other.reached
        self.differences += other.differences


def run_storm(seed: int, folder: Path, kills: int) -> StormResult:
    """Run a storm, and return what happened and what was wrong after it.

    Args:
        seed: The seed of everything that is drawn.
        folder: An empty folder, for the lake and the output of the runs.
        kills: The storm ends when so many runs have been killed.
    """
    with serve(seed) as hospital, _small_disk(folder / "disk") as is_small:
        storm = _Storm(seed, hospital, folder, is_small=is_small)
        with hospital.changing():
            storm.run(kills)
        with suppress(_CannotCatchUp):
            storm.catch_up()
            storm.compare()
        if storm.result.differences:
            storm.save()
        storm.result.faults += hospital.faults()
        storm.result.disturbances[f"index lag of {hospital.lag_seconds:.0f} s"] += 1
        storm.result.changes += hospital.changes
    return storm.result


def _patient(summary: dict[str, Any]) -> str:
    return str(summary["DICOMTags"].get("DICOMPatientId") or "").strip(" ")


class _CannotCatchUp(Exception):
    """A run failed without any fault, so there is nothing to compare."""


class _Storm:
    def __init__(
        self, seed: int, hospital: ChangingHospital, folder: Path, *, is_small: bool
    ) -> None:
        self.result = StormResult()
        self._seed = seed
        self._chance = random.Random(f"storm {seed}")  # noqa: S311
        self._hospital = hospital
        self._folder = folder
        self._lake = folder / "disk" / "lake"
        self._is_small = is_small
        self._commands = _KINDS[seed % len(_KINDS)]
        self._erased: set[str] = set()
        self._numbers = itertools.count()
        # Each storm continues in the list of points about where the one before it ended.
        first = seed * 7 % len(steps.POINTS)
        self._points = itertools.islice(itertools.cycle(steps.POINTS), first, None)
        (folder / "tmp").mkdir()

    def run(self, kills: int) -> None:
        """Start runs and disturb them in each possible way, until enough were killed."""
        disturbed = (self._one_killed_at_a_step, self._one_killed, self._two_at_once,
                     self._full_disk, self._file_too_large, self._undisturbed)  # fmt: skip
        weights = (6, 3, 4, 1, 1, 1)
        self._one_killed_at_a_step()
        for disturbed_run in disturbed:
            disturbed_run()
        while self.result.kills.total() < kills:
            self._chance.choices(disturbed, weights)[0]()

    def catch_up(self) -> None:
        """Bring the lake up to date, without any fault."""
        # Later than the index lag, and on another day, so that all days of the storm can close.
        self._hospital.pass_days(1.5)
        self._finish_erasures()
        self._must("sync")
        # Now, because a full sweep finds what the ticks have missed.
        for fault in truth.losses(truth.read(self._lake), self._truth()):
            self._report(f"before the reconciliation, {fault}")
        self._must("reconcile")
        self._hospital.pass_days(1.5)
        self._must("sync")
        if self._must("sync")["applied"]["rows"]:
            self._report("a run after the last change found something new")

    def compare(self) -> None:
        """Compare the lake with the data store and with a rebuilt lake."""
        tables = truth.read(self._lake)
        faults = truth.differences(tables, self._truth())
        faults += truth.views(self._lake, tables)
        faults += truth.different_rows(tables, truth.read(self._rebuilt()))
        faults += self._findings()
        for fault in faults:
            self._report(fault)
        for path in self._left_over():
            self._report(f"{path} was left over")

    def _finish_erasures(self) -> None:
        """Repeat each erasure, as it may have been killed, and drop patients the lake never had."""
        for patient in sorted(self._erased):
            run = self._start("erase", "--patient", patient, "--yes")
            code = self._await(run)
            if code == _NOBODY:
                self._erased.discard(patient)
            elif code:
                self._report(f"erase exited with {code} without any fault; see {run.job.log}")

    def _truth(self) -> list[dict[str, Any]]:
        """Return the summaries of all image sets, except those of erased patients."""
        return [s for s in self._hospital.truth() if _patient(s) not in self._erased]

    def save(self) -> None:
        """Copy the lake, because its small disk is about to be unmounted."""
        shutil.copytree(self._lake, self._folder / "lake")

    # Disturbed runs

    def _undisturbed(self) -> None:
        self._await(self._start(self._command()))

    def _one_killed(self) -> None:
        self._kill_some_time(self._start(self._command()))

    def _one_killed_at_a_step(self) -> None:
        point = next(one for one in self._points if steps.step_of(one).command in self._commands)
        step = steps.step_of(point)
        kill_at = point, self._chance.randint(1, step.often)
        self._await(self._start(step.command, kill_at=kill_at), point)

    def _two_at_once(self) -> None:
        pairs = [pair for pair in _PAIRS if set(pair) <= self._commands.keys()]
        first, second = pair = self._chance.choice(pairs)
        self.result.disturbances[" and ".join(pair) + " at once"] += 1
        # The first waits at some point, so that the second overtakes it.
        one = self._start(first, wait_at=self._chance.choice(steps.WHERE_RUNS_MEET))
        other = self._start(second)
        if self._chance.random() < 0.5:
            self._kill_some_time(one, within=6)
        else:
            self._await(one)
        self._await(other)

    def _kill_some_time(self, run: Run, within: float = 2.5) -> None:
        run.kill(self._chance.uniform(0, within))
        self._await(run, "at a random instant")

    def _full_disk(self) -> None:
        if not self._is_small:
            self.result.disturbances["full disk: skipped, nothing can be mounted here"] += 1
            return
        filler = self._folder / "disk" / "filler"
        left = self._chance.randint(0, 60) * 4096
        taken = max(1, shutil.disk_usage(filler.parent).free - left)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)
        code = self._await(self._start(self._command()), allowed=(_NOT_WRITABLE,))
        self.result.disturbances["full disk"] += code == _NOT_WRITABLE
        filler.unlink()

    def _file_too_large(self) -> None:
        largest = self._chance.randint(4, 24) * 1024
        run = self._start(self._command(), largest_file_bytes=largest)
        code = self._await(run, allowed=(_NOT_WRITABLE,))
        self.result.disturbances["file too large"] += code == _NOT_WRITABLE

    # Runs

    def _command(self) -> str:
        return self._chance.choices(list(self._commands), list(self._commands.values()))[0]

    def _start(self, *arguments: str, lake: Path | None = None, **disturbance: Any) -> Run:
        command = arguments[0]
        if arguments == ("erase",):
            patient = self._chance.choice(sorted({*map(_patient, self._hospital.truth())} - {""}))
            self._erased.add(patient)
            arguments = ("erase", "--patient", patient, "--yes")
        self.result.runs[command] += 1
        clock = self._chance.choice((0, 0, 90, 5 * 3600, 40 * 86400))
        self.result.disturbances["this machine's clock jumped"] += bool(clock)
        log = self._folder / f"{next(self._numbers):03}-{command}.log"
        environment = self._environment(lake or self._lake)
        return Run(Job(arguments, environment, log, clock_seconds=clock, **disturbance))

    def _environment(self, lake: Path) -> dict[str, str]:
        return NO_AWS | {
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": self._hospital.endpoint,
            "COHORTLAKE_DATASTORES": self._hospital.datastore_id,
            "COHORTLAKE_ROOT": str(lake),
            "COHORTLAKE_TPS": "2000",
            "COHORTLAKE_WORKERS": "6",
            "COHORTLAKE_MAX_DELETED_SHARE": "1",
            "COHORTLAKE_SETTLE_SECONDS": str(SETTLE_SECONDS),
            "COHORTLAKE_LOOKBACK_SECONDS": "600",
            "COHORTLAKE_PRIVACY": "identified",
            "TMPDIR": str(self._folder / "tmp"),
        }

    def _await(self, run: Run, killed: str = "", allowed: tuple[int, ...] = ()) -> int:
        """Wait for a run, and report an exit code that it should not have."""
        command = run.job.command[0]
        try:
            code = run.wait()
        except TimeoutError as error:
            self._report(str(error))
            return 1
        self.result.reached.update(run.reached())
        if run.was_killed and killed:
            self.result.kills[killed] += 1
        elif code not in (0, _TRANSIENT, *allowed, *_MAY_END.get(command, ())):
            self._report(f"{command} exited with {code}; see {run.job.log}")
        return code

    def _must(self, command: str, *options: str, lake: Path | None = None) -> dict[str, Any]:
        """Run a command that has to succeed, and return what it printed as JSON."""
        run = self._start(command, "--json", *options, lake=lake)
        if (code := run.wait()) not in (0, *_MAY_END.get(command, ())):
            self._report(f"{command} exited with {code} without any fault; see {run.job.log}")
            raise _CannotCatchUp
        self.result.reached.update(run.reached())
        said: dict[str, Any] = json.loads(run.job.log.read_text())
        return said

    # After the storm

    def _rebuilt(self) -> Path:
        copy = self._folder / "copy"
        for name in ("increments", "keys"):
            shutil.copytree(self._lake / name, copy / name)
        self._must("rebuild", lake=copy)
        return copy

    def _findings(self) -> Iterator[str]:
        status = self._must("status", "--verify")
        for finding in status["findings"]:
            yield f"the lake is {finding['verdict']}: {finding['what']}"

    def _left_over(self) -> Iterator[Path]:
        for path in self._lake.rglob("*"):
            if path.is_file() and ("tmp" in path.name or "#" in path.name):
                yield path
        yield from (self._folder / "tmp").iterdir()

    def _report(self, fault: str) -> None:
        self.result.differences.append(f"seed {self._seed}: {fault}")


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at a folder if this user may, and give whether it is mounted."""
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder))
    try:
        is_mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(("umount", "--lazy", str(folder)), check=True)
