"""Runs a `cohortlake` command inside the tests' own process, which is far faster than starting one.

Tests of the process itself (signals, kills, two runs at once) start one: see `process_of`.
"""

from __future__ import annotations

import gc
import sys

from typer.testing import CliRunner, Result

from cohortlake.cli.app import app
from cohortlake.ingest import partitions

_WITH_PARTITIONS = """
import sys
from datetime import date
from cohortlake.cli.app import app
from cohortlake.ingest import partitions

days = (date.fromisoformat(sys.argv.pop(1)) for _ in range(2))
partitions.FIRST_DAY, partitions.FIRST_MONTH = days
app(prog_name="cohortlake")
"""


def command(*arguments: str, typed: str = "", **settings: str) -> Result:
    """Run a command.

    Args:
        *arguments: Those of `cohortlake`.
        typed: What comes from standard input, which is no terminal.
        **settings: Environment variables, besides those that are set.
    """
    done = CliRunner().invoke(app, arguments, input=typed, env=settings)
    # A failed run's exception holds the lake's lock; the end of a process would release it.
    if done.exception:
        done.exc_info = done.exception = None
        gc.collect()
    return done


def process_of(*arguments: str) -> tuple[str, ...]:
    """Return what starts a command as a process, with the first partitions that are set here."""
    first = (str(partitions.FIRST_DAY), str(partitions.FIRST_MONTH))
    return (sys.executable, "-c", _WITH_PARTITIONS, *first, *arguments)
