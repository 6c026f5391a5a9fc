"""The commands that search the service: sync, reconcile and events."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from cohortlake.cli.console import (
    err,
    explained,
    out,
    print_json,
    read_settings,
    say_note,
)
from cohortlake.cli.options import (
    DatastoreOption,
    JsonOption,
    PolicyOption,
    RootOption,
    TrustSearchOption,
)
from cohortlake.cli.signals import stopping
from cohortlake.errors import CohortlakeError, Stopped
from cohortlake.healthimaging import SearchProgress
from cohortlake.hints import take_hints
from cohortlake.ingest.older_versions import VersionsResult
from cohortlake.ingest.progress import (
    PeriodicProgress,
    Progress,
    describe_search,
    describe_unconfirmed,
    describe_versions,
)
from cohortlake.settings import Settings
from cohortlake.sync import Outcome, Sync


@explained
def sync(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    fill_versions: Annotated[
        bool,
        typer.Option(
            "--fill-versions",
            help="Then read the versions that no search saw. Each costs a request and moves an "
            "archived image set back to the frequent tier. The output says how many.",
        ),
    ] = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the lake up to date: the first run loads everything, later runs what is new."""
    method = functools.partial(Sync.run, fill_versions=fill_versions)
    _run(method, read_settings(root, datastore, policy), as_json)


@explained
def reconcile(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    accept_deletions: Annotated[
        bool,
        typer.Option(
            "--accept-deletions", help="Close deleted image sets, however many there are."
        ),
    ] = False,
    trust_search: TrustSearchOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sweep all study dates and close what was deleted.

    If more of a study month is gone than COHORTLAKE_MAX_DELETED_SHARE, nothing is closed there and
    the exit code is not 0. Find out whether it was deleted on purpose. Only GetImageSet proves
    that an image set is gone. If it is denied, the lake keeps image sets that are not found, and
    counts them.
    """
    method = functools.partial(Sync.reconcile, accept_deletions=accept_deletions)
    settings = _trusting(read_settings(root, datastore, policy), trust_search)
    _run(method, settings, as_json)


@explained
def events(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    trust_search: TrustSearchOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the events in the queue and search for the changes that they announce.

    Searches what is due, confirms deletions, publishes, and removes the messages that are done.
    """
    settings = _trusting(read_settings(root, datastore, policy), trust_search)
    with stopping() as stop, _progress(settings.tps, quiet=as_json) as progress:
        work = Sync(settings, stop=stop, note=say_note)
        try:
            taken = take_hints(work, progress)
        except Stopped:
            raise Stopped(
                "what had come is kept, and the next run applies it; the messages stay in the "
                "queue and come again"
            ) from None
        except CohortlakeError:  # of one data store; the others may have changed
            work.publish()
            raise
        work.publish()
    if as_json:
        print_json(asdict(taken))
        return
    out.print(
        f"{taken.messages:,} messages, {taken.hints:,} hints, {taken.removed:,} removed; left in "
        f"the queue: {taken.unsettled:,} unsettled, {taken.foreign:,} foreign"
    )
    _print_changes(taken.changes)
    _print_unconfirmed(taken.unconfirmed)


def _trusting(settings: Settings, trust_search: bool) -> Settings:
    return replace(settings, trust_search=settings.trust_search or trust_search)


def _run(
    method: Callable[[Sync, Progress], Outcome],
    settings: Settings,
    as_json: bool,
) -> None:
    with stopping() as stop:
        work = Sync(settings, stop=stop, note=say_note)
        with _progress(settings.tps, quiet=as_json) as progress:
            outcome = method(work, progress)
    _print_outcome(outcome, as_json)


@contextmanager
def _progress(quota: float, *, quiet: bool) -> Iterator[Progress]:
    """Draw a progress bar on a terminal; without one, write a line each minute.

    Notes are written even if quiet.
    """
    if quiet:
        yield PeriodicProgress(lambda _: None, seconds=3600, note=_tell)
    elif not err.is_terminal:
        yield PeriodicProgress(
            lambda now: _tell(describe_search(now, quota)), seconds=60, note=_tell
        )
    else:
        columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Bar(*columns, console=err) as bar:
            task = bar.add_task("", total=1)

            def draw(now: SearchProgress) -> None:
                bar.update(task, completed=now.covered, description=describe_search(now, quota))

            def draw_filled(so_far: VersionsResult) -> None:
                bar.update(task, description=describe_versions(so_far))

            yield PeriodicProgress(draw, 0.5, draw_filled, _tell)


def _tell(line: str) -> None:
    err.print(line, highlight=False, soft_wrap=True)


def _print_outcome(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print_json(asdict(outcome))
        return
    out.print(
        f"{outcome.partitions:,} windows, {outcome.rows:,} rows found, "
        f"{outcome.requests:,} requests, {outcome.throttles:,} throttled"
    )
    _print_changes(outcome.applied.changes)
    _print_unconfirmed(outcome.unconfirmed)
    if outcome.filled:
        out.print(describe_versions(outcome.filled))
    if outcome.publication:
        out.print(f"published version {outcome.publication.image_sets_version} "
                   f"under {outcome.publication.policy}")  # fmt: skip


def _print_unconfirmed(image_sets: int) -> None:
    if image_sets:
        err.print(describe_unconfirmed(image_sets), soft_wrap=True)


def _print_changes(changes: dict[str, int]) -> None:
    out.print(", ".join(f"{n:,} {kind}" for kind, n in changes.items()) or "nothing changed")
