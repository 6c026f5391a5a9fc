"""Counts members by any columns, with small cells suppressed.

See `suppress` for which cells are hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cohortlake.cohort.describe.columns import shown_columns
from cohortlake.cohort.describe.suppress import Cell, hidden
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import BadCriteria, LakeError

if TYPE_CHECKING:
    import pandas as pd


def count(selected: Selected, by: Sequence[str], suppress_below: int) -> pd.DataFrame:
    """Count members and their patients.

    Args:
        selected: The members.
        by: Columns of the members; none gives one row for all.
        suppress_below: Cells of fewer patients are hidden, and what would give them away.

    Returns:
        One row per combination of values that occurs: patients and members, missing where hidden.
        A value that the policy withholds is `withheld`, or is so in the list that lacks it.

    Raises:
        UnknownColumn: The members have no such column.
        ColumnNotShown: The policy does not show it.
        ValuesWithheld: It is a number that the policy withholds of some members.
        BadCriteria: `suppress_below` is negative, a column is named twice, or the table has too
            many small cells to see what could be worked out.
    """
    if suppress_below < 0:
        raise BadCriteria("suppress_below is a number of patients, 0 or more")
    if not all(isinstance(name, str) for name in by):
        raise BadCriteria('give each column as an argument of its own: count("sex", "study_year")')
    if len({*by}) < len(by):
        raise BadCriteria("members are counted by a column once; name each column once")
    counts = ["count(DISTINCT patient_key) AS patients", "count(*) AS members"]
    counts.append(few("patient_key", suppress_below))
    counted = ", ".join([*shown_columns(selected, by), *counts])
    if by:
        query = f"SELECT {counted} FROM ({selected.query.described}) GROUP BY ALL ORDER BY ALL"
    else:
        query = f"SELECT {counted} FROM ({selected.query.entities})"
    rows = selected.ask(query).to_pandas()
    few_patients = rows.pop("few")
    keys = zip(*(rows[name] for name in by), strict=True) if by else [()] * len(rows)
    groups = zip(keys, rows["patients"], rows["members"], few_patients, strict=True)
    cells = [
        Cell(
            tuple(map(str, key)),
            int(patients),
            int(members),
            frozenset(own if own is not None else ()),
        )
        for key, patients, members, own in groups
    ]
    rows.loc[sorted(hidden(cells, suppress_below)), ["patients", "members"]] = None
    return rows


def size(selected: Selected) -> tuple[int, int]:
    """Return how many patients and how many members there are."""
    query = f"SELECT count(DISTINCT patient_key), count(*) FROM ({selected.query.entities})"
    ((patients, members),) = selected.ask(query).fetchall()
    return int(patients), int(members)


def in_words(selected: Selected) -> str:
    """Return the size in words, or why it cannot be counted."""
    try:
        patients, members = size(selected)
    except LakeError as error:
        return f"not counted: {error}"
    level = selected.criteria.level
    if level == "patient":
        return f"{members:,} patients"
    return f"{members:,} {'studies' if level == 'study' else level} of {patients:,} patients"


def few(person: str, below: int) -> str:
    """Return SQL for `Cell.few`, in a query that groups rows by cell.

    Args:
        person: SQL for the patient of a row.
        below: The least number of patients that may be shown.
    """
    if not below:
        return "[] AS few"  # a list of all people takes longer than the counts
    people = f"list(DISTINCT {person}) FILTER ({person} IS NOT NULL)"
    small = f"count(DISTINCT {person}) < {below}"
    return f"CASE WHEN {small} THEN coalesce({people}, []) ELSE [] END AS few"
