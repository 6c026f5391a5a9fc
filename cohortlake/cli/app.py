"""The command line, put together from the modules with its commands.

No other module may import `emulator`. Progress and errors go to standard error, so that standard
output can be piped.
"""

from __future__ import annotations

import typer

from cohortlake.cli import (
    cohort_commands,
    lake_commands,
    privacy_commands,
    read_commands,
    setup_commands,
    status_commands,
    sync_commands,
)
from cohortlake.cli.console import explained
from cohortlake.errors import MissingExtra

app = typer.Typer(
    help="Keep HealthImaging metadata as Parquet that cohort studies can trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, also tags
)
app.add_typer(cohort_commands.app, name="cohort")
app.add_typer(privacy_commands.privacy, name="privacy")
app.add_typer(privacy_commands.key, name="key")

app.command(name="sync")(sync_commands.sync)
app.command(name="reconcile")(sync_commands.reconcile)
app.command(name="events")(sync_commands.events)
app.command(name="status")(status_commands.show_status)
app.command(name="setup")(setup_commands.setup)
app.command(name="rebuild")(lake_commands.rebuild)
app.command(name="set-aside")(lake_commands.set_aside)
app.command(name="publish")(lake_commands.publish)
app.command(name="maintain")(lake_commands.maintain)
app.command(name="erase")(lake_commands.erase_patient)
app.command(name="search")(read_commands.search)
app.command(name="diff")(read_commands.diff)
app.command(name="snapshots")(read_commands.snapshots)
app.command(name="tag")(read_commands.tag)
app.command(name="report")(read_commands.write_report)


def _mount_emulator() -> None:
    try:
        from emulator.cli import app as emulator_app
    except ModuleNotFoundError as error:
        library = error.name or "a library of the emulator"

        @app.command(
            name="emulator",
            # Whatever the arguments are, the answer names the extra.
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )
        @explained
        def without_emulator() -> None:
            """Run an emulated service; needs the extra `cohortlake[emulator]`."""
            raise MissingExtra(library, "emulator")

        return
    app.add_typer(emulator_app, name="emulator")


_mount_emulator()
