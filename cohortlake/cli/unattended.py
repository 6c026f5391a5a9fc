"""The files that run Cohortlake unattended: cron lines or systemd units, and their settings.

cron and systemd start a command with almost no environment, in another folder and with another
search path. So all paths are absolute, and the settings are in an environment file that `sh` and
systemd read in the same way. The file holds no secret, and says which ones to add by hand. Nothing
here writes a file or starts a process.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cohortlake.errors import SettingError
from cohortlake.settings import SETTINGS, Settings

ENVIRONMENT = "cohortlake.env"
CRONTAB = "cohortlake.crontab"
_LOG = "cohortlake.jsonl"
_NOTIFY = "COHORTLAKE_NOTIFY"
_WITHIN_HOURS = 30
_STATUS = f"status --within {_WITHIN_HOURS}"


@dataclass(frozen=True)
class _Job:
    """A command that runs regularly."""

    name: str
    arguments: str
    cron: str
    calendar: str


_JOBS = (
    _Job("sync", "sync --json", "*/30 * * * *", "*:0/30"),
    _Job("reconcile", "reconcile --json", "15 2 * * 0", "Sun 02:15"),
    _Job("maintain", "maintain --json", "15 4 * * 0", "Sun 04:15"),
)

# Of boto3's variables those that hold no secret.
_AWS_VARIABLES = re.compile(
    r"AWS_(PROFILE|REGION|DEFAULT_REGION|CONFIG_FILE|SHARED_CREDENTIALS_FILE|CA_BUNDLE|ROLE_ARN"
    r"|ROLE_SESSION_NAME|WEB_IDENTITY_TOKEN_FILE|ENDPOINT_URL(_\w+)?|ALLOW_HTTP|MAX_ATTEMPTS"
    r"|RETRY_MODE|USE_FIPS_ENDPOINT|USE_DUALSTACK_ENDPOINT|EC2_METADATA_DISABLED"
    r"|STS_REGIONAL_ENDPOINTS|SDK_LOAD_CONFIG)"
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_PATHS = (
    "COHORTLAKE_ROOT",
    "COHORTLAKE_PUBLISHED",
    "COHORTLAKE_PRIVACY_FILE",
    "COHORTLAKE_COHORTS",
    "COHORTLAKE_COHORT_KEY_FILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


@dataclass(frozen=True)
class Installation:
    """How Cohortlake is started on this machine.

    Attributes:
        program: The full path of `cohortlake`.
        folder: Where the files lie, in full.
        user: Whose lake it is.
        environ: The environment variables in force.
        alert: A shell command that gets the verdict on its standard input; empty for none.
    """

    program: str
    folder: Path
    user: str
    environ: Mapping[str, str]
    alert: str = ""

    @property
    def _environment_path(self) -> str:
        return str(self.folder / ENVIRONMENT)

    def environment(self) -> str:
        """Return the text of the environment file.

        Raises:
            SettingError: A setting is missing, or cannot be used or written.
        """
        settings = Settings.from_env(self.environ)
        settings.require_datastores()
        known = {setting.variable for setting in SETTINGS} - {_NOTIFY}
        values = {
            name: value
            for name, value in self.environ.items()
            if value and (name in known or _AWS_VARIABLES.fullmatch(name))
        }
        values["COHORTLAKE_ROOT"] = settings.root
        lines = ["# The settings of Cohortlake, for sh and systemd. Keep this file at mode 0600."]
        lines += [
            f"{name}={_quoted(name, _in_full(name, values[name]))}" for name in sorted(values)
        ]
        if by_hand := self._by_hand(values):
            lines += ["", "# These are set as well. They may hold a secret, so add them by hand:"]
            lines += [f'# {name}=""' for name in by_hand]
        return _text(lines)

    def crontab(self) -> str:
        """Return lines for `crontab`, which mails what a line prints."""
        log = shlex.quote(str(self.folder / _LOG))
        lines = ["# Cohortlake. cron mails what these lines print: set MAILTO above them."]
        lines += [f"{job.cron} {_in_cron(f'{self._sh(job)} >> {log}')}" for job in _JOBS]
        send = "printf '%s\\n' \"$verdict\"" + (f" | {self.alert}" if self.alert else "")
        check = f"{self._start()} verdict=$({self._command(self._check)} 2>&1) || {send}"
        return _text([*lines, f"{self._check.cron} {_in_cron(check)}"])

    def units(self) -> dict[str, str]:
        """Return systemd's units: name -> text. A job that fails starts the alert."""
        found = {}
        for job in (*_JOBS, self._check):
            found[f"cohortlake-{job.name}.service"] = self._service(job)
            found[f"cohortlake-{job.name}.timer"] = _text(
                ["[Unit]", f"Description=When cohortlake {job.name} runs", "", "[Timer]",
                 f"OnCalendar={job.calendar}", "Persistent=true", "", "[Install]",
                 "WantedBy=timers.target"]
            )  # fmt: skip
        found["cohortlake-alert.service"] = self._alert_service()
        return found

    @property
    def _check(self) -> _Job:
        notify = " --notify" if self.environ.get(_NOTIFY) else ""
        return _Job("status", _STATUS + notify, "0 7 * * *", "07:00")

    def _by_hand(self, written: Mapping[str, str]) -> list[str]:
        kind, _, key = self.environ.get("COHORTLAKE_PATIENT_KEY", "").strip().partition(":")
        return sorted(
            name
            for name, value in self.environ.items()
            if value
            and name not in written
            and (
                name.startswith("AWS_")
                or name in (_NOTIFY, *_PROXIES)
                or (kind, key) == ("env", name)
            )
        )

    def _start(self) -> str:
        return f"set -a; . {shlex.quote(self._environment_path)};"

    def _command(self, job: _Job) -> str:
        return f"{shlex.quote(self.program)} {job.arguments}"

    def _sh(self, job: _Job) -> str:
        return f"{self._start()} {self._command(job)}"

    def _service(self, job: _Job) -> str:
        return self._unit(
            f"Cohortlake: {job.name}",
            ["Wants=network-online.target", "After=network-online.target",
             "OnFailure=cohortlake-alert.service"],
            [f"ExecStart={_word(self.program, is_program=True)} {job.arguments}"],
        )  # fmt: skip

    def _alert_service(self) -> str:
        if not self.alert:
            start = f"{_word(self.program, is_program=True)} {_STATUS}"
        else:
            check = f"{shlex.quote(self.program)} {_STATUS} 2>&1 | {self.alert}"
            start = f"/bin/sh -c {_word(check)}"
        codes = "SuccessExitStatus=1 2 5 6"
        return self._unit(
            "Cohortlake: tell what is wrong",
            [],
            [f"ExecStart={start}", codes, "SyslogIdentifier=cohortlake-alert", "SyslogLevel=err"],
        )

    def _unit(self, description: str, more: list[str], service: list[str]) -> str:
        return _text(
            ["[Unit]", f"Description={description}", *more, "", "[Service]", "Type=oneshot",
             f"User={self.user}", f"EnvironmentFile={_specified(self._environment_path)}", *service]
        )  # fmt: skip


def _in_full(name: str, value: str) -> str:
    """Return a value with its relative path made absolute: the jobs run in another folder."""
    value = value.strip()
    prefix = "file:" if name == "COHORTLAKE_PATIENT_KEY" and value.startswith("file:") else ""
    if (prefix or name in _PATHS) and "://" not in value:
        return prefix + str(Path(value.removeprefix(prefix)).expanduser().absolute())
    return value


def _quoted(name: str, value: str) -> str:
    """Quote a value as both sh and systemd's EnvironmentFile read it."""
    if re.search(r"[\n\r\0]", value):
        raise SettingError(f"{name} holds a line break, and an environment file cannot; correct it")
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


def _in_cron(command: str) -> str:
    """Escape a command for a crontab, in which a percent sign ends the line."""
    return command.replace("%", r"\%")


def _word(text: str, *, is_program: bool = False) -> str:
    """Quote a word of ExecStart. Of the program itself systemd expands no variable."""
    escaped = _specified(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped if is_program else escaped.replace("$", "$$")}"'


def _specified(text: str) -> str:
    """Escape what systemd takes for a specifier."""
    return text.replace("%", "%%")


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
