"""A run of Cohortlake in a process of its own, which may be killed, cramped or misled.

The processes are forked from one that has imported everything, so that a run costs what the run
costs. What becomes of a run is for the caller to judge.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from chaos import steps

_forks = multiprocessing.get_context("forkserver")
_COMMANDS = ("sync", "lake", "privacy")
_forks.set_forkserver_preload([
    "chaos.victim",
    "cohortlake.cli.app",
    *(f"cohortlake.cli.{name}_commands" for name in _COMMANDS),
    "pyarrow.dataset",
])  # fmt: skip
NO_AWS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_JUMP_EVERY_SECONDS = 0.4
_STALL_SECONDS = 3.0


@dataclass(frozen=True)
class Job:
    """What a run is to do, and what is done to it.

    Attributes:
        command: The command line, without `cohortlake`.
        environment: Its settings.
        log: Where its output goes; what it crossed goes beside it.
        fuse: The crossing at which it kills itself, and at which of its crossings.
        stall: The crossing at which it waits for a while, the first time.
        clock_seconds: How far this machine's clock jumps to and fro.
        largest_file_bytes: Beyond which no file of it can grow.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    fuse: tuple[str, int] | None = None
    stall: str | None = None
    clock_seconds: float = 0.0
    largest_file_bytes: int | None = None


class Run:
    """A job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._process: ForkServerProcess = _forks.Process(target=_run, args=(job,))
        self._process.start()

    def kill(self, after_seconds: float) -> None:
        """Kill it after a while, if it still runs then."""
        self._process.join(after_seconds)
        if self._process.is_alive():
            self._process.kill()

    def wait(self, seconds: float = 120) -> int:
        """Return its exit code, -9 where it was killed.

        Raises:
            TimeoutError: It hangs; it is killed then.
        """
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"{self.job.command} hangs; see {self.job.log}")
        return self._process.exitcode

    @property
    def was_killed(self) -> bool:
        """Whether it was killed."""
        return self._process.exitcode == -signal.SIGKILL

    def crossed(self) -> list[str]:
        """Return what it crossed, each once, in order."""
        path = _crossings(self.job)
        return path.read_text().splitlines() if path.exists() else []


def _run(job: Job) -> None:
    from cohortlake.cli.app import app

    _redirect(job.log)
    for name in [n for n in os.environ if n.startswith(("AWS_", "COHORTLAKE_"))]:
        del os.environ[name]
    os.environ.update(job.environment)
    tempfile.tempdir = None  # it is the environment's now
    steps.install(_recorder(job))
    if job.clock_seconds:
        _mislead(job.clock_seconds)
    if job.largest_file_bytes is not None:
        limit = job.largest_file_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["cohortlake", *job.command]
    app()


def _redirect(log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _crossings(job: Job) -> Path:
    return job.log.with_suffix(".crossings")


def _recorder(job: Job) -> steps.Crossed:
    file = os.open(_crossings(job), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    counts = steps.Counts()

    def crossed(crossing: str) -> None:
        count = counts.add(crossing)
        if count == 1:
            os.write(file, f"{crossing}\n".encode())
        if job.stall == crossing and count == 1:
            time.sleep(_STALL_SECONDS)
        if job.fuse == (crossing, count):
            os.kill(os.getpid(), signal.SIGKILL)

    return crossed


def _mislead(seconds: float) -> None:
    """Let this machine's clock jump to and fro, for Python code; files keep the kernel's time."""
    began, true_time = time.monotonic(), time.time

    def offset() -> float:
        is_ahead = int((time.monotonic() - began) / _JUMP_EVERY_SECONDS) % 2 == 0
        return seconds if is_ahead else -seconds

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Misled(datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=offset())

    time.time = lambda: true_time() + offset()
    for module in list(sys.modules.values()):
        if module.__name__ != __name__ and vars(module).get("datetime") is datetime:
            setattr(module, "datetime", Misled)  # noqa: B010 - not every module has one
