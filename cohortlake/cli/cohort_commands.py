"""The commands of `cohortlake cohort`.

They print counts and reasons. Members are written to files only, never printed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from cohortlake.cli.console import (
    add_row,
    err,
    explained,
    new_table,
    out,
    print_json,
    read_settings,
)
from cohortlake.cli.options import JsonOption, RootOption
from cohortlake.cohort import Lake, cohort_files, open
from cohortlake.cohort.freeze.manifest import numbers_of
from cohortlake.cohort.freeze.verify import Verification
from cohortlake.settings import Settings

app = typer.Typer(help="Cohorts in YAML files, and frozen cohorts.")

NameArgument = Annotated[
    str, typer.Argument(help="Name of the cohort, which is the name of its YAML file.")
]
COUNTS = ("patients", "studies", "series")
FrozenArgument = Annotated[str, typer.Argument(help="NAME@NUMBER, or NAME for the last one.")]


@app.command(name="list")
@explained
def list_cohorts(root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the cohorts in COHORTLAKE_COHORTS and the frozen cohorts."""
    settings, lake = _opened(root)
    kept, numbers = cohort_files.files(settings.cohorts), numbers_of(lake.root)
    rows = []
    for name in sorted({*kept, *numbers}):
        last = lake.frozen(name) if name in numbers else None
        rows.append(
            {
                "cohort": name,
                "file": str(kept[name]) if name in kept else None,
                "frozen": last.label if last else None,
                "at": last.frozen_at if last else None,
                "members": last.rows if last else None,
            }
        )
    _print_rows(pd.DataFrame(rows, columns=["cohort", "file", "frozen", "at", "members"]), as_json)
    for name in cohort_files.misnamed(settings.cohorts):
        err.print(
            f"notice: {name} is not a cohort: rename it to lower case letters, digits and "
            "underscores, with the suffix .yaml",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
@explained
def run(name: NameArgument, root: RootOption = None, as_json: JsonOption = False) -> None:
    """Draw a cohort, print its attrition, and write its present members to a file for BI tools."""
    settings, lake = _opened(root)
    ran = cohort_files.run(cohort_files.load(lake, settings.cohorts, name), settings.cohorts)
    table = ran.attrition.to_pandas()
    _print_rows(table if as_json else table[["criterion", *COUNTS]], as_json)
    if not as_json:
        for attached in lake.attached.values():
            out.print(str(attached), soft_wrap=True)
        done = "written to" if ran.is_written else "as they were in"
        out.print(f"{ran.members:,} members {done} {lake.root.uri_of(ran.path)}", soft_wrap=True)
        if ran.unverified:
            note = f"its last freezing cannot be verified: {ran.unverified}"
            out.print(note, soft_wrap=True)


@app.command()
@explained
def export(
    name: NameArgument,
    output: Annotated[Path, typer.Option(help="A .csv, .xlsx or .parquet file to write.")],
    root: RootOption = None,
) -> None:
    """Draw a cohort, and write its members to a file for a spreadsheet.

    Texts that a spreadsheet would read as a formula are escaped.
    """
    settings, lake = _opened(root)
    members = cohort_files.load(lake, settings.cohorts, name).export(output)
    out.print(f"{members:,} members written to {output}", soft_wrap=True)


@app.command()
@explained
def manifest(
    name: Annotated[str, typer.Argument(help="NAME, or NAME@NUMBER for a frozen cohort.")],
    output: Annotated[Path, typer.Option(help="The file or folder to write; it must not exist.")],
    format_: Annotated[
        str, typer.Option("--format", help="ahi-retrieve, monai, croissant or dicomweb.")
    ],
    label: Annotated[str, typer.Option(help="The column that holds the labels.")] = "",
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what other tools fetch the pixels of a cohort by, and print what the download costs.

    A frozen cohort has the versions that were frozen.
    """
    settings, lake = _opened(root)
    if "@" in name:
        written = lake.manifest(name, output, format=format_, label=label)
    else:
        drawn = cohort_files.load(lake, settings.cohorts, name)
        written = drawn.manifest(output, format=format_, label=label)
    if as_json:
        print_json(written.to_dict())
    else:
        out.print(repr(written), highlight=False, soft_wrap=True)


@app.command()
@explained
def freeze(name: NameArgument, root: RootOption = None, as_json: JsonOption = False) -> None:
    """Record the members of a cohort, with proof. Writes nothing if nothing changed."""
    settings, lake = _opened(root)
    frozen = cohort_files.load(lake, settings.cohorts, name).freeze()
    if as_json:
        print_json(asdict(frozen))
    else:
        signed = "signed" if frozen.signature else "not signed"
        out.print(f"{frozen.label}: {frozen.rows:,} members, {signed}, digest {frozen.digest}",
                  soft_wrap=True)  # fmt: skip


@app.command()
@explained
def verify(frozen: FrozenArgument, root: RootOption = None, as_json: JsonOption = False) -> None:
    """Check whether a frozen cohort has the same members; if not, say how many changed and why.

    Exits with 1 if it differs.
    """
    settings, lake = _opened(root)
    lake.attach_files(lake.frozen(frozen).read_criteria(), settings.cohorts)
    found = lake.verify(frozen)
    if as_json:
        print_json(_as_dict(found))
    else:
        _print_verification(found)
    if not found.is_identical:
        raise typer.Exit(1)


@app.command()
@explained
def diff(
    before: FrozenArgument,
    after: FrozenArgument,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two frozen cohorts: their criteria, and how many joined, left or changed."""
    _, lake = _opened(root)
    found = lake.compare(before, after)
    if as_json:
        print_json({"criteria": found.criteria, "counts": found.counts})
    else:
        out.print(found.criteria or "the same criteria", highlight=False)
        out.print(_in_words(found.counts) or "the same members")


def _opened(root: str | None) -> tuple[Settings, Lake]:
    settings = read_settings(root, None)
    return settings, open(settings.readers_root)


def _as_dict(found: Verification) -> dict[str, Any]:
    return {
        "frozen": found.manifest.label,
        "is_identical": found.is_identical,
        "members": found.manifest.rows,
        "counts": found.counts,
        "reasons": found.reasons.to_dict("records"),
        "signature": found.signature,
        "image_sets": None if found.image_sets is None else _records(found.image_sets),
        "outside_changed": found.outside_changed,
    }


def _print_verification(found: Verification) -> None:
    what = _in_words(found.counts) or "identical"
    out.print(
        f"{found.manifest.label}, {found.manifest.rows:,} members frozen at "
        f"{found.manifest.frozen_at}: {what}; signature {found.signature}",
        soft_wrap=True,
    )
    for row in found.reasons.to_dict("records"):
        day = f" ({row['day']})" if isinstance(row["day"], str) else ""
        line = f"  {row['members']:,} {row['what']}: {row['why']}{day}"
        out.print(line, highlight=False, soft_wrap=True)
    if found.image_sets is None:
        out.print("  which image sets they had was not recorded: freeze the cohort again")
        return
    for row in _records(found.image_sets):
        versions = f"{row['frozen_version']} -> {row['version'] or row['what']}"
        image_set = f"image set {row['image_set_id']} of data store {row['datastore_id']}"
        line = f"  {image_set}: version {versions}"
        out.print(line, highlight=False, soft_wrap=True)


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in counts.items())


def _print_rows(frame: pd.DataFrame, as_json: bool) -> None:
    rows = _records(frame)
    if as_json:
        print_json(rows)
        return
    table = new_table(*frame.columns)
    for row in rows:
        add_row(table, *map(_cell, row.values()))
    out.print(table)


def _records(frame: pd.DataFrame) -> list[Any]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _cell(value: Any) -> Any:
    return f"{value:,.0f}" if isinstance(value, int | float) else value
