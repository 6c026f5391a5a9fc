"""Writes the published files, and records what each one holds.

There is one file per table and period, with a constant name; `patients` is one file. A file is
always replaced as a whole. See `plan` for which files are written.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.flatten import schema_with_pandas_dtypes
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import partition_sql, published_sql
from cohortlake.publish.publication import intact
from cohortlake.publish.publication.marker import PublishedFile
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_RANGE_ROWS = 500_000  # of patients
_CHUNK_ROWS = 100_000  # of the other tables, which have more columns
_BUFFER_BYTES = 1024 * 1024  # Arrow writes some bytes at a time, each with a call into Python


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
            query: SQL of `in_periods` for these periods, and perhaps for others.
            periods: The periods to write.
        """
        if periods:
            self.write_rows(con, table, _of_periods(query, periods), periods)

    def replace_studies(
        self,
        con: duckdb.DuckDBPyConnection,
        table: str,
        query: str,
        periods: Collection[str],
        studies: str,
    ) -> None:
        """Write one file per period, in which the rows of some studies are replaced.

        A file in which all these rows are the same as before is left as it is.

        Args:
            con: The connection of the query.
            table: The published table.
            query: SQL of `in_periods` for the new rows of the studies.
            periods: The periods to write.
            studies: A relation of the studies, as they are published: datastore_id,
                StudyInstanceUID.

        Raises:
            DamagedFile: A file does not hold what was written, so its rows cannot be kept.
        """
        if not periods:
            return
        columns, partition = self._columns(table), self._policy.partition
        names = ", ".join(columns.names)
        with_partition = columns.append(pa.field(partition.name, partition.type))
        con.execute(f"CREATE OR REPLACE TEMP TABLE replacing AS {_of_periods(query, periods)}")
        is_of_study = _IS_OF_STUDY.format(studies=studies)
        for some in self.in_memory(table, periods):
            new_rows = _of_periods("FROM replacing", some)
            kept = [path for period in some if (path := self._path(table, period)) in self.files]
            if not kept:
                self.write_rows(con, table, new_rows, some)
                continue
            self._register_kept(con, "kept", kept, with_partition)
            of_kept = f"SELECT {names}, {partition.name} AS period FROM kept"
            former = f"{of_kept} SEMI JOIN {studies} ON {is_of_study}"
            differences = f"SELECT DISTINCT period FROM ({_differences(new_rows, former)})"
            differing = [str(period) for (period,) in con.execute(differences).fetchall()]
            rows = f"{new_rows} UNION ALL {of_kept} ANTI JOIN {studies} ON {is_of_study}"
            written = _of_periods(rows, differing)
            if differing:
                self.write_rows(con, table, written, differing)
        con.execute("DROP TABLE replacing")

    def write_rows(
        self, con: duckdb.DuckDBPyConnection, table: str, rows: str, periods: Collection[str]
    ) -> None:
        """Write one file per period.

        Args:
            con: The connection of the rows.
            table: The published table.
            rows: SQL for the table's rows as the policy shows them, and the period of each.
            periods: The periods to write.
        """
        columns = self._columns(table)
        ordered = f"SELECT * FROM ({rows}) ORDER BY period, {self._order(table)}"
        with_period = columns.append(pa.field("period", self._policy.partition.type))
        filled = set()
        for period, batches in _by_period(engine.batches(con, ordered, with_period)):
            self._write(self._path(table, period), columns, batches)
            filled.add(period)
        for path in (self._path(table, period) for period in sorted(set(periods) - filled)):
            if path in self.files or self._root.exists(path):
                self._write(path, columns, [])

    def in_memory(self, table: str, periods: Collection[str]) -> Iterator[list[str]]:
        """Yield periods in order, as many together as their rows fit into memory.

        One query for many small files takes a fraction of the time of one for each.
        """
        some, rows = list[str](), 0
        for period in sorted(periods):
            file = self.files.get(self._path(table, period))
            more = file.rows if file else 0
            if some and rows + more > _CHUNK_ROWS:
                yield some
                some, rows = [], 0
            some.append(period)
            rows += more
        if some:
            yield some

    def _register_kept(
        self,
        con: duckdb.DuckDBPyConnection,
        view: str,
        paths: Collection[str],
        columns: pa.Schema,
    ) -> None:
        """Make published files readable, if they hold what was written.

        What is wrong in one would look right afterwards, because its hash is written again.
        """
        reader = self._root.reader("published")
        for path in paths:
            if not intact.holds_what_was_written(self._root, path, self.files[path], reader):
                raise DamagedFile(path)
        engine.register(con, view, self._root, list(paths), columns, reader)

    def in_periods(self, table: str, query: str, periods: Collection[str]) -> str:
        """Return SQL for a table's rows as the policy shows them, and the period of each.

        Args:
            table: The published table.
            query: SQL for all columns of the table, over rows made safe.
            periods: The periods whose rows are wanted.
        """
        rows = f"SELECT *, {partition_sql(self._policy)} AS period FROM ({query})"
        return f"SELECT {self.selected(table)}, period FROM ({_of_periods(rows, periods)})"

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

    def replace_whole(
        self, con: duckdb.DuckDBPyConnection, table: str, new_rows: str, patients: str
    ) -> None:
        """Write a table without partitions, in which the rows of some patients are replaced.

        If all these rows are the same as before, the file is left as it is.

        Args:
            con: The connection of the relations.
            table: The published table.
            new_rows: A relation of these patients' new rows, as the policy shows them.
            patients: A relation of the patients, with patient_key.

        Raises:
            DamagedFile: The file does not hold what was written, so its rows cannot be kept.
        """
        columns, path = self._columns(table), self._path(table)
        names = ", ".join(columns.names)
        self._register_kept(con, "kept", [path], columns)
        rows = f"SELECT {names} FROM {new_rows}"
        former = f"SELECT {names} FROM kept SEMI JOIN {patients} USING (patient_key)"
        if not con.execute(f"{_differences(rows, former)} LIMIT 1").fetchall():
            return
        rows += f" UNION ALL SELECT {names} FROM kept ANTI JOIN {patients} USING (patient_key)"
        self.write_whole(
            con,
            table,
            (
                f"SELECT * FROM ({rows}) WHERE {keys}"
                for keys in ranges_of_keys(self.files[path].rows, _RANGE_ROWS)
            ),
        )

    def register_published(
        self, con: duckdb.DuckDBPyConnection, view: str, table: str, periods: Collection[str]
    ) -> None:
        """Make the files of some periods readable as they are now, with their partition.

        Raises:
            DamagedFile: A file does not hold what was written.
        """
        columns, partition = self._columns(table), self._policy.partition
        paths = [path for period in periods if (path := self._path(table, period)) in self.files]
        columns = columns.append(pa.field(partition.name, partition.type))
        self._register_kept(con, view, paths, columns)

    def has_file(self, table: str, period: str) -> bool:
        """Return whether a table has a file of a period."""
        return self._path(table, period) in self.files

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
        """Return the columns by which the rows of a file are sorted, of those that are shown.

        A hidden column would show through the order.
        """
        # If only years are shown, an order by date would reveal the order of the days.
        day = () if self._policy.dates is Treatment.YEAR else ("StudyDate",)
        wanted = {
            "studies": (*day, "StudyInstanceUID"),
            "history": ("Modality", *day, "image_set_id", "version", "valid_from"),
            "series_headers": ("image_set_id",),
        }.get(table, ("Modality", *day, "image_set_id"))
        by_name = {column.name: column for column in schema.published(table)}
        shown = (self._policy.shown_as(by_name[name]) for name in wanted)
        return ", ".join(column.name for column in shown if column)

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
            with (
                pa.BufferedOutputStream(pa.PythonFile(hashed, mode="w"), _BUFFER_BYTES) as buffered,
                pq.ParquetWriter(buffered, _in_file(columns), **layout) as file,
            ):
                for group in itertools.chain([first], groups):
                    file.write_table(group, row_group_size=max(1, len(group)))
                    rows += len(group)
        self.files[path] = PublishedFile(rows, hashed.size_bytes, hashed.sha256)
        self.written.append(path)


