"""What the commands share: the settings, the output, and how errors are printed."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console, ConsoleDimensions
from rich.table import Column, Table
from rich.text import Text

from cohortlake.cli.process import protect_process
from cohortlake.cli.signals import Interrupted, Watch, watched
from cohortlake.errors import CohortlakeError, SettingError, Stopped, is_panic, without_text
from cohortlake.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h

_WIDEST = 1_000_000


class _Uncut(Console):
    """A console that cuts and breaks lines only where there is a terminal to fit them to."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """The terminal's size; without one, wider than any line."""
        fitting = super().size
        return fitting if self.is_terminal else ConsoleDimensions(_WIDEST, fitting.height)


# What is printed holds names of files and values, in which brackets are no markup.
err = _Uncut(stderr=True, markup=False, emoji=False)
out = _Uncut(markup=False, emoji=False)


def explained(command: Callable[P, T]) -> Callable[P, T]:
    """Print an error as one line and exit with its code: of one that is not ours, not its text.

    So does a signal, see `signals`.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        protect_process()
        watch = Watch(_print_last_words)
        try:
            with watched(watch):
                done = command(*args, **kwargs)
            if watch.received:
                _print_error(f"{watch.name} came when all was done")
                raise typer.Exit(watch.exit_code)
            return done
        except Interrupted:
            _print_error(f"stopped by {watch.name}: {Stopped()}")
            raise typer.Exit(watch.exit_code) from None
        except Stopped as error:
            _print_error(f"stopped by {watch.name}: {error}")
            raise typer.Exit(watch.exit_code) from None
        except CohortlakeError as error:
            _print_error(str(error))
            raise typer.Exit(error.exit_code) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            _print_error(without_text(error))
            raise typer.Exit(_UNEXPECTED) from None

    return wrapped


def _print_error(text: str) -> None:
    err.print(f"error: {text}", style="red", highlight=False, soft_wrap=True)


def _print_last_words(text: str) -> None:
    err.show_cursor(True)  # a progress bar had hidden it
    _print_error(text)


def read_settings(
    root: str | None, datastores: list[str] | None, policy: str | None = None
) -> Settings:
    """Read the settings, with what a command was given in the place of the environment's."""
    return Settings.from_env(environment(root, datastores, policy))


def environment(
    root: str | None, datastores: list[str] | None, policy: str | None = None
) -> dict[str, str]:
    """Return the environment variables, with what a command was given in their place."""
    given = {"COHORTLAKE_DATASTORES": ",".join(datastores)} if datastores else {}
    if policy:
        given |= {"COHORTLAKE_PRIVACY": policy}
    if root:  # the whole lake, wherever the environment's would publish
        given |= {"COHORTLAKE_ROOT": root, "COHORTLAKE_PUBLISHED": ""}
    return os.environ | given


def only_datastore(settings: Settings, command: str) -> str:
    """Return the one data store that a command takes.

    Raises:
        SettingError: None is set, or several.
    """
    (datastore_id, *more) = settings.require_datastores()
    if more:
        raise SettingError(f"{command} takes one data store; name it with --datastore")
    return datastore_id


def say_policy_change(change: object | None) -> None:
    """Say, before a run begins, how its policy differs from that of what is published."""
    if change:
        err.print(f"note: {change}", highlight=False, soft_wrap=True)


def new_table(*names: str) -> Table:
    """Return a table whose cells are broken over lines where they must be, and never cut."""
    return Table(*(Column(name, overflow="fold") for name in names))


def add_row(table: Table, *values: object) -> None:
    """Add a row to a table, values as they are: rich would take what is in brackets for markup."""
    table.add_row(*(Text("" if value is None else str(value)) for value in values))


def print_json(value: Any) -> None:
    """Print a value as JSON, for a file in one line; what JSON has no word for, as text."""
    indent = 1 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, default=str, indent=indent) + "\n")
