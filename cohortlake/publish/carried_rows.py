"""The rows of periods that are not complete yet: they wait for the batch that completes them.

A shifted year is made of two years of the version history. Each batch of months is read once. If it
has rows of an unfinished period, the rows of each table are kept in a temporary table, which DuckDB
spills to a file, until all periods of the batch are written. See `periods` for the batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from cohortlake.publish.periods import Batch


@dataclass(frozen=True)
class _Part:
    """The rows that one batch has of a published table.

    Attributes:
        name: A temporary table.
        periods: The periods of its rows.
    """

    name: str
    periods: frozenset[str]


class CarriedRows:
    """Keeps rows of each table until their period is complete.

    Args:
        con: The connection of the rows.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._parts: dict[str, list[_Part]] = {}
        self._count = 0

    def join(self, table: str, rows: str, batch: Batch) -> str:
        """Return SQL for the rows of a batch and those that were kept before.

        Args:
            table: The published table.
            rows: SQL for its rows in the batch, with `period`.
            batch: The batch.
        """
        parts = self._parts.setdefault(table, [])
        queries = [f"FROM {part.name}" for part in parts]
        if batch.unfinished:
            self._count += 1
            part = _Part(f"carried_{table}_{self._count}", batch.periods | batch.unfinished)
            self._con.execute(f"CREATE TEMP TABLE {part.name} AS {rows}")
            parts.append(part)
            rows = f"FROM {part.name}"
        return " UNION ALL ".join([*queries, f"({rows})"])

    def keep_unfinished(self, table: str, batch: Batch) -> None:
        """Drop the rows of which a batch completes all periods. They have been written."""
        kept = list[_Part]()
        for part in self._parts[table]:
            if part.periods & batch.unfinished:
                kept.append(part)
            else:
                self._con.execute(f"DROP TABLE {part.name}")
        self._parts[table] = kept
