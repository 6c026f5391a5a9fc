"""Alerts: tells people, by chat, pager, e-mail or webhook, what is wrong with a lake.

An alert names kinds of findings and how many there are. It names no file, month, window or value,
because it leaves the restricted zone. `cohortlake status` has the rest, and the runbook says what
to do for each kind. apprise sends it: see COHORTLAKE_NOTIFY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cohortlake import optional_dependencies
from cohortlake.admin.diagnosis import Diagnosis
from cohortlake.errors import NotNotified, SettingError

_RUNBOOK = "docs/how-to/runbook.md"


@dataclass(frozen=True)
class Alert:
    """A message.

    Attributes:
        title: One line.
        text: The lines below it.
    """

    title: str
    text: str


def of_diagnosis(found: Diagnosis) -> Alert:
    """Return the alert on a diagnosis; on a healthy lake it says so."""
    if not found.findings:
        return Alert("Cohortlake: healthy", "Nothing is wrong with the lake.")
    counts = Counter((finding.kind, finding.verdict) for finding in found.findings)
    lines = [
        f"- {kind}{f' ({count:,} times)' * (count > 1)}, {verdict}: {_RUNBOOK}#{kind}"
        for (kind, verdict), count in counts.items()
    ]
    lines.append("`cohortlake status` says where, and which command repairs it.")
    return Alert(f"Cohortlake: {found.verdict}", "\n".join(lines))


def of_failed_run(job: str, run_id: str, steps: Sequence[str]) -> Alert:
    """Return the alert on a run of Dagster that failed.

    Args:
        job: The job.
        run_id: The run.
        steps: The steps that failed.
    """
    failed = f"Steps that failed: {', '.join(steps)}." if steps else "No step failed by itself."
    return Alert(
        f"Cohortlake: a run of {job} failed", f"Run {run_id}. {failed}\n{_of('failed-run')}"
    )


def of_failed_checks(checks: Sequence[str]) -> Alert:
    """Return the alert on asset checks that fail, or on their end.

    Args:
        checks: The checks, as asset and name.
    """
    if not checks:
        return Alert("Cohortlake: all checks pass", "No asset check fails any more.")
    return Alert(
        f"Cohortlake: {len(checks):,} asset checks fail",
        "\n".join([*(f"- {check}" for check in checks), _of("failed-check")]),
    )


def _of(part: str) -> str:
    return f"What to do: {_RUNBOOK}#{part}"


def send(targets: Sequence[str], alert: Alert) -> None:
    """Send an alert to all targets.

    Args:
        targets: URLs of apprise, such as `slack://…`, `pagerduty://…` or `mailto://…`.
        alert: What to send.

    Raises:
        SettingError: There is no target, or apprise does not know one.
        MissingExtra: apprise is not installed.
        NotNotified: Some targets did not take it.
    """
    if not targets:
        raise SettingError(
            "COHORTLAKE_NOTIFY is not set; give the URLs that alerts go to, such as "
            "`mailto://…` or `slack://…`"
        )
    apprise = optional_dependencies.module("apprise")
    refused = []
    for number, target in enumerate(targets, 1):
        one = apprise.Apprise()
        if not one.add(target):
            raise SettingError(
                f"COHORTLAKE_NOTIFY: number {number} of {len(targets)} is no URL that apprise "
                "knows; its documentation lists the form of each service's URL"
            )
        if not one.notify(title=alert.title, body=alert.text):
            refused.append(number)
    if refused:
        raise NotNotified(refused, len(targets))
