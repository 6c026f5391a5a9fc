"""The command line: arguments in, library calls, tables or JSON out. No logic of its own.

The only module that may import `emulator`. Progress and errors go to standard error, so
that standard output can be piped.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import pyarrow as pa
import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from cohortlake import report
from cohortlake.cli import cohort_commands, privacy_commands, setup_commands, status_commands
from cohortlake.cli.console import (
    DatastoreOption,
    JsonOption,
    PolicyOption,
    RootOption,
    add_row,
    err,
    explained,
    new_table,
    out,
    print_json,
    read_settings,
    say_policy_change,
)
from cohortlake.cli.signals import stopping
from cohortlake.cohort import Lake as OpenedLake
from cohortlake.cohort import cohort_files as runs
from cohortlake.cohort.export import spreadsheet
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import CohortlakeError, MissingExtra, SettingError, Stopped
from cohortlake.healthimaging import HealthImaging, SearchProgress
from cohortlake.healthimaging.search_criteria import parse_criteria
from cohortlake.hints import take_hints
from cohortlake.ingest.older_versions import VersionsResult
from cohortlake.ingest.progress import (
    PeriodicProgress,
    Progress,
    describe_search,
    describe_unconfirmed,
    describe_versions,
)
from cohortlake.ingest.search_frame import search_image_sets
from cohortlake.published.read import PublishedTables
from cohortlake.settings import Settings
from cohortlake.storage.root import Root
from cohortlake.sync import Outcome, Sync

app = typer.Typer(
    help="Keep a HealthImaging data store's metadata as Parquet that cohort studies can trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its traceback would print local variables, tags too
)
OutputOption = Annotated[Path | None, typer.Option(help="A .parquet, .csv or .xlsx file to write.")]

TrustSearchOption = Annotated[
    bool,
    typer.Option(
        "--trust-search",
        help="Where GetImageSet is denied, close what two searches do not find, as "
        "COHORTLAKE_TRUST_SEARCH=yes does. Not if rights hide studies or series.",
    ),
]

app.add_typer(cohort_commands.app, name="cohort")
app.add_typer(privacy_commands.privacy, name="privacy")
app.add_typer(privacy_commands.key, name="key")


@app.command()
@explained
def sync(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    fill_versions: Annotated[
        bool,
        typer.Option(
            "--fill-versions",
            help="Then read the versions that no search saw. Costs a request for each, and moves "
            "archived image sets back to the frequent tier; says how many.",
        ),
    ] = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the lake up to date: the first run backfills, later ones take what is new."""
    method = functools.partial(Sync.run, fill_versions=fill_versions)
    _run(method, read_settings(root, datastore, policy), as_json)


