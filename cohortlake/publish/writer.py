"""Writes the published files, and records what each one holds.

There is one file per table and period, with a constant name; `patients` is one file. A file is
always replaced as a whole. See `plan` for which files are written.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.flatten import schema_with_pandas_dtypes
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import partition_sql, published_sql
from cohortlake.publish.marker import PublishedFile
from cohortlake.storage import engine
from cohortlake.storage.root import Root


class Writer:
    """Writes tables under a policy.

    Args:
        root: The lake.
        policy: The privacy policy.
        files: Path below the root -> the file that was published there before.

    Attributes:
        files: Path below the root -> the file that is there now.
        written: The paths that were written.
    """

    def __init__(self, root: Root, policy: Policy, files: dict[str, PublishedFile]) -> None:
        self._root, self._policy = root, policy
        self.files = dict(files)
        self.written: list[str] = []

    def write_periods(
        self, con: duckdb.DuckDBPyConnection, table: str, query: str, periods: Collection[str]
    ) -> None:
        """Write one file per period.

        If a period has no rows any more, its file is replaced by one without rows. Deleting it
        would break the query of a reader who has listed the file and not opened it yet.

        Args:
            con: The connection of the query.
            table: The published table.
            query: SQL for all columns of the table.
            periods: The periods to write.
        """
        columns, partition = self._columns(table), self._policy.partition
        rows = f"SELECT *, {partition_sql(self._policy)} AS period FROM ({query})"
        ordered = (
            f"SELECT {self.selected(table)}, period FROM ({rows}) "
            f"WHERE period IN {engine.text_list(periods)} ORDER BY {self._order(table)}"
        )
        with_period = columns.append(pa.field("period", partition.type))
        filled = set()
        for period, batches in _by_period(engine.batches(con, ordered, with_period)):
            self._write(self._path(table, period), columns, batches)
            filled.add(period)
        for path in (self._path(table, period) for period in sorted(set(periods) - filled)):
            if path in self.files or self._root.exists(path):
                self._write(path, columns, [])

    def write_whole(
        self, con: duckdb.DuckDBPyConnection, table: str, queries: Iterable[str]
    ) -> None:
        """Write a table without partitions.

        Args:
            con: The connection of the queries.
            table: The published table.
            queries: Queries for its columns as the policy shows them. Each is run before the next
                one is asked for.
        """
        columns = self._columns(table)
        names = ", ".join(columns.names)
        ordered = (f"SELECT {names} FROM ({query}) ORDER BY patient_key" for query in queries)
        batches = (batch for query in ordered for batch in engine.batches(con, query, columns))
        self._write(self._path(table), columns, batches)

    def register_whole(self, con: duckdb.DuckDBPyConnection, table: str) -> str:
        """Make a table without partitions readable, as it was published before.

        Returns:
            The name of a view of it.
        """
        view = f"published_{table}"
        engine.register(con, view, self._root, [self._path(table)], self._columns(table))
        return view

    def unwritten(self) -> list[str]:
        """Return the published files that this writer did not write."""
        written = set(self.written)
        return [p for p in self._root.files("published", ".parquet") if p not in written]

    def _columns(self, table: str) -> pa.Schema:
        shown = self._policy.shown(schema.published(table))
        return schema.arrow_schema(c for c in shown if c != self._policy.partition)

    def selected(self, table: str) -> str:
        """Return SQL for a table's columns as the policy shows them, over rows made safe."""
        sql = published_sql(schema.published(table), self._policy)
        return ", ".join(f"{sql[name]} AS {name}" for name in self._columns(table).names)

    def _order(self, table: str) -> str:
        # If only years are shown, an order by date would reveal the order of the days.
        day = "" if self._policy.dates is Treatment.YEAR else "StudyDate, "
        by = {"studies": f"{day}StudyInstanceUID"}
        return "period, " + by.get(table, f"Modality, {day}image_set_id")

    def _path(self, table: str, period: str = "") -> str:
        folder = f"published/{table}"
        if period:
            folder += f"/{self._policy.partition.name}={period}"
        return f"{folder}/{table}.parquet"

    def _write(self, path: str, columns: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        groups = _row_groups(batch.select(columns.names) for batch in batches)
        first = next(groups, pa.Table.from_batches([], columns))
        rows = 0
        with self._root.writing(path) as stream:
            hashed = _Hashed(stream)
            layout = _layout(columns, len(first))
            with pq.ParquetWriter(hashed, schema_with_pandas_dtypes(columns), **layout) as file:
                for group in itertools.chain([first], groups):
                    file.write_table(group, row_group_size=max(1, len(group)))
                    rows += len(group)
        self.files[path] = PublishedFile(rows, hashed.size_bytes, hashed.sha256)
        self.written.append(path)


class _Hashed(io.RawIOBase):
    """Writes to a stream, and records the size and the hash of what was written."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far, in hex."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Return true: this is a stream to write to."""
        return True

    def write(self, content: Any) -> int:
        """Write some bytes."""
        self._stream.write(content)
        self._hash.update(content)
        self.size_bytes += len(content)
        return len(content)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size_bytes


def _layout(columns: pa.Schema, group_rows: int) -> dict[str, Any]:
    """Return the layout of a file, from the number of rows in its first row group.

    Columns of ids get bloom filters, with which a reader finds the file that has an id. They get no
    dictionary, because it would hold each value once more.
    """
    ids = [name for name in columns.names if name in schema.IDS]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [field.name for field in columns if field.name not in ids],
        "bloom_filter_options": {name: {"ndv": max(1, group_rows), "fpp": 0.05} for name in ids},
    }


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches to row groups of at least `ROW_GROUP_ROWS` rows; the last may have fewer."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= engine.ROW_GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _by_period(
    batches: Iterable[pa.RecordBatch],
) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Yield the rows of each period, from a result that is ordered by period."""
    for period, group in itertools.groupby(_period_pieces(batches), key=lambda piece: piece[0]):
        yield period, (batch for _, batch in group)


def _period_pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for batch in batches:
        runs = pc.run_end_encode(batch["period"])
        start = 0
        for period, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield str(period), batch.slice(start, end - start)
            start = end
