"""`cohortlake setup`: print or write the files that run Cohortlake by cron or systemd."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import sysconfig
from pathlib import Path
from typing import Annotated

import typer

from cohortlake.cli.console import environment, err, explained, out
from cohortlake.cli.options import DatastoreOption, RootOption
from cohortlake.cli.unattended import CRONTAB, ENVIRONMENT, Installation
from cohortlake.errors import SettingError

_FOLDER = Path("~/.config/cohortlake")


@explained
def setup(
    cron: Annotated[bool, typer.Option("--cron", help="Lines for crontab.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="Services and timers.")] = False,
    into: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder to write the files to. By default they are printed, for {_FOLDER}."
        ),
    ] = None,
    alert: Annotated[
        str,
        typer.Option(
            help="A shell command that gets the verdict on its standard input if something is "
            "wrong. By default cron sends it by mail, and systemd writes it to its journal."
        ),
    ] = "",
    root: RootOption = None,
    datastore: DatastoreOption = None,
) -> None:
    """Print the files that run Cohortlake by cron or systemd, with the present settings.

    All paths are absolute. The settings go into an environment file of mode 0600, without secrets;
    the file says which ones to add by hand. Nothing is installed: the last lines, on standard
    error, say how to do that.
    """
    if cron == systemd:
        raise SettingError("give one of --cron and --systemd")
    folder = (into or _FOLDER).expanduser().absolute()
    made = Installation(_program(), folder, getpass.getuser(), environment(root, datastore), alert)
    files = {ENVIRONMENT: made.environment()}
    files |= {CRONTAB: made.crontab()} if cron else made.units()
    if into:
        _write(folder, files)
    else:
        for name, text in files.items():
            mode = ", mode 0600" if name == ENVIRONMENT else ""
            out.print(f"# {folder / name}{mode}\n{text}", highlight=False, soft_wrap=True)
    err.print(_how_to_install(folder, files), highlight=False, soft_wrap=True)


def _program() -> str:
    """Return the full path of the installed command."""
    installed = Path(sysconfig.get_path("scripts")) / "cohortlake"
    found = str(installed) if installed.is_file() else shutil.which("cohortlake")
    if found is None:
        raise SettingError("`cohortlake` is not installed as a command; install the package")
    return str(Path(found).absolute())


def _write(folder: Path, files: dict[str, str]) -> None:
    kept = folder / ENVIRONMENT
    if kept.exists():
        raise SettingError(
            f"{kept} is there already, and may hold what was added by hand; move it away, or give "
            "another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in files.items():
            is_secret = name == ENVIRONMENT
            with os.fdopen(_opened(folder / name, 0o600 if is_secret else 0o644), "w") as file:
                file.write(text)
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror}") from None


def _opened(path: Path, mode: int) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    os.fchmod(file, mode)
    return file


def _how_to_install(folder: Path, files: dict[str, str]) -> str:
    if CRONTAB in files:
        lines = shlex.quote(str(folder / CRONTAB))
        return f"to install it: (crontab -l; cat {lines}) | crontab -"
    units = f"{shlex.quote(str(folder))}/cohortlake-*"
    timers = " ".join(name for name in files if name.endswith(".timer"))
    return (
        f"to install it: sudo cp {units} /etc/systemd/system/ && sudo systemctl daemon-reload && "
        f"sudo systemctl enable --now {timers}"
    )
