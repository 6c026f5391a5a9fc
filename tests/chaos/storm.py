"""A storm: the runs of one seed, what is done to them, and what is left to see when it is over.

Owns the plan of a seed and its account. What happens in the hospital meanwhile is `world`'s, what
a run suffers is `victim`'s to carry out, and what must hold in the end is `truth`'s.
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
from chaos.victim import NO_AWS, Job, Run
from chaos.world import SETTLE_SECONDS, World, world

_DISK = "96m"
_TRANSIENT, _NOT_WRITABLE = 4, 5
_NOBODY = 2
# Without hindrance: there is nothing to publish yet; nobody to erase; the lake is not complete.
_MAY_END = {"publish": (2,), "erase": (_NOBODY,), "status": (1, 2, 5, 6)}
# What a storm's runs are, with their weights. A sweep of everything heals what ticks have lost, and
# a rebuild makes the version history again: there are storms without either.
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
class Account:
    """What was survived, and what was not.

    Attributes:
        runs: Runs by command.
        kills: Kills by the crossing, or `at a random instant`.
        faults: Injected faults by kind.
        suffered: What else was done, by kind.
        events: What happened in the hospital.
        crossed: Every crossing that any run came by.
        differences: What should not be, each with its seed.
    """

    runs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    suffered: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    crossed: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Add another one's."""
        self.runs += other.runs
        self.kills += other.kills
        self.faults += other.faults
        self.suffered += other.suffered
        self.events += other.events
        self.crossed |= other.crossed
        self.differences += other.differences


def storm(seed: int, folder: Path, kills: int) -> Account:
    """Let a storm pass, and say what it was and what it left.

    Args:
        seed: Of everything that is drawn.
        folder: An empty folder, for the lake and what the runs say.
        kills: Go on until so many runs have been killed.
    """
    with world(seed) as hospital, _small_disk(folder / "disk") as is_small:
        run = _Storm(seed, hospital, folder, is_small=is_small)
        with hospital.living():
            run.rage(kills)
        with suppress(_NotSettled):
            run.settle()
            run.judge()
        if run.account.differences:
            run.save()
        run.account.faults += hospital.faults()
        run.account.suffered[f"index lag of {hospital.lag_seconds:.0f} s"] += 1
        run.account.events += hospital.events
    return run.account


def _patient(summary: dict[str, Any]) -> str:
    return str(summary["DICOMTags"].get("DICOMPatientId") or "").strip(" ")


class _NotSettled(Exception):
    """A run failed although nothing hindered it; there is nothing to judge."""


