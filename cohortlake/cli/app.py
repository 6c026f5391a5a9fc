"""The command line, put together from the modules with its commands.

A command's module is imported when the command is asked for, because importing all of them takes
longer than a run that finds nothing new. No other module may import `emulator`. Progress and errors
go to standard error, so that standard output can be piped.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperGroup

from cohortlake.cli.console import explained
from cohortlake.errors import MissingExtra

_COMMANDS = {
    "sync": "cohortlake.cli.sync_commands:sync",
    "reconcile": "cohortlake.cli.sync_commands:reconcile",
    "enrich": "cohortlake.cli.enrich_command:enrich",
    "events": "cohortlake.cli.sync_commands:events",
    "status": "cohortlake.cli.status_commands:show_status",
    "setup": "cohortlake.cli.setup_commands:setup",
    "rebuild": "cohortlake.cli.lake_commands:rebuild",
    "set-aside": "cohortlake.cli.lake_commands:set_aside",
    "publish": "cohortlake.cli.lake_commands:publish",
    "maintain": "cohortlake.cli.lake_commands:maintain",
    "erase": "cohortlake.cli.lake_commands:erase_patient",
    "erase-again": "cohortlake.cli.lake_commands:erase_again",
    "search": "cohortlake.cli.read_commands:search",
    "diff": "cohortlake.cli.read_commands:diff",
    "snapshots": "cohortlake.cli.read_commands:snapshots",
    "tag": "cohortlake.cli.read_commands:tag",
    "report": "cohortlake.cli.read_commands:write_report",
    "cohort": "cohortlake.cli.cohort_commands:app",
    "privacy": "cohortlake.cli.privacy_commands:privacy",
    "key": "cohortlake.cli.privacy_commands:key",
    "emulator": "emulator.cli:app",
}
"""Name -> where the function of the command, or the group of commands, is."""


class _Commands(TyperGroup):
    """Imports a command when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of that name."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _imported(cmd_name)
        return self.commands.get(cmd_name)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, also tags
)


@app.callback()
def cohortlake() -> None:
    """Keep HealthImaging metadata as Parquet that cohort studies can trust."""


def _imported(name: str) -> Any:
    holder = typer.Typer()
    try:
        found = resolve_name(_COMMANDS[name])
    except ModuleNotFoundError as error:
        if name != "emulator":
            raise
        _add_missing_emulator(holder, error.name or "a library of the emulator")
    else:
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
    return typer.main.get_group(holder).commands[name]


def _add_missing_emulator(holder: typer.Typer, library: str) -> None:
    @holder.command(
        name="emulator",
        # Whatever the arguments are, the answer names the extra.
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    @explained
    def without_emulator() -> None:
        """Run an emulated service; needs the extra `cohortlake[emulator]`."""
        raise MissingExtra(library, "emulator")
