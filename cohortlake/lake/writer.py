"""Writing the published files under a policy, and keeping account of them.

One file per table and study month under a constant name, replaced whole; `patients` is one
file. Which months are written, and from which rows, is `lake.publish`'s.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.lake import engine, touched
from cohortlake.lake.root import Root
from cohortlake.privacy import visible

_WHOLE = ""


class Writer:
    """Writes tables under a policy.

    Args:
        root: The lake.
        policy: The privacy policy.
        files: Path below the root -> rows, as they were published before.

    Attributes:
        files: The same, as it is now.
        written: Paths written.
        removed: Paths deleted.
    """

    def __init__(self, root: Root, policy: str, files: dict[str, int]) -> None:
        self._root, self._policy = root, policy
        self.files = dict(files)
        self.written: list[str] = []
        self.removed: list[str] = []

    def write_months(
        self, con: duckdb.DuckDBPyConnection, table: str, relation: str, months: Collection[str]
    ) -> None:
        """Write one file per month, and delete those of months that hold nothing now."""
        columns = self._columns(table)
        with_month = columns.append(pa.field("study_month", pa.string()))
        query = (
            f"SELECT {', '.join(with_month.names)} FROM {relation} "
            f"WHERE study_month IN {touched.listed(months)} ORDER BY {_order(table)}"
        )
        filled = set()
        for month, batches in _by_month(engine.batches(con, query, with_month)):
            self._write(_path(table, month), columns, batches)
            filled.add(month)
        for month in sorted(set(months) - filled):
            self._remove(_path(table, month))

    def write_whole(
        self, con: duckdb.DuckDBPyConnection, table: str, queries: Iterable[str]
    ) -> None:
        """Write a table that has no partitions, from queries one after the other."""
        columns = self._columns(table)
        names = ", ".join(columns.names)
        ordered = (f"SELECT {names} FROM ({query}) ORDER BY patient_key" for query in queries)
        batches = (batch for query in ordered for batch in engine.batches(con, query, columns))
        self._write(_path(table, _WHOLE), columns, batches)

    def register_whole(self, con: duckdb.DuckDBPyConnection, view: str, table: str) -> None:
        """Make a table without partitions readable as it was published before."""
        engine.register(con, view, self._root, [_path(table, _WHOLE)], self._columns(table))

    def remove_unwritten(self) -> None:
        """Delete what an earlier publication left and this whole one did not write."""
        for path in self._root.files("published", ".parquet"):
            if path not in self.written:
                self._remove(path)

    def _columns(self, table: str) -> pa.Schema:
        shown = visible(schema.published(table), self._policy)
        return schema.arrow_schema(column for column in shown if column != schema.STUDY_MONTH)

    def _write(self, path: str, columns: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        rows = 0
        with (
            self._root.writing(path) as stream,
            pq.ParquetWriter(stream, columns, compression="zstd", compression_level=3) as file,
        ):
            for batch in batches:
                file.write_batch(batch.select(columns.names))
                rows += len(batch)
        self.files[path] = rows
        self.written.append(path)

    def _remove(self, path: str) -> None:
        self.files.pop(path, None)
        if self._root.exists(path):
            self._root.delete(path)
            self.removed.append(path)


def _by_month(
    batches: Iterable[pa.RecordBatch],
) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Cut a result that is ordered by study_month into its months, without holding it."""
    for month, group in itertools.groupby(_month_pieces(batches), key=lambda piece: piece[0]):
        yield month, (batch for _, batch in group)


def _month_pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for batch in batches:
        runs = pc.run_end_encode(batch["study_month"])
        start = 0
        for month, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield str(month), batch.slice(start, end - start)
            start = end


def _order(table: str) -> str:
    by = {"studies": "StudyDate, StudyInstanceUID"}
    return "study_month, " + by.get(table, "Modality, StudyDate, image_set_id")


def _path(table: str, month: str) -> str:
    folder = f"published/{table}" + (f"/study_month={month}" if month else "")
    return f"{folder}/{table}.parquet"
