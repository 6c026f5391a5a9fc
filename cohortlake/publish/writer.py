"""Writes the published files, and records what each one holds.

There is one file per table and period, with a constant name. The periods of `patients` are no
folders. A file is always replaced as a whole. See `plan` for which files are written, and
`parquet_file` for what is in one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import partition_sql, published_sql
from cohortlake.publish.carried_rows import RowsOfPeriods
from cohortlake.publish.parquet_file import Entities, replace_rows, write
from cohortlake.publish.publication import intact
from cohortlake.publish.publication.marker import PublishedFile
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_CHUNK_ROWS = 100_000
_WAITING_ROWS = 50_000
_FILES_AT_ONCE = min(4, os.cpu_count() or 1)  # a row group of each is in memory


@dataclass(frozen=True)
class _Replacement:
    """A file in which rows are replaced.

    Attributes:
        table: Its table.
        path: The file, below the root.
        entities: The studies or patients whose rows are replaced.
        new_rows: Their new rows, in order.
    """

    table: str
    path: str
    entities: Entities
    new_rows: Iterable[pa.RecordBatch]


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
        self._waiting: list[_Replacement] = []
        self._waiting_rows = 0

    def write(self, table: str, rows: RowsOfPeriods, periods: Collection[str]) -> None:
        """Write one file per period.

        If a period has no rows any more, its file is replaced by one without rows. Deleting it
        would break the query of a reader who has listed the file and not opened it yet.

        Args:
            table: The published table.
            rows: Its rows. See `read_periods`.
            periods: The periods to write.
        """
        columns, filled = self._columns(table), set()
        for period, batches in rows:
            self._write(self._path(table, period), columns, batches)
            filled.add(period)
        for path in (self._path(table, period) for period in sorted(set(periods) - filled)):
            if path in self.files or self._root.exists(path):
                self._write(path, columns, [])

    def replace(
        self, table: str, rows: RowsOfPeriods, periods: Collection[str], entities: Entities
    ) -> None:
        """Replace the rows of some studies or patients in the files of some periods.

        Files with few new rows wait for `finish`, which writes several at once. A file in which all
        these rows are the same as before is left as it is.

        Args:
            table: The published table.
            rows: Their new rows. See `read_periods`.
            periods: The periods to write.
            entities: Whose rows are replaced.

        Raises:
            DamagedFile: A file does not hold what was written, so its rows cannot be kept.
        """
        without_rows = set(periods)
        for period, batches in rows:
            without_rows.discard(period)
            given, held, count = iter(batches), list[pa.RecordBatch](), 0
            for batch in given:
                held.append(batch)
                count += len(batch)
                if count > _WAITING_ROWS:
                    break
            has_too_many = count > _WAITING_ROWS  # the others are read when its file is written
            if self._waiting_rows + count > _WAITING_ROWS:
                self.finish()
            new_rows = itertools.chain(held, given) if has_too_many else held
            self._waiting.append(_Replacement(table, self._path(table, period), entities, new_rows))
            self._waiting_rows += count
            if has_too_many:
                self.finish()
        paths = (self._path(table, period) for period in sorted(without_rows))
        self._waiting += [_Replacement(table, path, entities, ()) for path in paths]

    def finish(self) -> None:
        """Write the files whose rows are to be replaced, each by a thread, the largest first.

        Raises:
            DamagedFile: A file does not hold what was written, so its rows cannot be kept.
        """
        waiting = sorted(self._waiting, key=self._rows_there, reverse=True)
        self._waiting, self._waiting_rows = [], 0
        large = sum(self._rows_there(one) > _CHUNK_ROWS for one in waiting)
        for some, at_once in ((waiting[:large], 2), (waiting[large:], _FILES_AT_ONCE)):
            with ThreadPoolExecutor(at_once) as pool:
                for one, file in zip(some, pool.map(self._replaced, some), strict=True):
                    if file:
                        self._add(one.path, file)

    def _rows_there(self, one: _Replacement) -> int:
        return self.files[one.path].rows if one.path in self.files else 0

    def _replaced(self, one: _Replacement) -> PublishedFile | None:
        columns, order = self._columns(one.table), self.order(one.table)
        tables = (pa.Table.from_batches([batch]) for batch in one.new_rows)
        if one.path in self.files:
            written, reader = self.files[one.path], self._root.reader("published")
            return replace_rows(
                self._root, one.path, written, columns, order, one.entities, tables, reader
            )
        if one.new_rows or self._root.exists(one.path):
            return write(self._root, one.path, columns, tables)
        return None

    def read_periods(self, con: duckdb.DuckDBPyConnection, table: str, rows: str) -> RowsOfPeriods:
        """Yield a table's rows, period by period, in the order of the table.

        Args:
            con: The connection of the rows.
            table: The published table.
            rows: SQL for its rows as the policy shows them, and the period of each.
        """
        ordered = f"SELECT * FROM ({rows}) ORDER BY period, {', '.join(self.order(table))}"
        with_period = self._columns(table).append(pa.field("period", self._policy.partition.type))
        return _by_period(engine.batches(con, ordered, with_period))

    def in_memory(
        self, table: str, periods: Collection[str], most: int = _CHUNK_ROWS
    ) -> Iterator[list[str]]:
        """Yield periods in order, as many together as their rows fit into memory.

        One query for many small files takes a fraction of the time of one for each.

        Args:
            table: The published table.
            periods: The periods.
            most: How many rows fit into memory.
        """
        return _cut({period: self._rows(table, period) for period in periods}, most)

    def _rows(self, table: str, period: str) -> int:
        file = self.files.get(self._path(table, period))
        return file.rows if file else 0

    def in_periods(self, table: str, query: str, periods: Collection[str]) -> str:
        """Return SQL for a table's rows as the policy shows them, and the period of each.

        Args:
            table: The published table.
            query: SQL for all columns of the table, over rows made safe.
            periods: The periods whose rows are wanted.
        """
        rows = f"SELECT *, {partition_sql(self._policy)} AS period FROM ({query})"
        return f"SELECT {self.selected(table)}, period FROM ({_of_periods(rows, periods)})"

    def create_table(self, con: duckdb.DuckDBPyConnection, name: str, table: str) -> None:
        """Create an empty temporary table with the columns of a published table."""
        con.register("no_rows", pa.Table.from_batches([], self._columns(table)))
        con.execute(f"CREATE TEMP TABLE {name} AS FROM no_rows")
        con.unregister("no_rows")

    def write_period(
        self, con: duckdb.DuckDBPyConnection, table: str, period: str, queries: Iterable[str]
    ) -> None:
        """Write the file of one period.

        Args:
            con: The connection of the queries.
            table: The published table.
            period: The period.
            queries: Queries for its columns as the policy shows them, in the order of the table.
        """
        columns, order = self._columns(table), ", ".join(self.order(table))
        ordered = (f"SELECT * FROM ({query}) ORDER BY {order}" for query in queries)
        batches = (batch for query in ordered for batch in engine.batches(con, query, columns))
        self._write(self._path(table, period), columns, batches)

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
        reader = self._root.reader("published")
        for path in paths:
            if not intact.holds_what_was_written(self._root, path, self.files[path], reader):
                raise DamagedFile(path)
        engine.register(con, view, self._root, paths, columns, reader)

    def has_file(self, table: str, period: str) -> bool:
        """Return whether a table has a file of a period."""
        return self._path(table, period) in self.files

    def retire_others(self) -> list[str]:
        """Name the published files that this writer did not write, and empty them.

        They are removed after the marker is written. Until then patterns still match them, such as
        those of the views, and they may have the columns of another policy.
        """
        written = set(self.written)
        others = [p for p in self._root.files("published", ".parquet") if p not in written]
        for table in schema.PUBLISHED:
            patterns = [self._path(table, period) for period in ("", "*")]
            for path in (p for p in others if any(fnmatchcase(p, each) for each in patterns)):
                write(self._root, path, self._columns(table), ())
        return others

    def _columns(self, table: str) -> pa.Schema:
        shown = self._policy.shown(schema.published(table))
        return schema.arrow_schema(c for c in shown if c != self._policy.partition)

    def selected(self, table: str) -> str:
        """Return SQL for a table's columns as the policy shows them, over rows made safe."""
        sql = published_sql(schema.published(table), self._policy)
        return ", ".join(f"{sql[name]} AS {name}" for name in self._columns(table).names)

    def order(self, table: str) -> list[str]:
        """Return the columns by which the rows of a file are sorted, of those that are shown.

        A hidden column would show through the order.
        """
        # If only years are shown, an order by date would reveal the order of the days.
        day = () if self._policy.dates is Treatment.YEAR else ("StudyDate",)
        wanted = {
            "studies": (*day, "StudyInstanceUID"),
            "history": ("Modality", *day, "image_set_id", "version", "valid_from"),
            "series_headers": ("image_set_id",),
            "earlier_headers": ("image_set_id", "version"),
            "patients": ("patient_key",),
        }.get(table, ("Modality", *day, "image_set_id"))
        by_name = {column.name: column for column in schema.published(table)}
        shown = (self._policy.shown_as(by_name[name]) for name in wanted)
        return [column.name for column in shown if column]

    def _path(self, table: str, period: str) -> str:
        if table == "patients":
            return f"published/{table}/{table}{period and f'-{period}'}.parquet"
        return f"published/{table}/{self._policy.partition.name}={period}/{table}.parquet"

    def _write(self, path: str, columns: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        self._add(path, write(self._root, path, columns, batches))

    def _add(self, path: str, file: PublishedFile) -> None:
        self.files[path] = file
        self.written.append(path)


def _of_periods(query: str, periods: Collection[str]) -> str:
    """Return SQL for the rows of a query that lie in some periods."""
    return f"SELECT * FROM ({query}) WHERE period IN {engine.text_list(periods)}"


def _cut(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield periods in order, as many together as have so many rows."""
    some, rows = list[str](), 0
    for period in sorted(sizes):
        if some and rows + sizes[period] > most:
            yield some
            some, rows = [], 0
        some.append(period)
        rows += sizes[period]
    if some:
        yield some


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
