"""Running what is measured in a process of its own, and measuring it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


def peak_mb() -> int:
    """Return the highest resident memory of this process, in MB.

    It does not use getrusage, because there a child process starts with the peak of its parent.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@dataclass(frozen=True)
class Measured:
    """What some work took.

    Attributes:
        seconds: From its start to its end.
        cpu_seconds: Processor time of all threads of the process.
        peak_mb: Highest resident memory of the process.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} / {self.cpu_seconds:.2f} / {self.peak_mb:,}"


class OutOfTime(Exception):
    """The time of the whole run is over. A process was killed, or not started."""


class Deadline:
    """The end of a whole run.

    Args:
        minutes: In how many minutes it is; None for no end.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self._at = None if minutes is None else time.monotonic() + 60 * minutes

    def left(self) -> float | None:
        """Return the seconds that are left, or None for no end.

        Raises:
            OutOfTime: None are.
        """
        if self._at is None:
            return None
        if (seconds := self._at - time.monotonic()) <= 0:
            raise OutOfTime
        return seconds


def measure(work: Callable[[], object]) -> None:
    """Do some work in this process, and print what it took as the last line.

    The start of Python and what was imported before are not counted.
    """
    began, cpu = time.perf_counter(), time.process_time()
    work()
    done = Measured(time.perf_counter() - began, time.process_time() - cpu, peak_mb())
    print(json.dumps(asdict(done)), flush=True)


def run_part(
    command: Sequence[str | Path], environment: Mapping[str, str], deadline: Deadline
) -> Measured:
    """Run a process that ends by `measure`; return what it printed.

    Raises:
        OutOfTime: It did not end before the deadline.
    """
    return Measured(**json.loads(_run(command, environment, deadline).splitlines()[-1]))


def run_whole(
    command: Sequence[str | Path], environment: Mapping[str, str], deadline: Deadline
) -> Measured:
    """Run a process that ends by `measure`; return what all of it took, its start included.

    No other child of this process may end meanwhile.

    Raises:
        OutOfTime: It did not end before the deadline.
    """
    began, cpu = time.perf_counter(), _cpu_of_children()
    inside = run_part(command, environment, deadline)
    return Measured(time.perf_counter() - began, _cpu_of_children() - cpu, inside.peak_mb)


def load() -> str:
    """Return how many processes want to run on this machine, as the mean of a minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _run(command: Sequence[str | Path], environment: Mapping[str, str], deadline: Deadline) -> str:
    try:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=deadline.left(),
        )
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    return done.stdout


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
