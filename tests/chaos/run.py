"""A run of Cohortlake in its own process, which a test may kill, delay or give a wrong clock.

The processes are forked from one that has imported everything, so that no run pays for imports. The
caller decides whether an exit code is right.
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
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from chaos import steps

_forks = multiprocessing.get_context("forkserver")
_COMMANDS = ("sync", "lake", "privacy")
_forks.set_forkserver_preload([
    "chaos.run",
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
_WAIT_SECONDS = 3.0


@dataclass(frozen=True)
class Job:
    """What a run does, and what happens to it.

    Attributes:
        command: The command line, without `cohortlake`.
        environment: Its settings.
        log: Where its output goes. The points that it reached are listed beside it.
        kill_at: The point at which it kills itself, and the how-manyth time.
        wait_at: The point at which it waits for some seconds, the first time.
        clock_seconds: How far the clock of this machine jumps forward and back.
        largest_file_bytes: The largest size of a file that it writes.
        constants: Constants of the library to set, beside those of `steps.SMALL`.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    kill_at: tuple[str, int] | None = None
    wait_at: str | None = None
    clock_seconds: float = 0.0
    largest_file_bytes: int | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)


class Run:
    """A job that runs in a process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._process: ForkServerProcess = _forks.Process(target=_run, args=(job,))
        self._process.start()

    def kill(self, after_seconds: float) -> None:
        """Kill it after some seconds, if it still runs."""
        self._process.join(after_seconds)
        if self._process.is_alive():
            self._process.kill()

    def wait(self, seconds: float = 120) -> int:
        """Wait for it, and return its exit code: -9 if it was killed.

        Raises:
            TimeoutError: It hung, and is killed now.
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

    def reached(self) -> list[str]:
        """Return the points that it came to, each once, in order."""
        path = _points(self.job)
        return path.read_text().splitlines() if path.exists() else []


def _run(job: Job) -> None:
    from cohortlake.cli.app import app

    _redirect(job.log)
    for name in [n for n in os.environ if n.startswith(("AWS_", "COHORTLAKE_"))]:
        del os.environ[name]
    os.environ.update(job.environment)
    tempfile.tempdir = None  # read TMPDIR again
    steps.install(_recorder(job), job.constants)
    if job.clock_seconds:
        _shift_clock(job.clock_seconds)
    if job.largest_file_bytes is not None:
        limit = job.largest_file_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["cohortlake", *job.command]
    app()


def _redirect(log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _points(job: Job) -> Path:
    return job.log.with_suffix(".points")


def _recorder(job: Job) -> steps.OnPoint:
    file = os.open(_points(job), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    counts = steps.Counts()

    def record(point: str) -> None:
        count = counts.add(point)
        if count == 1:
            os.write(file, f"{point}\n".encode())
        if job.wait_at == point and count == 1:
            time.sleep(_WAIT_SECONDS)
        if job.kill_at == (point, count):
            os.kill(os.getpid(), signal.SIGKILL)

    return record


def _shift_clock(seconds: float) -> None:
    """Let the clock of this machine jump forward and back for Python; files keep the true time."""
    began, true_time = time.monotonic(), time.time

    def offset() -> float:
        is_ahead = int((time.monotonic() - began) / _JUMP_EVERY_SECONDS) % 2 == 0
        return seconds if is_ahead else -seconds

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Shifted(datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=offset())

    time.time = lambda: true_time() + offset()
    for module in list(sys.modules.values()):
        if module.__name__ != __name__ and vars(module).get("datetime") is datetime:
            setattr(module, "datetime", Shifted)  # noqa: B010 - not every module has one
