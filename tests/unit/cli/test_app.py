"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from cohortlake.cli.app import app


def test_a_command_imports_what_it_needs() -> None:
    code = (
        "import sys; from cohortlake.cli.app import app; "
        "app(['key', '--help'], standalone_mode=False); "
        "print(*{'aiohttp', 'pydicom', 'matplotlib', 'pandas'} & {*sys.modules})"
    )
    command = (sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_a_misspelled_command_is_told_which_is_near() -> None:
    done = CliRunner().invoke(app, ["syncs"])
    assert done.exit_code == 2
    assert "No such command 'syncs'. Did you mean 'sync'?" in done.stderr
