"""The data dictionary: the meaning of every column, for people.

The pages below `docs/reference/` and the files beside the published tables are both made here. See
`schema` for the descriptions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from cohortlake import schema
from cohortlake.privacy import Policy, Treatment

HEAD = ("column", "type", "tag", "VR", "meaning")

CONVENTIONS = """\
A column that is a DICOM attribute carries the DICOM keyword. All others are snake_case, with the
unit last. Instants are UTC, in microseconds. StudyDate and StudyTime are the modality's local ones.

A DICOM attribute stands there as its canonical value: one entity has one spelling. Blanks around it
are taken off; where several values are sent, empty and repeated ones are dropped; where nothing is
left it is null. What was sent is in the column with `_raw` wherever the value cannot give it back.
"""


def canonical_values() -> str:
    """Return the canonical value of each VR, as a Markdown table."""
    return markdown_table(("VR", "canonical value"), schema.CANONICAL_VALUES.items())


def cells(column: schema.Column) -> tuple[str, ...]:
    """Return the description of a column, in the order of `HEAD`."""
    return column.name, str(column.type), column.tag or "", column.vr or "", column.description


def to_csv(policy: Policy) -> str:
    """Return the dictionary of the published tables, one line per column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("table", *HEAD, "policy", "treatment"))
    for table, columns in schema.PUBLISHED.items():
        writer.writerows((table, *cells(c), policy.name, effect(c, policy)) for c in columns)
    return text.getvalue()


def to_markdown(policy: Policy) -> str:
    """Return the dictionary of the published tables, as a page."""
    parts = [f"# Data dictionary\n\n{CONVENTIONS}\nPublished under the policy `{policy.name}`.\n"]
    for table, columns in schema.PUBLISHED.items():
        rows = ((*markdown_cells(c), effect(c, policy)) for c in columns)
        parts.append(f"## {table}\n\n{markdown_table((*HEAD, f'under {policy.name}'), rows)}\n")
    return "\n".join(parts)


def markdown_cells(column: schema.Column) -> tuple[str, ...]:
    """Return `cells` for a Markdown table, with names and types as code."""
    name, type_, *rest = cells(column)
    return f"`{name}`", f"`{type_}`", *rest


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def effect(column: schema.Column, policy: Policy) -> str:
    """Return in a few words what a policy does with a column."""
    shown = policy.shown_as(column)
    if shown is None:
        date_shown = policy.shown_as(schema.STUDY_DATE)
        if date_shown and column.name == date_shown.name:
            return f"in place of {schema.STUDY_DATE.name}"
        is_reviewed = policy.treatment(column) is Treatment.REVIEWED
        more = " until values are reviewed" if is_reviewed else ""
        return Treatment.WITHHOLD.meaning + more
    if shown == column:
        return policy.treatment(column).meaning
    return f"as {shown.name}"
