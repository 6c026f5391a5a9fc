"""The command that fetches the whole headers of image sets."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from cohortlake.bill import Bill
from cohortlake.cli.console import err, explained, out, print_json, read_settings, say_note
from cohortlake.cli.options import DatastoreOption, JsonOption, PolicyOption, RootOption
from cohortlake.cli.signals import stopping
from cohortlake.errors import SettingError, Stopped
from cohortlake.ingest.headers.choice import ALL_MODALITIES, HeaderChoice, HeadersEstimate
from cohortlake.ingest.progress import PeriodicProgress, describe_headers
from cohortlake.settings import Settings
from cohortlake.sync import Sync

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


@explained
def enrich(
    root: RootOption = None,
    datastore: DatastoreOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Fetch the header of every image set.")
    ] = False,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="Only image sets of this modality, also among others. Repeatable."),
    ] = None,
    cohort: Annotated[
        str, typer.Option(help="Only image sets of this cohort, by the name of its YAML file.")
    ] = "",
    first_month: Annotated[
        str, typer.Option("--from", help="Only studies from this month on, YYYY-MM.")
    ] = "",
    last_month: Annotated[
        str, typer.Option("--to", help="Only studies up to this month, YYYY-MM.")
    ] = "",
    include_archived: Annotated[
        bool,
        typer.Option(
            "--include-archived",
            help="Fetch headers of archived image sets too. This moves them to the frequent tier, "
            "where they stay for 30 days or more at its price.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would cost, and send no request.")
    ] = False,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the whole headers of image sets: scanners, protocols, slice thickness and so on.

    Each image set costs one request, and its header is fetched again only when it changes. Say
    which ones: --all, --modality, --cohort, or --from and --to. --dry-run shows the bill.
    """
    settings = read_settings(root, datastore, policy)
    filters = (modality, cohort, first_month, last_month)
    if everything == any(filters):
        raise SettingError(
            "say whose headers to fetch: --all, or some of --modality, --cohort, --from and --to; "
            "with --dry-run it prints what that costs"
        )
    choice = HeaderChoice(
        frozenset(name.strip().upper() for name in modality or ()) or ALL_MODALITIES,
        first_month=_month("--from", first_month),
        last_month=_month("--to", last_month),
        image_set_ids=_image_sets(settings, cohort) if cohort else None,
        include_archived=include_archived,
    )
    with stopping() as stop:
        work = Sync(settings, stop=stop, note=say_note)
        if dry_run:
            _print_estimate(work.estimate_headers(choice), as_json)
            return
        progress = PeriodicProgress(
            lambda _: None,
            seconds=10,
            note=lambda text: err.print(text, highlight=False, soft_wrap=True),
            show_headers=None if as_json else lambda so_far: err.print(describe_headers(so_far)),
        )
        try:
            result = work.enrich(choice, progress)
        except Stopped:
            raise Stopped(
                "the headers that had come are published; run it again: it goes on with the others"
            ) from None
    if as_json:
        print_json(asdict(result))
    else:
        out.print(describe_headers(result), highlight=False, soft_wrap=True)


def _month(option: str, text: str) -> str:
    if text and not _MONTH.fullmatch(text):
        raise SettingError(f"{option} {text!r} is not a month; write months as YYYY-MM")
    return text


def _image_sets(settings: Settings, name: str) -> object:
    """Return the ids of the image sets of a cohort."""
    from cohortlake.cohort import cohort_files, open

    with open(settings.readers_root) as lake:
        drawn = cohort_files.load(lake, settings.cohorts, name)
        series = drawn.ask(drawn.selected.query.series)
        return series.relation.select("image_set_id").to_arrow_table()[0].combine_chunks()


def _print_estimate(found: HeadersEstimate, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(found), "hours": found.hours, "dollars": found.dollars})
        return
    out.print(str(Bill(found.requests, found.tps)), highlight=False)
    if found.includes_archived:
        what = "would move to the frequent tier for 30 days or more"
    else:
        what = "would be left alone; --include-archived fetches theirs too"
    out.print(f"{found.archived:,} archived image sets {what}", highlight=False, soft_wrap=True)
