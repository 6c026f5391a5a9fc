"""Start an emulated hospital and Dagster's UI on this machine: `make dev`.

Ctrl-C, SIGTERM or a closed terminal ends it within ten seconds, with all processes that it started.
This also works if the parent process ignores interrupts, as shells do with `make dev &`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hospital import REPOSITORY, serving

LOOPBACK = "127.0.0.1"
_SECONDS_TO_END = 5


def main() -> int:
    """Serve both until a signal comes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Children inherit an ignored signal, but not a handler.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _serve()
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    # A second signal must not interrupt the ending of the children.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve() -> int:
    state = REPOSITORY / "var" / "dev"
    state.mkdir(parents=True, exist_ok=True)
    database = state / "hospital.sqlite"
    grown = () if database.exists() else ("--synthetic", "5000", "--seed", "1")
    with serving("--db", database, *grown) as hospital:
        environment = os.environ | hospital.environment(state / "lake")
        environment["VIRTUAL_ENV"] = sys.prefix  # dg warns if it is not set
        sys.stderr.write(f"emulator at {hospital.endpoint}, lake in {state / 'lake'}\n")
        dagster = Path(sys.executable).parent / "dg"
        command = (dagster, "dev", "--host", LOOPBACK, *sys.argv[1:])
        if host := other_host(sys.argv[1:]):
            sys.stderr.write(
                f"notice: Dagster's UI on {host} has no TLS and no authentication: anybody who "
                "can reach this address can run every job and read every log\n"
            )
        with _group(command, environment) as process:
            return process.wait()


@contextmanager
def _group(
    command: Sequence[str | Path], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in its own group, and end the whole group when the block ends."""
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        with suppress(ProcessLookupError):  # and other processes of the group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def other_host(arguments: list[str]) -> str | None:
    """Return the address that Dagster must listen on, or None if it is a loopback address."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", "-h", default=LOOPBACK)
    host: str = parser.parse_known_args(arguments)[0].host
    return None if host in (LOOPBACK, "localhost", "::1") else host


if __name__ == "__main__":
    sys.exit(main())