_IS_OF_STUDY = """
kept.datastore_id = {studies}.datastore_id
AND kept.StudyInstanceUID IS NOT DISTINCT FROM {studies}.StudyInstanceUID
"""


def _of_periods(query: str, periods: Collection[str]) -> str:
    """Return SQL for the rows of a query that lie in some periods."""
    return f"SELECT * FROM ({query}) WHERE period IN {engine.text_list(periods)}"


def _differences(rows: str, other_rows: str) -> str:
    """Return SQL for the rows that only one of two queries gives, or gives more often."""
    return f"""
        SELECT * EXCLUDE (side) FROM (
            SELECT *, 1 AS side FROM ({rows}) UNION ALL SELECT *, -1 FROM ({other_rows})
        ) GROUP BY ALL HAVING sum(side) <> 0
    """


def ranges_of_keys(rows: int, most: int) -> Iterator[str]:
    """Yield conditions on patient_key, in order, that cut rows into ranges.

    Args:
        rows: The number of rows.
        most: About how many rows a range may have. Keys are hashes, so that they spread evenly.
    """
    count = max(1, math.ceil(rows / most))
    starts = [f"{number * 16**8 // count:08x}" for number in range(1, count)]
    for first, end in itertools.pairwise(["", *starts, "g"]):
        yield f"patient_key >= '{first}' AND patient_key < '{end}'"


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


_in_file = functools.lru_cache(maxsize=8)(schema_with_pandas_dtypes)
"""The same schema for each of the many files of a table."""


def _layout(columns: pa.Schema, group_rows: int) -> dict[str, Any]:
    """Return the layout of a file, from the number of rows in its first row group.

    Columns of ids get bloom filters, with which a reader finds the file that has an id. They get no
    dictionary, because it would hold each value once more.
    """
    ids = [name for name in columns.names if name in schema.IDS]
    return {
        "compression": "zstd",
        "compression_level": 1,  # UIDs and hashes get larger, not smaller, with more effort
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
