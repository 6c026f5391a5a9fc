"""The command line: arguments in, library calls, tables or JSON out. No logic of its own.

The only module that may import `emulator`. Progress and errors go to standard error, so
that standard output can be piped.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from cohortlake import cohort_commands
from cohortlake.console import DatastoreOption, JsonOption, RootOption
from cohortlake.console import err as _err
from cohortlake.console import explained as _explained
from cohortlake.console import out as _out
from cohortlake.console import print_json as _print_json
from cohortlake.console import read_settings as _settings
from cohortlake.errors import SettingError
from cohortlake.healthimaging import HealthImaging, SearchProgress
from cohortlake.healthimaging.criteria import criteria
from cohortlake.hints import take_hints
from cohortlake.lake.axes import Agreement
from cohortlake.lake.root import Root
from cohortlake.lake.status import Status, status
from cohortlake.progress import Progress, Told, in_words
from cohortlake.search import search as search_frame
from cohortlake.sync import Outcome, Sync

app = typer.Typer(
    help="Keep a HealthImaging data store's metadata as Parquet that cohort studies can trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its traceback would print local variables, tags too
)
app.add_typer(cohort_commands.app, name="cohort")


@app.command()
@_explained
def sync(
    root: RootOption = None, datastore: DatastoreOption = None, as_json: JsonOption = False
) -> None:
    """Bring the lake up to date: the first run backfills, later ones take what is new."""
    _run(Sync.run, root, datastore, as_json)


@app.command()
@_explained
def reconcile(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    accept_deletions: Annotated[
        bool, typer.Option("--accept-deletions", help="Close what is gone however much it is.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sweep all study dates and close what was deleted.

    Where more is gone of a study month than COHORTLAKE_MAX_DELETED_SHARE, nothing is closed
    there, and the exit code is not 0: see whether it was deleted on purpose.
    """
    method = functools.partial(Sync.reconcile, accept_deletions=accept_deletions)
    _run(method, root, datastore, as_json)


@app.command()
@_explained
def events(
    root: RootOption = None, datastore: DatastoreOption = None, as_json: JsonOption = False
) -> None:
    """Act on what the events in the queue hint at.

    Searches what is due, confirms deletions, publishes, and removes what is dealt with.
    """
    work = Sync(_settings(root, datastore))
    taken = take_hints(work)
    work.publish()
    if as_json:
        _print_json(asdict(taken))
        return
    _out.print(
        f"{taken.messages:,} messages, {taken.hints:,} hints, {taken.removed:,} removed; left in "
        f"the queue: {taken.unsettled:,} unsettled, {taken.foreign:,} foreign"
    )
    _print_changes(taken.changes)


@app.command(name="status")
@_explained
def show_status(
    root: RootOption = None, datastore: DatastoreOption = None, as_json: JsonOption = False
) -> None:
    """Say up to when the lake is complete, what it holds and what is missing.

    Reads the lake only. Exits with 1 where a data store has gaps, nothing is proven, or a study
    month does not hold what its last sweep found.
    """
    settings = _settings(root, datastore)
    found = status(Root(settings.root), settings.datastores, settings.settle)
    if as_json:
        _print_json(asdict(found))
    else:
        _print_status(found)
    is_proven = found.datastores and all(d.windows and not d.gaps for d in found.datastores)
    if not is_proven or found.agreement.differing:
        raise typer.Exit(1)


@app.command()
@_explained
def rebuild(root: RootOption = None, as_json: JsonOption = False) -> None:
    """Make image_sets/, coverage/ and published/ anew from increments/."""
    work = Sync(_settings(root, None))
    applied = work.rebuild()
    if as_json:
        _print_json(asdict(applied))
    else:
        _out.print(f"rebuilt: {applied.rows:,} rows in version {applied.version} of image_sets")


@app.command()
@_explained
def publish(root: RootOption = None, as_json: JsonOption = False) -> None:
    """Bring published/ up to date with image_sets/ and the privacy policy."""
    publication = Sync(_settings(root, None)).publish()
    if publication is None:
        raise SettingError("there is nothing to publish yet; run `cohortlake sync` first")
    if as_json:
        _print_json(asdict(publication))
    else:
        written, removed = len(publication.written), len(publication.removed)
        _out.print(
            f"published under {publication.policy}: {written} files written, {removed} removed"
        )


