"""Writing the published files under a policy, and keeping account of them.

One file per table and period under a constant name, replaced whole; `patients` is one file.
Which periods are written, and from which rows, is `publish.publisher`'s.
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
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import partition_sql, published_sql
from cohortlake.publish import plan
from cohortlake.publish.marker import PublishedFile
from cohortlake.storage import engine
from cohortlake.storage.root import Root


class Writer:
    """Writes tables under a policy.

    Args:
        root: The lake.
        policy: The privacy policy.
        files: Path below the root -> what was published there before.

    Attributes:
        files: The same, as it is now.
        written: Paths written.
    """

    def __init__(self, root: Root, policy: Policy, files: dict[str, PublishedFile]) -> None:
        self._root, self._policy = root, policy
        self.files = dict(files)
        self.written: list[str] = []

    def write_periods(
        self, con: duckdb.DuckDBPyConnection, table: str, relation: str, periods: Collection[str]
    ) -> None:
        """Write one file per period.

        The file of a period that holds nothing any more is replaced by one without rows. To delete
        it would break the query of a reader who has listed it and has yet to open it.
        """
        columns, partition = self._columns(table), self._policy.partition
        rows = f"SELECT *, {partition_sql(self._policy)} AS period FROM {relation}"
        query = (
            f"SELECT {self.selected(table)}, period FROM ({rows}) "
            f"WHERE period IN {plan.listed(periods)} ORDER BY {self._order(table)}"
        )
        with_period = columns.append(pa.field("period", partition.type))
        filled = set()
        for period, batches in _by_period(engine.batches(con, query, with_period)):
            self._write(self._path(table, period), columns, batches)
            filled.add(period)
        for path in (self._path(table, period) for period in sorted(set(periods) - filled)):
            if path in self.files or self._root.exists(path):
                self._write(path, columns, [])

    def write_whole(
        self, con: duckdb.DuckDBPyConnection, table: str, queries: Iterable[str]
    ) -> None:
        """Write a table that has no partitions, from queries for its columns as shown."""
        columns = self._columns(table)
        names = ", ".join(columns.names)
        ordered = (f"SELECT {names} FROM ({query}) ORDER BY patient_key" for query in queries)
        batches = (batch for query in ordered for batch in engine.batches(con, query, columns))
        self._write(self._path(table), columns, batches)

    def register_whole(self, con: duckdb.DuckDBPyConnection, view: str, table: str) -> None:
        """Make a table without partitions readable as it was published before."""
        engine.register(con, view, self._root, [self._path(table)], self._columns(table))

    def unwritten(self) -> list[str]:
        """Return the files that earlier publications wrote and this whole one did not."""
        written = set(self.written)
        return [p for p in self._root.files("published", ".parquet") if p not in written]

    def _columns(self, table: str) -> pa.Schema:
        shown = self._policy.shown(schema.published(table))
        return schema.arrow_schema(c for c in shown if c != self._policy.partition)

    def selected(self, table: str) -> str:
        """Return SQL for a table's columns as they are shown, over rows made safe."""
        sql = published_sql(schema.published(table), self._policy)
        return ", ".join(f"{sql[name]} AS {name}" for name in self._columns(table).names)

    def _order(self, table: str) -> str:
        # Where only years are shown, an order by date would tell the days.
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
            with pq.ParquetWriter(hashed, columns, **_layout(columns, len(first))) as file:
                for group in itertools.chain([first], groups):
                    file.write_table(group, row_group_size=max(1, len(group)))
                    rows += len(group)
        self.files[path] = PublishedFile(rows, hashed.size_bytes, hashed.sha256)
        self.written.append(path)


class _Hashed(io.RawIOBase):
    """Writes to a stream, and keeps the size and the hash of what was written."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The hash of what was written so far, in hex."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Say that it can be written to."""
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
    """Return how a file is laid out, given the rows of its first row group.

    Ids get bloom filters, by which a reader finds the one file that has an id, and no
    dictionary, which would say each value once more.
    """
    ids = [name for name in columns.names if name in schema.IDS]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [field.name for field in columns if field.name not in ids],
        "bloom_filter_options": {name: {"ndv": max(1, group_rows), "fpp": 0.05} for name in ids},
    }


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches to row groups of no fewer than so many rows, but for the last one."""
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
    """Cut a result that is ordered by period into its periods, without holding it."""
    for period, group in itertools.groupby(_period_pieces(batches), key=lambda piece: piece[0]):
        yield period, (batch for _, batch in group)


def _period_pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for batch in batches:
        runs = pc.run_end_encode(batch["period"])
        start = 0
        for period, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield str(period), batch.slice(start, end - start)
            start = end