@app.command()
@explained
def reconcile(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    accept_deletions: Annotated[
        bool, typer.Option("--accept-deletions", help="Close what is gone however much it is.")
    ] = False,
    trust_search: TrustSearchOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sweep all study dates and close what was deleted.

    Where more is gone of a study month than COHORTLAKE_MAX_DELETED_SHARE, nothing is closed
    there, and the exit code is not 0: see whether it was deleted on purpose. Only GetImageSet
    shows that an image set is gone: where it is denied, what is not found stays, and is counted.
    """
    method = functools.partial(Sync.reconcile, accept_deletions=accept_deletions)
    settings = _trusting(read_settings(root, datastore, policy), trust_search)
    _run(method, settings, as_json)


@app.command()
@explained
def events(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    trust_search: TrustSearchOption = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Act on what the events in the queue hint at.

    Searches what is due, confirms deletions, publishes, and removes what is dealt with.
    """
    settings = _trusting(read_settings(root, datastore, policy), trust_search)
    with stopping() as stop, _progress(settings.tps, quiet=as_json) as progress:
        work = Sync(settings, stop=stop)
        say_policy_change(work.policy_change())
        try:
            taken = take_hints(work, progress)
        except Stopped:
            raise Stopped(
                "what had come is kept, and the next run applies it; the messages stay in the "
                "queue and come again"
            ) from None
        except CohortlakeError:  # of some data stores; the others have news
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


app.command(name="status")(status_commands.show_status)
app.command()(setup_commands.setup)


@app.command()
@explained
def rebuild(
    root: RootOption = None, policy: PolicyOption = None, as_json: JsonOption = False
) -> None:
    """Make image_sets/, coverage/ and published/ anew from increments/."""
    work = Sync(read_settings(root, None, policy))
    say_policy_change(work.policy_change())
    applied = work.rebuild()
    if as_json:
        print_json(asdict(applied))
    else:
        out.print(f"rebuilt: {applied.rows:,} rows in version {applied.version} of image_sets")


@app.command(name="set-aside")
@explained
def set_aside(
    increment: Annotated[str, typer.Argument(help="Its path below the root, as the error has it.")],
    root: RootOption = None,
) -> None:
    """Move a damaged increment aside, and have its window searched again.

    Restore it from a backup instead if you can. What it held and the data store holds no more is
    lost, and until the next search the tables lack the rest of it too. It stays beside the others
    with the ending .damaged, until you delete it or a patient of its data store is erased.
    """
    moved = Sync(read_settings(root, None)).set_aside(increment)
    out.print(
        f"moved to {moved}; its window is due again: run `cohortlake sync`, then `cohortlake "
        "reconcile`",
        soft_wrap=True,
    )


@app.command()
@explained
def publish(
    root: RootOption = None,
    policy: PolicyOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the content of all files, not their sizes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring published/ up to date with image_sets/ and the privacy policy.

    A file that is gone or was altered is written again.
    """
    work = Sync(read_settings(root, None, policy))
    say_policy_change(work.policy_change())
    publication = work.publish(verify=verify)
    if publication is None:
        raise SettingError("there is nothing to publish yet; run `cohortlake sync` first")
    if as_json:
        print_json(asdict(publication))
    else:
        written, removed = len(publication.written), len(publication.removed)
        out.print(
            f"published under {publication.policy}: {written} files written, {removed} removed"
        )


@app.command()
@explained
def maintain(
    root: RootOption = None, policy: PolicyOption = None, as_json: JsonOption = False
) -> None:
    """Compact image_sets/ and coverage/, and delete what is older than the retention.

    Weekly is often enough. Other runs may be at work meanwhile.
    """
    work = Sync(read_settings(root, None, policy))
    say_policy_change(work.policy_change())
    maintained = work.maintain()
    if as_json:
        print_json([asdict(table) for table in maintained])
        return
    shown = new_table(
        "table", "version", "compacted", "files", "log files deleted", "files deleted"
    )
    for table in maintained:
        shown.add_row(*(str(cell) for cell in asdict(table).values()))
    out.print(shown)


@app.command(name="erase")
@explained
def erase_patient(
    patient: Annotated[
        str, typer.Option(help="The PatientID, or - to read it from standard input.")
    ],
    root: RootOption = None,
    datastore: DatastoreOption = None,
    policy: PolicyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a patient from all of the lake for good, and keep them out.

    What is kept is a record without identity. Ended midway, it is finished by running it again.
    An id on the command line stays in the shell's history: give - where that matters.
    """
    settings = read_settings(root, datastore, policy)
    datastore_id = _only_datastore(settings, "an erasure")
    patient_id = _patient_id(patient)
    if not yes:
        _confirm(f"Erase this patient of data store {datastore_id} from {settings.root} for good?")
    work = Sync(settings)
    say_policy_change(work.policy_change())
    erasure = work.erase(patient_id, datastore_id)
    if as_json:
        print_json(asdict(erasure))
        return
    out.print(
        f"erased: {erasure.image_sets:,} image sets, {erasure.rows:,} rows in {erasure.files:,} "
        f"increments; they stay out as {erasure.known_by}"
    )


@app.command()
@explained
def search(
    equal: Annotated[
        list[str] | None,
        typer.Option(help="ATTRIBUTE=VALUE, up to twice. A date is its whole day."),
    ] = None,
    between: Annotated[
        list[str] | None,
        typer.Option(help="ATTRIBUTE=FROM..TO. A date as TO is in it to the end of the day."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="updatedAt, createdAt or DICOMStudyDateAndTime; add :DESC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most rows; all by default.")] = None,
    output: OutputOption = None,
    datastore: DatastoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the service itself: any criteria the API takes, as a table, JSON, Parquet, CSV or XLSX.

    The answer is identified data, whatever COHORTLAKE_PRIVACY says.
    """  # fmt: skip
    settings = read_settings(None, datastore)
    datastore_id = _only_datastore(settings, "a search")
    _require_known(output)
    wanted = parse_criteria(equal or (), between or (), sort)
    frame = search_image_sets(HealthImaging(settings), datastore_id, wanted, limit)
    _give(frame, output, as_json, _print_frame)


@app.command()
@explained
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A date, an instant or a tag.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A later one, or `now`.")],
    root: RootOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell two states of the lake apart: how many changes of which kind and field.

    Between two instants: what changed in the data store. Where one of the two is a tag: what the
    lake came to know. --json and --output give each change, with the values before and after that
    the privacy policy shows.
    """
    _require_known(output)
    _give(_lake(root).diff(a, b), output, as_json, _print_changes_by_field)


@app.command()
@explained
def snapshots(root: RootOption = None, as_json: JsonOption = False) -> None:
    """List what was published when, and its tags."""
    _give(_lake(root).snapshots(), None, as_json, _print_snapshots)


@app.command()
@explained
def tag(
    name: Annotated[str, typer.Argument(help="Letters, digits and ._-; no value of a DICOM tag.")],
    root: RootOption = None,
) -> None:
    """Name what is published now, and hold it against retention. A tag never moves."""
    named = _lake(root).tag(name)
    out.print(f"{name} names version {named.image_sets_version} of image_sets")


@app.command(name="report")
@explained
def write_report(
    output: Annotated[Path, typer.Option(help="The .html file; it is replaced.")] = Path(
        "report.html"
    ),
    cohort: Annotated[
        str | None, typer.Option(help="A cohort to describe as well: the name of its YAML file.")
    ] = None,
    suppress_below: Annotated[
        int, typer.Option(min=0, help="Hide counts of fewer patients; 0 hides nothing.")
    ] = report.SUPPRESS_BELOW,
    root: RootOption = None,
) -> None:
    """Write one HTML page that says what the lake holds, how complete and how good it is."""
    settings = read_settings(root, None)
    with OpenedLake(Root(settings.root, settings.published)) as lake:
        drawn = runs.load(lake, settings.cohorts, cohort) if cohort else None
        report.write(lake, output, drawn, suppress_below=suppress_below, settle=settings.settle)
    err.print(f"written to {output}", highlight=False, soft_wrap=True)


def _trusting(settings: Settings, trust_search: bool) -> Settings:
    return replace(settings, trust_search=settings.trust_search or trust_search)


def _only_datastore(settings: Settings, command: str) -> str:
    (datastore_id, *more) = settings.require_datastores()
    if more:
        raise SettingError(f"{command} takes one data store; name it with --datastore")
    return datastore_id


def _lake(root: str | None) -> PublishedTables:
    lake = PublishedTables(Root(read_settings(root, None).readers_root))
    lake.publication()  # or there is none to ask
    return lake


def _require_known(output: Path | None) -> None:
    if output:
        spreadsheet.check(output)


def _give(
    frame: pd.DataFrame, output: Path | None, as_json: bool, show: Callable[[pd.DataFrame], None]
) -> None:
    if output:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        spreadsheet.write(output, {"rows": table})
        err.print(f"{len(frame):,} rows written to {output}", soft_wrap=True)
    elif as_json:
        sys.stdout.write(_as_json(frame))
    else:
        show(frame)


def _as_json(frame: pd.DataFrame) -> str:
    """Return a list with a line for each row; instants to the microsecond, days without a time."""
    days = [name for name, kind in frame.dtypes.items() if kind == pd.ArrowDtype(pa.date32())]
    frame = frame.astype(dict.fromkeys(days, "string[pyarrow]"))
    lines = frame.to_json(orient="records", lines=True, date_format="iso", date_unit="us")
    rows = lines.strip("\n").replace("\n", ",\n")  # within a text a line break is written \\n
    return f"[\n{rows}\n]\n" if rows else "[]\n"


def _patient_id(given: str) -> str:
    if given != "-":
        patient_id = given
    elif sys.stdin.isatty():
        patient_id = typer.prompt("PatientID", err=True)
    else:
        patient_id = sys.stdin.readline().rstrip("\r\n")
    if canonical_text("LO", patient_id) is None:
        raise SettingError("--patient is empty; without an id nobody can be told from others")
    return patient_id


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise SettingError("there is no terminal to ask on; give --yes")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def _progress(quota: float, *, quiet: bool) -> Iterator[Progress]:
    """Draw a bar where there is a terminal, and write a line a minute where there is none.

    Quiet or not, what people should know is written.
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


def _run(
    method: Callable[[Sync, Progress], Outcome],
    settings: Settings,
    as_json: bool,
) -> None:
    with stopping() as stop:
        work = Sync(settings, stop=stop)
        say_policy_change(work.policy_change())
        with _progress(settings.tps, quiet=as_json) as progress:
            outcome = method(work, progress)
    _print_outcome(outcome, as_json)


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


def _print_frame(frame: pd.DataFrame) -> None:
    shown = ["image_set_id", "version", "updated_at", "PatientID", "StudyDate", "Modality",
             "BodyPartExamined", "StudyDescription"]  # fmt: skip
    table = new_table(*shown)
    for row in frame[shown].itertuples(index=False):
        add_row(table, *(None if pd.isna(value) else value for value in row))
    out.print(table)
    out.print(f"{len(frame):,} rows")


def _print_changes_by_field(changes: pd.DataFrame) -> None:
    table = new_table("kind", "field", "image sets")
    of_each = changes.groupby(["kind", "field"], dropna=False).size().reset_index(name="n")
    for row in of_each.fillna({"field": ""}).to_dict("records"):
        add_row(table, row["kind"], row["field"], f"{row['n']:,}")
    out.print(table)
    wide = changes[changes["is_study_wide"]]["image_set_id"].nunique()
    out.print(
        f"{changes['image_set_id'].nunique():,} image sets changed, {wide:,} with their whole study"
    )


def _print_snapshots(frame: pd.DataFrame) -> None:
    table = new_table("published at (UTC)", "version", "policy", "image sets", "tags")
    for row in frame.to_dict("records"):
        add_row(
            table,
            f"{row['published_at']:%F %T}",
            row["image_sets_version"],
            row["policy"],
            f"{row['n_image_sets']:,}",
            ", ".join(row["tags"]),
        )
    out.print(table)


def _mount_emulator() -> None:
    try:
        from emulator.cli import app as emulator_app
    except ModuleNotFoundError as error:
        library = error.name or "a library of the emulator"

        @app.command(
            name="emulator",
            # Whatever is asked of it, the answer is the extra.
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
