"""Runs `cohortlake` with the arguments given, and prints what it took. See `benchmarks.process`."""

from __future__ import annotations

import sys

from benchmarks.process import measure


def main() -> None:
    """Run the command. The imports belong to it."""
    from cohortlake.cli.app import app

    app(sys.argv[1:], standalone_mode=False)


if __name__ == "__main__":
    measure(main)
