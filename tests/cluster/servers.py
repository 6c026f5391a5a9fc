"""Real servers on free ports of the loopback address, each with its own folder.

PostgreSQL refuses to run as root, so for root it runs as the user that its package made. Every
process is started here and ended by its process id, also if a test fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
_SECONDS_TO_START = 60
_SECONDS_TO_END = 20


def missing() -> str | None:
    """Return what this machine lacks, or None."""
    lacking = [] if _postgres() else ["PostgreSQL"]
    lacking += [] if shutil.which("redis-server") else ["Redis"]
    lacking += [] if (Path(sys.executable).parent / "celery").exists() else ["Celery"]
    return f"{' and '.join(lacking)} cannot be found" if lacking else None


def _postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, of the newest release there is."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def postgres(log: Path) -> Iterator[int]:
    """Serve an empty PostgreSQL, and give its port. The user `dagster` owns all databases."""
    programs = _postgres()
    assert programs
    is_root = os.geteuid() == 0
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
    prefix = as_user if is_root else ()
    with _own_folder("postgres" if is_root else None) as folder:
        data = folder / "data"
        subprocess.run(
            [*prefix, programs / "initdb", "-D", data, "-U", "dagster", "--auth=trust", "-N"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        port = free_port()
        command = [
            *prefix, programs / "postgres", "-D", data, "-h", LOOPBACK, "-p", str(port),
            "-k", folder, "-c", "fsync=off",
        ]  # fmt: skip
        # SIGINT ends the sessions of others; SIGTERM would wait for them.
        with running(command, log, ends_by=signal.SIGINT) as process:
            until(lambda: listens(port), "PostgreSQL starts", process)
            yield port


@contextmanager
def redis(log: Path) -> Iterator[int]:
    """Serve an empty Redis, and give its port."""
    port = free_port()
    with _own_folder(None) as folder:
        command = ["redis-server", "--port", str(port), "--bind", LOOPBACK, "--dir", folder]
        with running([*command, "--save", "", "--appendonly", "no"], log) as process:
            until(lambda: listens(port), "Redis starts", process)
            yield port


@contextmanager
def s3(log: Path) -> Iterator[str]:
    """Serve S3 by moto, and give its URL."""
    with _announced([sys.executable, "-m", "cluster.s3_server"], log) as line:
        yield line.strip()


@contextmanager
def emulator(log: Path, *options: str) -> Iterator[tuple[str, list[str]]]:
    """Serve an emulated account, and give its URL and its data stores."""
    command = [sys.executable, "-m", "emulator", "serve", *options]
    with _announced(command, log) as line:
        served = json.loads(line)
        yield served["endpoint"], served["datastores"]


@contextmanager
def _announced(command: Sequence[str], log: Path) -> Iterator[str]:
    """Start a program, and give the first line that it prints."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")}
    with running(command, log, environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        with process.stdout:
            yield process.stdout.readline().decode()


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    ends_by: signal.Signals = signal.SIGTERM,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own until the block ends."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(ends_by)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        kill_group(process.pid)
        process.wait()


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_group(pid: int) -> None:
    """Kill a process that leads a session, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether somebody accepts connections at a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def until(
    holds, what: str, process: subprocess.Popen[bytes] | None = None,
    seconds: float = _SECONDS_TO_START,
) -> float:  # fmt: skip
    """Wait until a condition holds, and return the seconds that it took.

    Raises:
        TimeoutError: It does not hold in time, or the process that it is about ended.
    """
    began = time.monotonic()
    while not holds():
        if process and process.poll() is not None:
            raise TimeoutError(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.2)
    return time.monotonic() - began


@contextmanager
def _own_folder(owner: str | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cohortlake-cluster-"))
    try:
        if owner:
            shutil.chown(folder, owner, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
