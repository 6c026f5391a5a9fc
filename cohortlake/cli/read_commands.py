"""The commands that read: the service itself, the published lake, and the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from cohortlake import report
from cohortlake.cli.console import (
    add_row,
    err,
    explained,
    new_table,
    only_datastore,
    out,
    read_settings,
)
from cohortlake.cli.options import (
    DatastoreOption,
    JsonOption,
    OutputOption,
    RootOption,
)
from cohortlake.cohort import Lake, cohort_files
from cohortlake.cohort.export import spreadsheet
from cohortlake.flatten import to_table
from cohortlake.healthimaging import HealthImaging
from cohortlake.healthimaging.search_criteria import parse_criteria
from cohortlake.ingest.search_frame import search_image_sets
from cohortlake.published.read import PublishedTables
from cohortlake.storage.root import Root


@explained
def search(
    equal: Annotated[
        list[str] | None,
        typer.Option(help="ATTRIBUTE=VALUE, up to twice. A date means the whole day."),
    ] = None,
    between: Annotated[
        list[str] | None,
        typer.Option(help="ATTRIBUTE=FROM..TO. A date as TO means the end of that day."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="updatedAt, createdAt or DICOMStudyDateAndTime; add :DESC.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of rows. Default: all.")
    ] = None,
    output: OutputOption = None,
    datastore: DatastoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the service directly and print a table or JSON, or write Parquet, CSV or XLSX.

    Takes all criteria of the API. The result is identified data under every privacy policy.
    """  # fmt: skip
    settings = read_settings(None, datastore)
    datastore_id = only_datastore(settings, "a search")
    _require_known(output)
    wanted = parse_criteria(equal or (), between or (), sort)
    frame = search_image_sets(HealthImaging(settings), datastore_id, wanted, limit)
    _give(frame, output, as_json, _print_frame)


@explained
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A date, an instant or a tag.")],
    b: Annotated[str, typer.Argument(metavar="B", help="A later date, instant or tag, or `now`.")],
    root: RootOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two states of the lake: how many changes of which kind and field.

    Two instants show what changed in the data store. If A or B is a tag, the result shows what the
    lake learned between them. --json and --output give each change, with the values before and
    after that the privacy policy shows.
    """
    _require_known(output)
    _give(_lake(root).diff(a, b), output, as_json, _print_changes_by_field)


@explained
def snapshots(root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the publications and their tags."""
    _give(_lake(root).snapshots(), None, as_json, _print_snapshots)


@explained
def tag(
    name: Annotated[
        str, typer.Argument(help="Letters, digits and ._- only. Never a value of a DICOM tag.")
    ],
    root: RootOption = None,
) -> None:
    """Give the present publication a name, and keep it beyond the retention. A tag never moves."""
    named = _lake(root).tag(name)
    out.print(f"{name} names version {named.image_sets_version} of image_sets")


@explained
def write_report(
    output: Annotated[
        Path, typer.Option(help="The .html file. An existing file is replaced.")
    ] = Path("report.html"),
    cohort: Annotated[
        str | None, typer.Option(help="Also describe this cohort: the name of its YAML file.")
    ] = None,
    suppress_below: Annotated[
        int, typer.Option(min=0, help="Hide counts of fewer patients. 0 hides nothing.")
    ] = report.SUPPRESS_BELOW,
    root: RootOption = None,
) -> None:
    """Write one HTML page that says what the lake holds, how complete and how good it is."""
    settings = read_settings(root, None)
    with Lake(Root(settings.root, settings.published)) as lake:
        drawn = cohort_files.load(lake, settings.cohorts, cohort) if cohort else None
        report.write(lake, output, drawn, suppress_below=suppress_below, settle=settings.settle)
    err.print(f"written to {output}", highlight=False, soft_wrap=True)


def _lake(root: str | None) -> PublishedTables:
    lake = PublishedTables(Root(read_settings(root, None).readers_root))
    lake.publication()  # raises if nothing was ever published
    return lake


def _require_known(output: Path | None) -> None:
    if output:
        spreadsheet.check(output)


def _give(
    frame: pd.DataFrame, output: Path | None, as_json: bool, show: Callable[[pd.DataFrame], None]
) -> None:
    if output:
        spreadsheet.write(output, {"rows": to_table(frame)})
        err.print(f"{len(frame):,} rows written to {output}", soft_wrap=True)
    elif as_json:
        sys.stdout.write(_as_json(_with_days(frame)))
    else:
        show(_with_days(frame))


def _with_days(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of `to_frame` with its dates as text, without a time of day."""
    days = [name for name, kind in frame.dtypes.items() if kind == "datetime64[us]"]
    return frame.assign(**{str(day): frame[day].dt.date.astype("string") for day in days})


def _as_json(frame: pd.DataFrame) -> str:
    """Return a JSON list with one row a line: instants to the microsecond."""
    lines = frame.to_json(orient="records", lines=True, date_format="iso", date_unit="us")
    rows = lines.strip("\n").replace("\n", ",\n")  # within a text a line break is written \\n
    return f"[\n{rows}\n]\n" if rows else "[]\n"


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
