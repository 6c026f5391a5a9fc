"""`make dev`, as it is started: who can reach what it serves, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

REPOSITORY = Path(__file__).parents[3]


@contextmanager
def developing(folder: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start it from a copy of the deployment, so that it leaves nothing in the repository."""
    for name in ("scripts", "assets", "pipelines"):
        shutil.copytree(REPOSITORY / name, folder / name)
    for name in ("pyproject.toml", "dagster.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    command = (sys.executable, folder / "scripts/dev.py", "--port", str(port), *arguments)
    with (
        (folder / "err").open("wb") as err,
        subprocess.Popen(
            command,
            env=os.environ | {"DAGSTER_HOME": str(folder)},
            stdout=err,
            stderr=err,
            start_new_session=True,
            # As a shell starts what ends with &, and nohup anything.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                for member in family_of(process):
                    member.kill()


def family_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    started = psutil.Process(process.pid)
    return [started, *started.children(recursive=True)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def reached(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((), signal.SIGINT),
        pytest.param(("--host", "0.0.0.0"), signal.SIGTERM, marks=pytest.mark.chaos),  # noqa: S104
    ],
)
def test_nobody_else_reaches_it_unless_told_so_and_all_of_it_ends_by_a_signal(
    tmp_path: Path, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    port = free_port()
    with developing(tmp_path, port, *arguments) as process:
        until = time.monotonic() + 300
        while not reached(port):
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < until
            time.sleep(0.5)
        family = family_of(process)
        listening = [
            connection.laddr
            for member in family
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        process.send_signal(number)
        _, alive = psutil.wait_procs(family, timeout=30)  # ten seconds, on a machine that is free
        assert not alive
    assert len(listening) >= 2, "the emulator and Dagster"
    reachable = {number for host, number in listening if not host.startswith("127.")}
    assert reachable == ({port} if arguments else set())
    notice = f"notice: Dagster's UI on {arguments[-1]}" if arguments else "notice:"
    assert (notice in (tmp_path / "err").read_text()) == bool(arguments)
