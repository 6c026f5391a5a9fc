"""The commands that change the lake without a search: publish, maintain, rebuild, erase."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cohortlake.cli.console import (
    explained,
    new_table,
    only_datastore,
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
)
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import SettingError
from cohortlake.sync import Sync


@explained
def rebuild(
    root: RootOption = None, policy: PolicyOption = None, as_json: JsonOption = False
) -> None:
    """Build image_sets/, coverage/ and published/ again from increments/."""
    applied = Sync(read_settings(root, None, policy), note=say_note).rebuild()
    if as_json:
        print_json(asdict(applied))
    else:
        out.print(f"rebuilt: {applied.rows:,} rows in version {applied.version} of image_sets")


@explained
def set_aside(
    increment: Annotated[str, typer.Argument(help="Path below the root, as in the error.")],
    root: RootOption = None,
) -> None:
    """Move a damaged increment aside, so that its window is searched again.

    If you have a backup, restore the increment instead. Otherwise its rows are missing until the
    next search, and rows that the data store no longer has are lost. The file stays in its folder
    with the ending .damaged, until you delete it or a patient of its data store is erased.
    """
    moved = Sync(read_settings(root, None)).set_aside(increment)
    out.print(
        f"moved to {moved}; its window is due again: run `cohortlake sync`, then `cohortlake "
        "reconcile`",
        soft_wrap=True,
    )


@explained
def publish(
    root: RootOption = None,
    policy: PolicyOption = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read all files and compare their content, not only their sizes."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring published/ up to date with image_sets/ and the privacy policy.

    Files that are missing or were altered are written again.
    """
    publication = Sync(read_settings(root, None, policy), note=say_note).publish(verify=verify)
    if publication is None:
        raise SettingError("there is nothing to publish yet; run `cohortlake sync` first")
    if as_json:
        print_json(asdict(publication))
    else:
        written, removed = len(publication.written), len(publication.removed)
        out.print(
            f"published under {publication.policy}: {written} files written, {removed} removed"
        )


@explained
def maintain(
    root: RootOption = None, policy: PolicyOption = None, as_json: JsonOption = False
) -> None:
    """Compact image_sets/ and coverage/, pack increments/, delete what is older than the retention.

    Once a week is enough. Other runs may work at the same time.
    """
    maintained = Sync(read_settings(root, None, policy), note=say_note).maintain()
    if as_json:
        print_json([asdict(table) for table in maintained])
        return
    shown = new_table(
        "table", "version", "compacted", "files", "log files deleted", "files deleted"
    )
    for table in maintained:
        shown.add_row(*("" if cell is None else str(cell) for cell in asdict(table).values()))
    out.print(shown)


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
    """Erase a patient from the whole lake, and keep them out from now on.

    Only a record without identity is kept. If the command is interrupted, run it again. An id on
    the command line stays in the history of the shell: give - to avoid that.
    """
    settings = read_settings(root, datastore, policy)
    datastore_id = only_datastore(settings, "an erasure")
    patient_id = _patient_id(patient)
    if not yes:
        _confirm(f"Erase this patient of data store {datastore_id} from {settings.root} for good?")
    erasure = Sync(settings, note=say_note).erase(patient_id, datastore_id)
    if as_json:
        print_json(asdict(erasure))
        return
    out.print(
        f"erased: {erasure.image_sets:,} image sets, {erasure.rows:,} rows in {erasure.files:,} "
        f"files of increments; they stay out as {erasure.known_by}"
    )


@explained
def erase_again(root: RootOption = None, policy: PolicyOption = None) -> None:
    """Erase once more the patients who came back with a restored backup, and rebuild the lake.

    Run it after each restore of increments/, headers/ or cohorts/, before anybody reads the lake.
    It needs the newest erasures/ and keys/. If the command is interrupted, run it again.
    """
    found = Sync(read_settings(root, None, policy), note=say_note).erase_again()
    out.print(
        f"rebuilt: {len(found):,} erased patients had come back, and are erased again"
        if found
        else "rebuilt: no erased patient had come back"
    )


def _patient_id(given: str) -> str:
    if given != "-":
        patient_id = given
    elif sys.stdin.isatty():
        patient_id = typer.prompt("PatientID", err=True)
    else:
        patient_id = sys.stdin.readline().rstrip("\r\n")
    if canonical_text("LO", patient_id) is None:
        raise SettingError("--patient is empty; give the PatientID to erase")
    return patient_id


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise SettingError("there is no terminal to ask for a confirmation; give --yes")
    typer.confirm(question, abort=True, err=True)
