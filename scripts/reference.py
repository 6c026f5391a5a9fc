"""Write the reference pages from the code. With --check, name the pages that are out of date."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from cohortlake import schema
from cohortlake.cli import app
from cohortlake.privacy import built_in
from cohortlake.publish.export.dictionary import (
    CONVENTIONS,
    HEAD,
    canonical_values,
    effect,
    markdown_cells,
    markdown_table,
)
from cohortlake.settings import POLICIES, SETTINGS
from emulator.cli import app as emulator_app
from emulator.control import reference as emulator_reference

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"

ANSWERS = {
    "Lake.changes and Lake.diff": (schema.CHANGES, "One row per image set, change and field."),
    "Lake.snapshots": (schema.SNAPSHOTS, "One row per publication."),
}

INTERNAL = {
    "increments": (schema.FOUND, "What one search window found, as the service sent it."),
    "increments (absences)": (schema.ABSENCE, "Image sets that were confirmed as deleted."),
    "increments (unread)": (schema.UNREAD, "Older versions that could not be read."),
    "image_sets": (
        schema.IMAGE_SETS,
        "The version history: a Delta table that is only appended to.",
    ),
    "coverage": (schema.COVERAGE, "One row per window searched."),
}


def settings() -> str:
    """Return the settings table."""
    rows = ((f"`{s.variable}`", f"`{s.default}`" if s.default else "", s.meaning) for s in SETTINGS)
    return f"""# Settings

All settings are environment variables, read in one place (`cohortlake.settings`). A
`COHORTLAKE_` variable with any other name is an error, because it is probably a typo.

{markdown_table(("variable", "default", "meaning"), rows)}

boto3 reads credentials, region and endpoint: `AWS_PROFILE` or the `AWS_ACCESS_KEY_ID` family,
 `AWS_REGION` (or `AWS_DEFAULT_REGION`), and `AWS_ENDPOINT_URL_MEDICAL_IMAGING` for another
endpoint, such as the emulator's.
"""


def data_dictionary() -> str:
    """Return every column of every table."""
    parts = [f"""# Data dictionary

{CONVENTIONS}
{canonical_values()}

## Published tables

`published/<table>/` is plain Parquet. All but `patients` are in Hive partitions by `study_month`
(`YYYY-MM`, or `undated`), or by year if the policy does not show true dates. The policy
(`COHORTLAKE_PRIVACY`) decides which columns exist: a name in the column of a policy is the column
that replaces a date. PS3.15 says what DICOM's Basic Application Level Confidentiality Profile
does with the tag (table E.1-1): Z empties it, D replaces it by a dummy, X removes it, U replaces
a UID.
"""]  # fmt: skip
    for name, columns in schema.PUBLISHED.items():
        if name == "earlier_headers":
            parts.append(f"### {name}\n\nThe columns of `series_headers`, of other versions.\n")
            continue
        rows = (
            (
                *markdown_cells(column),
                column.identifies.value,
                column.basic_profile or "",
                *(effect(column, policy) for policy in map(built_in, POLICIES)),
            )
            for column in columns
        )
        head = (*HEAD, "identifies", "PS3.15", *POLICIES)
        parts.append(f"### {name}\n\n{markdown_table(head, rows)}\n")
    parts.append("## Answers about the past\n\nThey hold only values that the policy shows.\n")
    parts += sections(ANSWERS)
    parts.append(
        "## The restricted zone\n\nThese hold protected health information, whatever the policy.\n"
    )
    parts += sections(INTERNAL)
    return "\n".join(parts)


def sections(tables: Mapping[str, tuple[Iterable[schema.Column], str]]) -> Iterator[str]:
    """Yield a section for each table."""
    for name, (columns, meaning) in tables.items():
        head = (*HEAD, "identifies")
        rows = ((*markdown_cells(column), column.identifies.value) for column in columns)
        yield f"### {name}\n\n{meaning}\n\n{markdown_table(head, rows)}\n"


def command_line() -> str:
    """Return typer's description of the commands."""
    click_app = typer.main.get_command(app.app)
    context = typer.Context(click_app)
    docs: str = get_docs_for_click(obj=click_app, ctx=context, name="cohortlake")
    return docs.rstrip() + "\n"


PAGES = {
    "settings.md": settings,
    "data-dictionary.md": data_dictionary,
    "cli.md": command_line,
    "emulator.md": functools.partial(emulator_reference.render, emulator_app),
}


def main() -> int:
    """Write the pages, or check them."""
    stale = []
    for name, render in PAGES.items():
        path, text = FOLDER / name, render()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