@app.command()
@_explained
def search(
    equal: Annotated[list[str] | None, typer.Option(help="ATTRIBUTE=VALUE, up to twice.")] = None,
    between: Annotated[list[str] | None, typer.Option(help="ATTRIBUTE=FROM..TO.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="updatedAt, createdAt or DICOMStudyDateAndTime; add :DESC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most rows; all by default.")] = None,
    output: Annotated[Path | None, typer.Option(help="A .parquet or .csv file to write.")] = None,
    datastore: DatastoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the service itself: any criteria the API takes, as a table, JSON, Parquet or CSV.

    The answer is identified data, whatever COHORTLAKE_PRIVACY says.
    """  # fmt: skip
    settings = _settings(None, datastore)
    (datastore_id, *more) = settings.require_datastores()
    if more:
        raise SettingError("a search takes one data store; name it with --datastore")
    if output and output.suffix not in (".parquet", ".csv"):
        raise SettingError(f"--output must end in .parquet or .csv, not {output.suffix!r}")
    wanted = criteria(equal or (), between or (), sort)
    frame = search_frame(HealthImaging(settings), datastore_id, wanted, limit)
    if output:
        _write_frame(frame, output)
        _err.print(f"{len(frame):,} rows written to {output}")
    elif as_json:
        sys.stdout.write(frame.to_json(orient="records", lines=True, date_format="iso"))
    else:
        _print_frame(frame)


@contextmanager
def _progress(quota: float, *, quiet: bool) -> Iterator[Progress]:
    """Draw a bar where there is a terminal, and write a line a minute where there is none."""
    if quiet:
        yield Progress()
    elif not _err.is_terminal:
        yield Told(lambda now: _tell(in_words(now, quota)), seconds=60)
    else:
        columns = BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Bar(*columns, console=_err) as bar:
            task = bar.add_task("", total=1)

            def draw(now: SearchProgress) -> None:
                bar.update(task, completed=now.covered, description=in_words(now, quota))

            yield Told(draw, seconds=0.5)


def _tell(line: str) -> None:
    _err.print(line, highlight=False, soft_wrap=True)


def _run(
    method: Callable[[Sync, Progress], Outcome],
    root: str | None,
    datastores: list[str] | None,
    as_json: bool,
) -> None:
    work = Sync(_settings(root, datastores))
    with _progress(work.settings.tps, quiet=as_json) as progress:
        outcome = method(work, progress)
    _print_outcome(outcome, as_json)


def _print_outcome(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(outcome))
        return
    _out.print(
        f"{outcome.partitions:,} windows, {outcome.rows:,} rows found, "
        f"{outcome.requests:,} requests, {outcome.throttles:,} throttled"
    )
    _print_changes(outcome.applied.changes)
    if outcome.publication:
        _out.print(f"published version {outcome.publication.image_sets_version} "
                   f"under {outcome.publication.policy}")  # fmt: skip


def _print_changes(changes: dict[str, int]) -> None:
    _out.print(", ".join(f"{n:,} {kind}" for kind, n in changes.items()) or "nothing changed")


def _print_status(found: Status) -> None:
    stores = Table("data store", "complete until (UTC)", "gaps", "last search", "last sweep")
    for store in found.datastores:
        until = str(store.complete_until) if store.windows else "nothing proven"
        gaps = ", ".join(f"{gap.start} to {gap.end}" for gap in store.gaps) or "none"
        searched, swept = store.last_search_at, store.last_sweep_at
        stores.add_row(
            store.datastore_id, until, gaps, str(searched or "never"), str(swept or "never")
        )
    _out.print(stores)
    _out.print(_in_words(found.agreement))
    tables = Table("published", "rows")
    for name, rows in found.rows.items():
        tables.add_row(name, f"{rows:,}")
    _out.print(tables)
    _out.print(
        f"image_sets version {found.image_sets_version}, published version "
        f"{found.published_version} under {found.policy}, {found.pending} increments to apply"
    )


def _in_words(both: Agreement) -> str:
    differing = f" ({', '.join(both.differing)})" if both.differing else ""
    return (
        f"study months: {both.agreeing:,} agree with their last sweep, {both.changed:,} changed "
        f"since, {len(both.differing):,} differ{differing}, {both.unswept:,} were never swept\n"
        f"studies: of {both.studies:,} that say how many series they have, the lake holds fewer "
        f"of {both.studies_with_fewer_series:,} and more of {both.studies_with_more_series:,}"
    )


def _print_frame(frame: pd.DataFrame) -> None:
    shown = ["image_set_id", "version", "updated_at", "PatientID", "StudyDate", "Modality",
             "BodyPartExamined", "StudyDescription"]  # fmt: skip
    table = Table(*shown)
    for row in frame[shown].itertuples(index=False):
        table.add_row(*("" if pd.isna(value) else str(value) for value in row))
    _out.print(table)
    _out.print(f"{len(frame):,} rows")


def _write_frame(frame: pd.DataFrame, output: Path) -> None:
    try:
        if output.suffix == ".parquet":
            frame.to_parquet(output, index=False)
        else:
            frame.to_csv(output, index=False)
    except OSError as error:
        raise SettingError(f"cannot write {output}: {error.strerror}") from None


def _mount_emulator() -> None:
    try:
        from emulator.cli import app as emulator_app
    except ModuleNotFoundError:  # installed without the extra
        return
    app.add_typer(emulator_app, name="emulator")


_mount_emulator()
