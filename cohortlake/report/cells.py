"""Counts for a report, without those of few patients and those from which they can be computed.

See `cohort.describe.suppress` for which cells are hidden. A value that few patients have may
identify one of them, so it is not named either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohortlake.cohort.describe.counts import few
from cohortlake.cohort.describe.suppress import Cell, hidden
from cohortlake.cohort.select.opened_tables import OpenedTables

PERSON = "coalesce(patient_key, StudyInstanceUID) AS person"
"""SQL for the patient of a row. A study without a known patient counts as one patient."""

MISSING, BLANK = "missing", "blank"


@dataclass(frozen=True)
class Value:
    """A value that enough patients have.

    Attributes:
        label: The value, or `missing` or `blank`.
        n: How many rows have it, in the unit that is counted.
    """

    label: str
    n: int


@dataclass(frozen=True)
class Breakdown:
    """Counts by the values of a column.

    Attributes:
        shown: The values that may be named, the most frequent first.
        others: How many values are counted together.
        n_others: How many rows have those; None if too few patients have them.
    """

    shown: tuple[Value, ...]
    others: int
    n_others: int | None


@dataclass(frozen=True)
class Grid:
    """Counts by two columns.

    Attributes:
        columns: The values along the axis, in order.
        rows: The groups in each column, in order.
        cells: (column, row) -> count; None if it is hidden. Empty cells are not in it.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: Mapping[tuple[str, str], int | None]

    @property
    def n_hidden(self) -> int:
        """How many cells are hidden."""
        return sum(n is None for n in self.cells.values())

    @property
    def is_empty(self) -> bool:
        """Whether no cell is shown."""
        return self.n_hidden == len(self.cells)


def label(expression: str) -> str:
    """Return SQL for a text that names each value of a column, and also a missing or blank one."""
    text = f"({expression})::VARCHAR"
    return f"CASE WHEN trim({text}) = '' THEN '{BLANK}' ELSE coalesce({text}, '{MISSING}') END"


def breakdown(
    tables: OpenedTables, relation: str, value: str, counted: str, below: int, most: int
) -> Breakdown:
    """Count by the values of a column.

    Args:
        tables: The opened tables.
        relation: SQL for rows, with a column `person`.
        value: SQL for the value.
        counted: SQL that counts rows: `count(*)`.
        below: The least number of patients that may be shown.
        most: How many values to name.
    """
    source = f"(SELECT {label(value)} AS value, * FROM ({relation}))"
    rows = tables.sql(f"""
        SELECT value, count(DISTINCT person) AS patients, {counted} AS n
        FROM {source} GROUP BY value ORDER BY n DESC, value
    """).fetchall()
    cells = [Cell((value,), patients, n) for value, patients, n in rows]
    out = hidden(cells, below)
    kept = [cell for i, cell in enumerate(cells) if i not in out][:most]
    patients, n = _others(tables, source, counted, kept)
    # A patient with several of the other values counts once here, and once for each in `hidden`.
    if kept and len(kept) < len(cells) and patients < below:
        kept.pop()
        patients, n = _others(tables, source, counted, kept)
    shown = tuple(Value(str(cell.key[0]), cell.members) for cell in kept)
    return Breakdown(shown, len(cells) - len(kept), n if patients >= below else None)


def grid(
    tables: OpenedTables,
    relation: str,
    keys: tuple[str, str],
    counted: str,
    below: int,
    rows: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
) -> Grid:
    """Count by two columns.

    Args:
        tables: The opened tables.
        relation: SQL for rows, with a column `person`.
        keys: The columns: along the axis, and the groups in each.
        counted: SQL that counts rows.
        below: The least number of patients that may be shown.
        rows: The order of the groups; others come after them.
        params: Values for `$name` in the relation.
    """
    source = f"""
        (SELECT "{keys[0]}"::VARCHAR AS across, "{keys[1]}"::VARCHAR AS down, * FROM ({relation}))
    """
    query = f"""
        SELECT across, down, count(DISTINCT person), {counted}, {few("person", below)}
        FROM {source} GROUP BY ALL ORDER BY ALL
    """
    found = tables.sql(query, params).fetchall()
    cells = [Cell((c, r), patients, n, frozenset(own)) for c, r, patients, n, own in found]
    out = hidden(cells, below)
    return Grid(
        tuple(dict.fromkeys(column for column, *_ in found)),
        tuple(sorted({row for _, row, *_ in found}, key=lambda row: _place(row, rows))),
        {(c, r): None if i in out else n for i, (c, r, _, n, _) in enumerate(found)},
    )


def is_few(patients: int, below: int) -> bool:
    """Return whether a count of so many patients is hidden. That there is none may be shown."""
    return 0 < patients < below


def _place(row: str, rows: Sequence[str]) -> tuple[int, str]:
    return (rows.index(row) if row in rows else len(rows), row)


def _others(
    tables: OpenedTables, source: str, counted: str, kept: Sequence[Cell]
) -> tuple[int, int]:
    ((patients, n),) = tables.sql(
        f"SELECT count(DISTINCT person), {counted} AS n FROM {source} "
        "WHERE NOT list_contains($kept, value)",
        {"kept": [str(cell.key[0]) for cell in kept]},
    ).fetchall()
    return patients, n
