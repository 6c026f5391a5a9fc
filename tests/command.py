"""Runs a `cohortlake` command inside the tests' own process, which is far faster than starting one.

Tests of the process itself (signals, exit codes of a shell, imports) start one with `subprocess`.
"""

from __future__ import annotations

import gc

from typer.testing import CliRunner, Result

from cohortlake.cli.app import app


def command(*arguments: str, **settings: str) -> Result:
    """Run a command under these environment variables besides those that are set."""
    done = CliRunner().invoke(app, arguments, env=settings)
    # A failed run's exception holds the lake's lock; the end of a process would release it.
    done.exc_info = done.exception = None
    gc.collect()
    return done
