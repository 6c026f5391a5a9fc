"""How many members there are, by any columns, with small cells suppressed.

A cell of few patients may tell who they are. Hiding it alone hides nothing where its row's or
column's total is known: so in every total at least two cells are hidden, of enough patients
together. Pure but for the one query.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING

from cohortlake.errors import BadCriteria, UnknownColumn

if TYPE_CHECKING:
    import pandas as pd

    from cohortlake.cohort.cohort import Cohort


@dataclass(frozen=True)
class Cell:
    """A cell of a table of counts.

    Attributes:
        key: The values of the columns it stands for.
        patients: How many patients it is of; what is small is told by that.
        members: Its members.
        few: Who they are, where they are fewer than may be shown: the same may be in several cells.
            None where nobody is.
    """

    key: tuple[object, ...]
    patients: int
    members: int
    few: frozenset[object] | None = None


def count(cohort: Cohort, by: Sequence[str], suppress_below: int) -> pd.DataFrame:
    """Count members and their patients.

    Args:
        cohort: Whose.
        by: Columns of the members; none gives one row for all.
        suppress_below: Cells of fewer patients are hidden, and what would give them away.

    Returns:
        One row per combination of values that occurs: patients and members, missing where hidden.

    Raises:
        UnknownColumn: The members have no such column.
        BadCriteria: `suppress_below` is negative.
    """
    if suppress_below < 0:
        raise BadCriteria("suppress_below is a number of patients, 0 or more")
    known = cohort.members.columns
    for name in by:
        if name not in known:
            raise UnknownColumn(name, f"members of {cohort.criteria.name}", known)
    names = "".join(f'"{name}", ' for name in by)
    counted = f"{names}count(DISTINCT patient_key) AS patients, count(*) AS members"
    counted += f", {few('patient_key', suppress_below)}"
    if by:
        query = f"SELECT {counted} FROM ({cohort.selection.members}) GROUP BY ALL ORDER BY ALL"
    else:
        query = f"SELECT {counted} FROM ({cohort.selection.entities})"
    rows = cohort.ask(query).to_pandas()
    who = rows.pop("few")
    keys = zip(*(rows[name] for name in by), strict=True) if by else [()] * len(rows)
    told = zip(keys, rows["patients"], rows["members"], who, strict=True)
    cells = [
        Cell(
            tuple(map(str, key)),
            int(patients),
            int(members),
            frozenset(own if own is not None else ()),
        )
        for key, patients, members, own in told
    ]
    rows.loc[sorted(hidden(cells, suppress_below)), ["patients", "members"]] = None
    return rows


def few(person: str, below: int) -> str:
    """Return SQL for `Cell.few`, in a query that groups rows by cell.

    Args:
        person: SQL for whose a row is.
        below: The least number of patients that may be shown.
    """
    people = f"list(DISTINCT {person}) FILTER ({person} IS NOT NULL)"
    small = f"count(DISTINCT {person}) < {below}"
    return f"CASE WHEN {small} THEN coalesce({people}, []) ELSE [] END AS few"


def hidden(cells: Sequence[Cell], below: int) -> set[int]:
    """Return which cells to hide.

    Args:
        cells: All cells of a table that are not empty; their keys are as long as each other.
        below: The least number of patients that may be shown.

    Returns:
        The positions of those that hold fewer, and of those that would give them away: each
        total over some of the columns hides no cell, or at least two of `below` patients
        together, or all of its cells.
    """
    out = {i for i, cell in enumerate(cells) if cell.patients < below}
    totals = _totals(cells)
    while True:
        more = set()
        for total in totals:
            shown = [i for i in total if i not in out]
            if shown and _gives_away(cells, total, out, below):
                more.add(min(shown, key=lambda i: (cells[i].members, cells[i].key)))
        if not more:
            return out
        out |= more


def _gives_away(cells: Sequence[Cell], total: Sequence[int], out: set[int], below: int) -> bool:
    own = [cells[i] for i in total if i in out]
    return bool(own) and (len(own) < 2 or _together(own) < below)


def _together(cells: Sequence[Cell]) -> int:
    """Return how many patients some cells are of, or as many as are known to be different."""
    if all(cell.few is None for cell in cells):
        return sum(cell.patients for cell in cells)
    known = frozenset[object]().union(*(cell.few or () for cell in cells))
    return max(len(known), *(cell.patients for cell in cells))


def _totals(cells: Sequence[Cell]) -> list[list[int]]:
    """Return the cells of each total that a coarser table shows: over any of the columns."""
    width = len(cells[0].key) if cells else 0
    kept = chain.from_iterable(combinations(range(width), n) for n in range(width))
    totals: dict[object, list[int]] = defaultdict(list)
    for columns in kept:
        for i, cell in enumerate(cells):
            totals[columns, tuple(cell.key[c] for c in columns)].append(i)
    return list(totals.values())
