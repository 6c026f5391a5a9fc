"""The commands of `cohortlake privacy` and `cohortlake key`, for privacy officers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cohortlake.admin import lookup_keys
from cohortlake.admin import review as reviews
from cohortlake.cli.console import err, explained, out, read_settings, say_note
from cohortlake.cli.options import PolicyOption, RootOption
from cohortlake.errors import ExportError
from cohortlake.privacy.key_store import IN_LAKE
from cohortlake.sync import Sync

key = typer.Typer(help="The key of the published hashes.", no_args_is_help=True)
privacy = typer.Typer(help="Show what a policy withholds.", no_args_is_help=True)


@privacy.command()
@explained
def review(
    root: RootOption = None,
    least: Annotated[
        int,
        typer.Option(
            "--at-least", min=1, help="Show values that at least this many patients share."
        ),
    ] = 11,
    most: Annotated[
        int, typer.Option(min=1, help="Show at most this many values of each column.")
    ] = 200,
) -> None:
    """List the most frequent values that the policy withholds, as YAML for a policy file.

    It reads image_sets/, so the output is protected health information until a person has reviewed
    it. Values that fewer patients share are not shown, because one may hold a name.
    """
    work = Sync(read_settings(root, None))
    reviewed = reviews.review(work.root, work.policy, least, most)
    out.print(reviews.as_yaml(reviewed), end="", soft_wrap=True)
    for one in reviewed:
        err.print(
            f"{one.column}: {len(one.values):,} values to look through; {one.rare:,} that fewer "
            f"than {least} patients share are withheld"
        )


@key.command()
@explained
def lookup(
    ids: Annotated[
        Path, typer.Option(help="A .csv or .parquet file with the ids, as text in a named column.")
    ],
    column: Annotated[str, typer.Option(help="The column with the ids.")] = "PatientID",
    attribute: Annotated[
        str | None,
        typer.Option(
            help="What the ids are: PatientID, AccessionNumber, StudyInstanceUID or "
            "SeriesInstanceUID. Default: the name of the column, if it is one of these, otherwise "
            "PatientID."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A .csv or .parquet file to write. Default: CSV on standard output."),
    ] = None,
    root: RootOption = None,
    datastore: Annotated[
        list[str] | None,
        typer.Option(help="Id of a data store. Repeatable. Default: all of the lake."),
    ] = None,
) -> None:
    """Give the published keys of ids: patient_key of PatientIDs, accession_key, replaced UIDs.

    It reads the key and image_sets/, and its output ties ids to keys: it is protected health
    information. `in_lake` says whether the lake has the id. A record in keys/lookups/ of the
    restricted zone says when, by whom, and how many ids, and names none.
    """
    if output and output.suffix.lower() not in (".csv", ".parquet"):
        raise ExportError(f"{output.name!r} must end in .csv or .parquet")
    work = Sync(read_settings(root, None))
    meant = attribute or (column if column in lookup_keys.KEYS else "PatientID")
    sent = lookup_keys.read_ids(ids, column)
    found = lookup_keys.lookup(work.root, work.settings, work.policy, sent, meant, datastore or ())
    if output:
        lookup_keys.write(found.table, output)
    else:
        sys.stdout.write(lookup_keys.to_csv(found.table))
    err.print(
        f"{found.ids:,} ids, {found.in_lake:,} of them in the lake; {found.repeated:,} values "
        f"repeat an id, in the same or another spelling; {found.blank:,} blank values are left out",
        soft_wrap=True,
    )


@key.command()
@explained
def rotate(
    root: RootOption = None,
    to: Annotated[
        str,
        typer.Option(
            help="Where the new key is, or where to create it. See COHORTLAKE_PATIENT_KEY."
        ),
    ] = IN_LAKE,
    policy: PolicyOption = None,
) -> None:
    """Change the key: publish everything again, and give frozen cohorts the new hashes.

    The link between old and new hashes stays in keys/links/ of the restricted zone. If the command
    is interrupted, run it again.
    """
    settings = read_settings(root, None, policy)
    changed = Sync(settings, note=say_note).rotate_key(to)
    out.print(f"published under another key; {changed:,} frozen cohorts have the new hashes")
    if to != settings.patient_key:
        err.print(f"set COHORTLAKE_PATIENT_KEY={to} from now on", soft_wrap=True)
