"""A hospital and Dagster's UI on this machine, to try things: `make dev`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hospital import REPOSITORY, serving


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
        command = (dagster, "dev", "--host", "127.0.0.1", *sys.argv[1:])
        with suppress(KeyboardInterrupt):
            done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=False)
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
