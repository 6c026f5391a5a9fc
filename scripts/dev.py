"""A hospital and Dagster's UI on this machine, to try things: `make dev`.

Ends within ten seconds by Ctrl-C, SIGTERM or a closed terminal, with all that it started, also
where its parent had it ignore interrupts, as shells do with `make dev &`.
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
    """Serve both until interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What is ignored is inherited by children, and what is handled is not.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        return _serve()
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    # A second one must not keep the children from being ended.
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
        environment["VIRTUAL_ENV"] = sys.prefix  # dg warns where it is not named
        sys.stderr.write(f"emulator at {hospital.endpoint}, lake in {state / 'lake'}\n")
        dagster = Path(sys.executable).parent / "dg"
        command = (dagster, "dev", "--host", LOOPBACK, *sys.argv[1:])
        if host := other_host(sys.argv[1:]):
            sys.stderr.write(
                f"notice: Dagster's UI on {host}, which others may reach: without TLS and without "
                "any authentication, so they can run every job and read every log\n"
            )
        with _group(command, environment) as process:
            return process.wait()


@contextmanager
def _group(
    command: Sequence[str | Path], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a group of its own, and end all of the group with the block."""
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        with suppress(ProcessLookupError):  # and whatever it left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def other_host(arguments: list[str]) -> str | None:
    """Return the address that Dagster is told to listen on, unless it is this machine's own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", "-h", default=LOOPBACK)
    host: str = parser.parse_known_args(arguments)[0].host
    return None if host in (LOOPBACK, "localhost", "::1") else host


if __name__ == "__main__":
    sys.exit(main())
