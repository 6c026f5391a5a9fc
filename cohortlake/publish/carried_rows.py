"""The rows of periods that are not complete yet: they wait for the batch that completes them.

A shifted year is made of two years of the version history. Each batch of months is read once. If it
has rows of an unfinished period, the rows of each table are kept in a file, which takes a fraction
of their memory, until all periods of the batch are written. See `periods` for the batches.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cohortlake.publish.periods import Batch
from cohortlake.storage import engine, locks

_ROW_GROUP_ROWS = 20_480  # a row group of each thread is in memory


@dataclass(frozen=True)
class _Part:
    """The rows that one batch has of a published table.

    Attributes:
        path: A Parquet file.
        periods: The periods of its rows.
    """

    path: Path
    periods: frozenset[str]


class CarriedRows:
    """Keeps rows of each table until their period is complete.

    A context manager: at its end, no file is left.

    Args:
        con: The connection of the rows.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._parts: dict[str, list[_Part]] = {}
        self._count = 0
        self._files = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> CarriedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def join(self, table: str, rows: str, batch: Batch) -> str:
        """Return SQL for the rows of a batch and those that were kept before.

        Args:
            table: The published table.
            rows: SQL for its rows in the batch, with `period`.
            batch: The batch.
        """
        parts = self._parts.setdefault(table, [])
        queries = [] if batch.unfinished else [f"({rows})"]
        if batch.unfinished:
            parts.append(_Part(self._written(rows), batch.periods | batch.unfinished))
        if parts:
            paths = ", ".join(engine.quoted(engine.literally(str(part.path))) for part in parts)
            # The names of the folders above are no columns.
            queries.append(f"FROM read_parquet([{paths}], hive_partitioning = false)")
        return " UNION ALL ".join(queries)

    def keep_unfinished(self, table: str, batch: Batch) -> None:
        """Delete the rows of which a batch completes all periods. They have been written."""
        kept = list[_Part]()
        for part in self._parts[table]:
            if part.periods & batch.unfinished:
                kept.append(part)
            else:
                part.path.unlink()
        self._parts[table] = kept

    def _written(self, rows: str) -> Path:
        if self._folder is None:
            # They may be PHI: the folder is private, and the next run deletes it after a kill.
            self._folder = self._files.enter_context(locks.temporary_folder())
        self._count += 1
        path = self._folder / f"{self._count}.parquet"
        self._con.execute(f"""
            COPY ({rows}) TO {engine.quoted(str(path))} (
                FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {_ROW_GROUP_ROWS}
            )
        """)
        return path
