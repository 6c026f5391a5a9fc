"""What `cohortlake setup` prints is run as cron and systemd run it: with hardly any environment."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from endpoint import DATASTORE, Endpoint
from small_hospital import fill
from typer.testing import CliRunner, Result

from cohortlake.cli.app import app
from cohortlake.cli.unattended import Installation
from cohortlake.settings import Settings

_CANARY = "canary-secret"
_ODD = 'it\'s 100% "mine"'


def _setup(*options: str) -> Result:
    return CliRunner().invoke(app, ["setup", *options])


@pytest.fixture
def settings(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings in force, with credentials in a file."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = none\naws_secret_access_key = none\n")
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_ROOT": str(tmp_path / "a lake"),
        "COHORTLAKE_TPS": "1000",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "a lake"


def _run(command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as cron does."""
    bare = {"HOME": str(folder), "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env=bare | environ,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _cron_commands(crontab: str) -> dict[str, str]:
    """Return the command of each job, up to a percent sign as cron reads it."""
    found = {}
    for line in crontab.splitlines():
        if not line.startswith("#"):
            command = line.split(maxsplit=5)[5]
            assert not re.search(r"(?<!\\)%", command)
            (job,) = re.findall(r"\b(sync|reconcile|maintain|status) --", command)
            found[job] = command.replace(r"\%", "%")
    return found


def test_cron_lines_run_in_a_bare_environment_and_mail_the_verdict(
    settings: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    fill(endpoint, 9)
    folder = tmp_path / _ODD
    done = _setup("--cron", "--into", str(folder))
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE((folder / "cohortlake.env").stat().st_mode) == 0o600
    commands = _cron_commands((folder / "cohortlake.crontab").read_text())
    assert list(commands) == ["sync", "reconcile", "maintain", "status"]

    synced = _run(commands["sync"], tmp_path)
    assert (synced.returncode, synced.stdout, synced.stderr) == (0, "", "")
    assert '"rows": 9' in (folder / "cohortlake.jsonl").read_text()

    # The lake's days are long ago, so ask without --within; that it is behind is seen below.
    healthy = _run(commands["status"].replace("--within 30", ""), tmp_path)
    assert (healthy.returncode, healthy.stdout) == (0, ""), "nothing to mail"
    next(settings.glob("published/studies/*/*.parquet")).unlink()
    damaged = _run(commands["status"], tmp_path)
    assert damaged.stdout.splitlines()[0] == "damaged"
    assert "`cohortlake publish`" in damaged.stdout
    assert "- behind: " in damaged.stdout


def test_an_alert_command_gets_the_verdict(settings: Path, tmp_path: Path) -> None:
    """Here there is no lake at all."""
    folder, told = tmp_path / "cron", tmp_path / "told 100%"
    alert = f"cat > {shlex.quote(str(told))}"
    assert _setup("--cron", "--into", str(folder), "--alert", alert).exit_code == 0
    commands = _cron_commands((folder / "cohortlake.crontab").read_text())
    assert _run(commands["status"], tmp_path).stdout == ""
    assert told.read_text().startswith("misconfigured\n")
    assert str(settings) in told.read_text()


def _start(unit: Path) -> list[str]:
    """Return the words of ExecStart as systemd reads them."""
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    assert not re.search(r"(?<!%)%(%%)*(?!%)", line)
    (program, *words) = shlex.split(line.replace("%%", "%"))
    return [program, *(word.replace("$$", "$") for word in words)]


def test_units_are_valid_and_their_alert_carries_the_verdict(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = tmp_path / _ODD, tmp_path / "told $HOME 100%"
    monkeypatch.setenv("COHORTLAKE_COHORTS", 'a "b" $HOME `d` \\e %f \'g')
    alert = f"cat > {shlex.quote(str(told))}"
    done = _setup("--systemd", "--into", str(folder), "--alert", alert)
    assert done.exit_code == 0, done.output
    units = sorted(path for path in folder.iterdir() if path.name != "cohortlake.env")
    assert [path.name for path in units] == [
        "cohortlake-alert.service",
        *(
            f"cohortlake-{job}.{kind}"
            for job in ("maintain", "reconcile", "status", "sync")
            for kind in ("service", "timer")
        ),
    ]
    for unit in units:
        text = unit.read_text()
        assert ("OnFailure=cohortlake-alert.service" in text) == (
            unit.suffix == ".service" and "alert" not in unit.name
        )
        if unit.suffix == ".service":
            (path,) = re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
            assert path.replace("%%", "%") == str(folder / "cohortlake.env")
    assert _start(folder / "cohortlake-status.service")[1:] == ["status", "--within", "30"]

    read = _run(f"set -a; . {shlex.quote(str(folder / 'cohortlake.env'))}; env -0", tmp_path).stdout
    environ = dict(entry.split("=", 1) for entry in read.split("\0") if entry)
    assert environ["COHORTLAKE_COHORTS"] == f"{Path.cwd()}/" + 'a "b" $HOME `d` \\e %f \'g'
    command = shlex.join(_start(folder / "cohortlake-alert.service"))
    assert _run(command, tmp_path, **environ).returncode == 0
    assert told.read_text().startswith("misconfigured\n")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not there")
def test_systemd_takes_the_units(settings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "50% of it"
    assert _setup("--systemd", "--into", str(folder)).exit_code == 0
    units = [str(path) for path in folder.iterdir() if path.name != "cohortlake.env"]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    ours = [line for line in verified.stderr.splitlines() if "cohortlake" in line]
    assert ours == []


@pytest.mark.parametrize("kind", ["--cron", "--systemd"])
def test_no_secret_is_printed_and_which_to_add_is_said(
    settings: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_KEY", "HTTPS_PROXY")
    for name in secrets:
        monkeypatch.setenv(name, _CANARY)
    monkeypatch.setenv("OTHER", _CANARY)
    monkeypatch.setenv("COHORTLAKE_PATIENT_KEY", "env:MY_KEY")
    done = _setup(kind)
    assert done.exit_code == 0, done.output
    assert _CANARY not in done.output
    assert 'COHORTLAKE_PATIENT_KEY="env:MY_KEY"' in done.output
    for name in secrets:
        assert f'# {name}=""' in done.output
    assert "OTHER" not in done.output


def test_every_path_is_written_in_full(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COHORTLAKE_ROOT")
    monkeypatch.setenv("COHORTLAKE_PUBLISHED", "s3://bucket/lake")
    monkeypatch.setenv("COHORTLAKE_PATIENT_KEY", "file:keys/own")
    monkeypatch.setenv("COHORTLAKE_PRIVACY_FILE", "~/policy.yaml")
    text = Installation("/bin/cohortlake", tmp_path, "me", dict(os.environ)).environment()
    assert f'COHORTLAKE_ROOT="{tmp_path / Settings.root}"' in text
    assert 'COHORTLAKE_PUBLISHED="s3://bucket/lake"' in text
    assert f'COHORTLAKE_PATIENT_KEY="file:{tmp_path / "keys/own"}"' in text
    assert f'COHORTLAKE_PRIVACY_FILE="{Path("~/policy.yaml").expanduser()}"' in text


def test_what_cannot_be_set_up_is_an_error(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "give one of --cron and --systemd" in _setup().output
    assert "give one of --cron and --systemd" in _setup("--cron", "--systemd").output
    folder = str(tmp_path / "setup")
    assert _setup("--cron", "--into", folder).exit_code == 0
    again = _setup("--cron", "--into", folder)
    assert again.exit_code == 2
    assert "is there already" in again.output
    monkeypatch.setenv("COHORTLAKE_COHORTS", "a\nb")
    assert "COHORTLAKE_COHORTS holds a line break" in _setup("--cron").output
    monkeypatch.delenv("COHORTLAKE_COHORTS")
    monkeypatch.delenv("COHORTLAKE_DATASTORES")
    unset = _setup("--cron")
    assert (unset.exit_code, "COHORTLAKE_DATASTORES is not set" in unset.output) == (2, True)


def test_where_alerts_go_is_a_secret_that_is_added_by_hand(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _setup("--cron").stdout
    monkeypatch.setenv("COHORTLAKE_NOTIFY", f"slack://{_CANARY}")
    shown = _setup("--cron").stdout
    assert _CANARY not in shown
    assert '# COHORTLAKE_NOTIFY=""' in shown
    assert "status --within 30 --notify" in shown
    assert "--notify" not in plain
