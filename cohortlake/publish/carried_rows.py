"""The rows of periods that are not complete yet: they wait for the batch that completes them.

A shifted year is made of two years of the version history. Each batch of months is read once, and
its rows of an unfinished period are kept in temporary tables, which DuckDB spills to a file. See
`periods` for the batches.
"""

from __future__ import annotations

import duckdb

from cohortlake.publish.periods import Batch
from cohortlake.storage import engine


class CarriedRows:
    """Keeps rows of each table until their period is complete.

    Args:
        con: The connection of the rows.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._carried = set[str]()

    def join(self, table: str, rows: str, batch: Batch) -> str:
        """Return SQL for the rows of a batch and those that were kept before.

        Args:
            table: The published table.
            rows: SQL for its rows in the batch, with `period`.
            batch: The batch.
        """
        name = _name(table)
        if not batch.unfinished:
            return f"({rows}) UNION ALL FROM {name}" if table in self._carried else rows
        if table not in self._carried:
            self._con.execute(f"CREATE TEMP TABLE {name} AS {rows}")
            self._carried.add(table)
        else:
            self._con.execute(f"INSERT INTO {name} {rows}")
        return f"FROM {name}"

    def keep_unfinished(self, table: str, batch: Batch) -> None:
        """Drop the rows of the periods that a batch completes. They have been written."""
        name = _name(table)
        if table not in self._carried:
            return
        if not batch.unfinished:
            self._con.execute(f"DROP TABLE {name}")
            self._carried.remove(table)
        elif batch.periods:
            # Deleted rows would keep their memory.
            self._con.execute(f"""
                CREATE OR REPLACE TEMP TABLE {name} AS
                FROM {name} WHERE period NOT IN {engine.text_list(batch.periods)}
            """)


def _name(table: str) -> str:
    return f"carried_{table}"