class _Storm:
    def __init__(self, seed: int, hospital: World, folder: Path, *, is_small: bool) -> None:
        self.account = Account()
        self._seed = seed
        self._chance = random.Random(f"storm {seed}")  # noqa: S311
        self._hospital = hospital
        self._folder = folder
        self._lake = folder / "disk" / "lake"
        self._is_small = is_small
        self._commands = _KINDS[seed % len(_KINDS)]
        self._erased: set[str] = set()
        self._numbers = itertools.count()
        # Each storm goes on in the list of crossings about where the one before it ended.
        first = seed * 7 % len(steps.CROSSINGS)
        self._crossings = itertools.islice(itertools.cycle(steps.CROSSINGS), first, None)
        (folder / "tmp").mkdir()

    def rage(self, kills: int) -> None:
        """Run, and do to the runs whatever can be done, until enough were killed."""
        ordeals = (self._one_killed_at_a_step, self._one_killed, self._two_at_once,
                   self._full_disk, self._file_too_large, self._undisturbed)  # fmt: skip
        weights = (6, 3, 4, 1, 1, 1)
        self._one_killed_at_a_step()
        for ordeal in ordeals:
            ordeal()
        while self.account.kills.total() < kills:
            self._chance.choices(ordeals, weights)[0]()

    def settle(self) -> None:
        """Bring the lake up to date with what is there now, and nothing hinders it."""
        # Beyond the index lag, and into another day: all days of the storm can close.
        self._hospital.pass_days(1.5)
        self._finish_erasures()
        self._must("sync")
        # Before a sweep of everything heals what the ticks have lost.
        for fault in truth.losses(truth.read(self._lake), self._truth()):
            self._blame(f"before the reconciliation, {fault}")
        self._must("reconcile")
        self._hospital.pass_days(1.5)
        self._must("sync")
        if self._must("sync")["applied"]["rows"]:
            self._blame("a run after the last change found something new")

    def judge(self) -> None:
        """Compare, and blame what should not be."""
        tables = truth.read(self._lake)
        faults = truth.differences(tables, self._truth())
        faults += truth.views(self._lake, tables)
        faults += truth.different_rows(tables, truth.read(self._rebuilt()))
        faults += self._findings()
        for fault in faults:
            self._blame(fault)
        for path in self._left_over():
            self._blame(f"{path} was left over")

    def _finish_erasures(self) -> None:
        """Do again what may have ended midway, and forget whom the lake never held."""
        for patient in sorted(self._erased):
            run = self._start("erase", "--patient", patient, "--yes")
            code = self._await(run)
            if code == _NOBODY:
                self._erased.discard(patient)
            elif code:
                self._blame(f"erase exited with {code} in calm weather; see {run.job.log}")

    def _truth(self) -> list[dict[str, Any]]:
        """Return the summaries of all image sets that there are, but of patients erased."""
        return [s for s in self._hospital.truth() if _patient(s) not in self._erased]

    def save(self) -> None:
        """Keep the lake, which would go with its small disk."""
        shutil.copytree(self._lake, self._folder / "lake")

    # What is done to runs

    def _undisturbed(self) -> None:
        self._await(self._start(self._command()))

    def _one_killed(self) -> None:
        self._kill_some_time(self._start(self._command()))

    def _one_killed_at_a_step(self) -> None:
        crossing = next(
            one for one in self._crossings if steps.step_of(one).command in self._commands
        )
        step = steps.step_of(crossing)
        fuse = crossing, self._chance.randint(1, step.often)
        self._await(self._start(step.command, fuse=fuse), crossing)

    def _two_at_once(self) -> None:
        pairs = [pair for pair in _PAIRS if set(pair) <= self._commands.keys()]
        first, second = pair = self._chance.choice(pairs)
        self.account.suffered[" and ".join(pair) + " at once"] += 1
        # The first waits somewhere, so that the second overtakes it.
        one = self._start(first, stall=self._chance.choice(steps.WHERE_RUNS_MEET))
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
            self.account.suffered["full disk: skipped, nothing can be mounted here"] += 1
            return
        ballast = self._folder / "disk" / "ballast"
        left = self._chance.randint(0, 60) * 4096
        taken = max(1, shutil.disk_usage(ballast.parent).free - left)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)
        code = self._await(self._start(self._command()), allowed=(_NOT_WRITABLE,))
        self.account.suffered["full disk"] += code == _NOT_WRITABLE
        ballast.unlink()

    def _file_too_large(self) -> None:
        largest = self._chance.randint(4, 24) * 1024
        run = self._start(self._command(), largest_file_bytes=largest)
        code = self._await(run, allowed=(_NOT_WRITABLE,))
        self.account.suffered["file too large"] += code == _NOT_WRITABLE

    # Runs

    def _command(self) -> str:
        return self._chance.choices(list(self._commands), list(self._commands.values()))[0]

    def _start(self, *arguments: str, lake: Path | None = None, **done_to_it: Any) -> Run:
        command = arguments[0]
        if arguments == ("erase",):
            patient = self._chance.choice(sorted({*map(_patient, self._hospital.truth())} - {""}))
            self._erased.add(patient)
            arguments = ("erase", "--patient", patient, "--yes")
        self.account.runs[command] += 1
        clock = self._chance.choice((0, 0, 90, 5 * 3600, 40 * 86400))
        self.account.suffered["this machine's clock jumped"] += bool(clock)
        log = self._folder / f"{next(self._numbers):03}-{command}.log"
        environment = self._environment(lake or self._lake)
        return Run(Job(arguments, environment, log, clock_seconds=clock, **done_to_it))

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
        """Wait for a run, and blame an end that it should not have."""
        command = run.job.command[0]
        try:
            code = run.wait()
        except TimeoutError as error:
            self._blame(str(error))
            return 1
        self.account.crossed.update(run.crossed())
        if run.was_killed and killed:
            self.account.kills[killed] += 1
        elif code not in (0, _TRANSIENT, *allowed, *_MAY_END.get(command, ())):
            self._blame(f"{command} exited with {code}; see {run.job.log}")
        return code

    def _must(self, command: str, *options: str, lake: Path | None = None) -> dict[str, Any]:
        """Run to a good end, and return what was said of it."""
        run = self._start(command, "--json", *options, lake=lake)
        if (code := run.wait()) not in (0, *_MAY_END.get(command, ())):
            self._blame(f"{command} exited with {code} in calm weather; see {run.job.log}")
            raise _NotSettled
        self.account.crossed.update(run.crossed())
        said: dict[str, Any] = json.loads(run.job.log.read_text())
        return said

    # What is left

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

    def _blame(self, fault: str) -> None:
        self.account.differences.append(f"seed {self._seed}: {fault}")


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Make a folder a small file system of its own, if this user may; say whether it is."""
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
