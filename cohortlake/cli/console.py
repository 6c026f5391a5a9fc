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
    """A console that wraps lines only on a terminal.

    A pipe and a file are none, also if FORCE_COLOR asks for the colours of one.
    """

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """The size of the terminal, or a width beyond any line if there is none."""
        fitting = super().size
        return fitting if self.file.isatty() else ConsoleDimensions(_WIDEST, fitting.height)


# Names of files and values are printed as they are: brackets in them are not markup.
err = _Uncut(stderr=True, markup=False, emoji=False)
out = _Uncut(markup=False, emoji=False)


def explained(command: Callable[P, T]) -> Callable[P, T]:
    """Print an error as one line and exit with its code. See `signals` for what a signal does.

    The text of an error that is not ours is not printed, because it may hold a value.
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
    """Read the settings. What a command was given replaces the environment."""
    return Settings.from_env(environment(root, datastores, policy))


def environment(
    root: str | None, datastores: list[str] | None, policy: str | None = None
) -> dict[str, str]:
    """Return the environment variables. What a command was given replaces them."""
    given = {"COHORTLAKE_DATASTORES": ",".join(datastores)} if datastores else {}
    if policy:
        given |= {"COHORTLAKE_PRIVACY": policy}
    if root:  # the whole lake, so COHORTLAKE_PUBLISHED does not apply
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


def say_note(text: str) -> None:
    """Print what people should know, and the run goes on."""
    err.print(f"note: {text}", highlight=False, soft_wrap=True)


def new_table(*names: str) -> Table:
    """Return a table whose cells wrap and are never cut."""
    return Table(*(Column(name, overflow="fold") for name in names))


def add_row(table: Table, *values: object) -> None:
    """Add a row to a table, without reading brackets in the values as markup."""
    table.add_row(*(Text("" if value is None else str(value)) for value in values))


def print_json(value: Any) -> None:
    """Print a value as JSON, in one line if piped. Types that JSON lacks become text."""
    indent = 1 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, default=str, indent=indent) + "\n")
