"""A hospital and Dagster's UI on this machine, to try things: `make dev`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hospital import REPOSITORY, serving

LOOPBACK = "127.0.0.1"


def main() -> int:
    """Serve both until interrupted."""
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
        with suppress(KeyboardInterrupt):
            done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=False)
            return done.returncode
    return 0


def other_host(arguments: list[str]) -> str | None:
    """Return the address that Dagster is told to listen on, unless it is this machine's own."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", "-h", default=LOOPBACK)
    host: str = parser.parse_known_args(arguments)[0].host
    return None if host in (LOOPBACK, "localhost", "::1") else host


if __name__ == "__main__":
    sys.exit(main())
