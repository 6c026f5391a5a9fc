"""`cohortlake status`: the verdict, what is wrong, the figures, and what did not arrive."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cohortlake.admin import alerts
from cohortlake.admin.diagnosis import Diagnosis, diagnose, misconfigured
from cohortlake.admin.imports import DatastoreImports, imports
from cohortlake.admin.reconciliation_check import Reconciliation
from cohortlake.admin.status import DatastoreStatus, Status
from cohortlake.cli.console import explained, out, print_json, read_settings
from cohortlake.cli.options import DatastoreOption, JsonOption, RootOption
from cohortlake.errors import RootNotUsable, SettingError
from cohortlake.healthimaging import HealthImaging
from cohortlake.healthimaging.import_jobs import DAYS_LISTED, ImportJob
from cohortlake.storage.root import Root

_MOST_SHOWN = 10


@explained
def show_status(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    within: Annotated[
        float | None,
        typer.Option(
            min=0, help="Call the lake behind unless it is complete up to so many hours ago."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the content of the files, not only their sizes.")
    ] = False,
    notify: Annotated[
        bool,
        typer.Option(
            "--notify", help="If anything is wrong, send an alert to COHORTLAKE_NOTIFY, too."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether anything is wrong with the lake, and which command repairs it.

    The first line is the verdict, and the exit code says the same: 0 healthy, 1 behind, 6
    incomplete, 5 damaged, 2 misconfigured. It follows from the lake alone. The last lines list
    import jobs that failed or are under way, if the service tells. Changes nothing. A day
    without changes is proven only after it ends, so give --within more than 24.
    """
    since = datetime.now(UTC) - timedelta(hours=within) if within is not None else None
    try:
        settings = read_settings(root, datastore)
        lake = Root(settings.root, settings.published)
        found = diagnose(lake, settings, since=since, verify=verify)
    except (SettingError, RootNotUsable) as error:
        if error.transient:
            raise
        found = Diagnosis((misconfigured(error),))
    arriving: tuple[DatastoreImports, ...] = ()
    if found.status:
        ids = [store.datastore_id for store in found.status.datastores]
        client = functools.cache(lambda: HealthImaging(settings))
        arriving = imports(client, ids)
    if as_json:
        print_json(_as_json(found) | {"imports": [asdict(store) for store in arriving]})
    else:
        for line in [*_in_words(found), *(line for s in arriving for line in _of_imports(s))]:
            out.print(line, highlight=False, soft_wrap=True)
    if notify and found.findings:
        alerts.send(_targets(), alerts.of_diagnosis(found))
    raise typer.Exit(found.verdict.exit_code)


def _targets() -> tuple[str, ...]:
    """Return where alerts go, also if another setting cannot be used: that is an alert too."""
    return tuple(os.environ.get("COHORTLAKE_NOTIFY", "").split())


def _as_json(found: Diagnosis) -> dict[str, Any]:
    figures = asdict(found.status) if found.status else {}
    return {
        "verdict": found.verdict,
        "exit_code": found.verdict.exit_code,
        "findings": [asdict(finding) for finding in found.findings],
        **figures,
    }


def _in_words(found: Diagnosis) -> list[str]:
    lines = [str(found.verdict)]
    for finding in found.findings:
        lines += [f"- {finding.verdict}: {finding.what}", f"  what to do: {finding.remedy}"]
    if found.status:
        lines += ["", *_figures(found.status)]
    return lines


def _figures(figures: Status) -> list[str]:
    rows = ", ".join(f"{count:,} {table}" for table, count in figures.rows.items())
    return [
        *(line for store in figures.datastores for line in _of_store(store)),
        f"published under {figures.policy}: {rows}",
        f"image_sets version {figures.image_sets_version}, published version "
        f"{figures.published_version}, {figures.pending:,} increments to apply",
        *_of_reconciliation(figures.agreement),
        f"{figures.erasures:,} patients erased, {figures.erasures_under_way:,} of them not to the "
        "end",
    ]


def _of_store(store: DatastoreStatus) -> list[str]:
    until = str(store.complete_until) if store.windows else "nothing proven"
    gaps = ", ".join(f"{gap.start} to {gap.end}" for gap in store.gaps) or "none"
    return [
        f"data store {store.datastore_id}",
        f"  complete until (UTC): {until}; gaps: {gaps}",
        f"  last search: {store.last_search_at or 'never'}; "
        f"last sweep: {store.last_sweep_at or 'never'}",
    ]


def _of_reconciliation(both: Reconciliation) -> list[str]:
    differing = f" ({', '.join(both.differing)})" if both.differing else ""
    return [
        f"study months: {both.agreeing:,} agree with their last sweep, {both.changed:,} changed "
        f"since, {len(both.differing):,} differ{differing}, {both.unswept:,} were never swept",
        f"studies: of {both.studies:,} that say how many series they have, the lake holds fewer "
        f"of {both.studies_with_fewer_series:,} and more of {both.studies_with_more_series:,}",
    ]


def _of_imports(store: DatastoreImports) -> list[str]:
    where = f"import jobs of data store {store.datastore_id}"
    if store.unknown_because:
        return [f"{where} are not known: {store.unknown_because}"]
    more = "" if store.is_whole else "at least "
    lines = [
        f"{where} in the last {DAYS_LISTED} days: {more}{len(store.failed):,} failed, "
        f"{len(store.under_way):,} under way"
    ]
    shown = [*store.under_way[:_MOST_SHOWN], *store.failed[:_MOST_SHOWN]]
    lines += [f"  {_of_job(job)}" for job in shown]
    if left_out := len(store.jobs) - len(shown):
        lines.append(f"  and {left_out:,} more; --json lists them")
    return lines


def _of_job(job: ImportJob) -> str:
    ended = f", ended {job.ended_at:%Y-%m-%d %H:%M:%S}" if job.ended_at else ""
    submitted = f"{job.submitted_at:%Y-%m-%d %H:%M:%S}" if job.submitted_at else "unknown"
    reason = f": {job.reason}" if job.reason else ""
    return f"{job.status} {job.job_id} {job.name}, submitted {submitted}{ended} (UTC){reason}"
