"""The tables of an opened lake: views over the published files, and tables from outside.

Opening loads nothing: each table is a view over its files. See `cohort.lake` for what a notebook
does with them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.define import reserved
from cohortlake.cohort.define.steps import check_name
from cohortlake.cohort.select import outside_tables
from cohortlake.cohort.select.outside_tables import Attached
from cohortlake.cohort.select.rows import Rows, explained
from cohortlake.cohort.select.sources import OutsideTable
from cohortlake.dicom_values import SEPARATOR
from cohortlake.errors import (
    BadOutsideTable,
    BadQuery,
    DamagedFile,
    LakeClosed,
    UnknownTable,
)
from cohortlake.publish.publication.marker import Publication
from cohortlake.published import views
from cohortlake.published.read import PublishedTables
from cohortlake.storage import engine
from cohortlake.storage.root import Root


class OpenedTables:
    """The tables of a lake, opened for queries.

    Args:
        root: The lake.
        as_of: The instant that the tables show; None is now. `history` and `earlier_headers` are
            of all times.

    Attributes:
        root: The lake.
        as_of: The instant, or None.
        publication: What was published when the tables were opened.
        connection: DuckDB, with the tables as views.
        outside: Name -> the table that was attached from outside the lake.
        attached: Name of such a table -> how many of its keys are patients of the lake.

    Raises:
        NotALake: Nothing was ever published there.
        OldFormat: An older release published it.
    """

    def __init__(self, root: Root, as_of: datetime | None = None) -> None:
        self.root, self.as_of = root, as_of
        self.connection = engine.spilling()
        self.outside: dict[str, OutsideTable] = {}
        self.attached: dict[str, Attached] = {}
        self._value_counts: dict[tuple[str, str], Mapping[str, int]] = {}
        self._published = PublishedTables(root)
        self.publication = self._published.reading(self._create_views)

    def __reduce__(self) -> tuple[Callable[..., OpenedTables], tuple[object, ...]]:
        return _reopen, (self._readers_root, self.as_of, self.outside, self.attached)

    @property
    def _readers_root(self) -> str:
        return self.root.location_of("published").uri

    def __enter__(self) -> OpenedTables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and the rows that were not taken out yet."""
        self.connection.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tables. Those that were attached come last."""
        return (*schema.PUBLISHED, *self.outside)

    def described(self, table: str) -> tuple[schema.Column, ...]:
        """Return the columns of a table, as the policy shows them.

        Raises:
            UnknownTable: There is no such table.
        """
        if table not in self.names:
            raise UnknownTable(table, self.names)
        if table not in self.outside:
            return self.publication.shown(table)
        fields = self.outside[table].table.schema
        return tuple(schema.Column(f.name, f.type, "From outside the lake.") for f in fields)

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the names of the columns of a table.

        Raises:
            UnknownTable: There is no such table.
        """
        return tuple(column.name for column in self.described(table))

    def types(self, table: str) -> dict[str, pa.DataType]:
        """Return the names of the columns of a table, and their types.

        Raises:
            UnknownTable: There is no such table.
        """
        return {column.name: column.type for column in self.described(table)}

    def require_columns(self, names: Iterable[str], table: str, known: Iterable[str]) -> None:
        """Check that columns are known.

        Args:
            names: The columns.
            table: What should have them, in words for the error.
            known: The columns that it has.

        Raises:
            UnknownColumn: One is not there.
            ColumnNotShown: The policy does not show one.
        """
        there = list(known)
        for name in names:
            if name not in there:
                raise self.publication.unknown(name, table, there)

    @property
    def study_date(self) -> str:
        """The column with the date of a study: StudyDate, study_date_shifted or study_year."""
        there = self.columns("series")
        return next(form.name for form in schema.forms(schema.STUDY_DATE) if form.name in there)

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Run one SELECT over the tables, once its rows are asked for.

        Args:
            query: The SELECT, in the SQL of DuckDB.
            params: Values for `$name` in it.

        Raises:
            BadQuery: It cannot be run.
            ColumnNotShown: It names a column that the policy does not show.
        """
        if params is not None and not isinstance(params, Mapping):
            raise BadQuery(
                "give the values by name: lake.sql(\"FROM studies WHERE sex = $sex\", {'sex': 'F'})"
            )
        values = {name: _parameter(value) for name, value in (params or {}).items()}
        with self._explained():
            kinds = [statement.type for statement in self.connection.extract_statements(query)]
            if kinds != [duckdb.StatementType.SELECT]:
                raise BadQuery("a lake is only read: ask with one SELECT")
            relation = self.connection.sql(query, params=values or None)
        return Rows(relation, self._explained)

    def attach(
        self, name: str, source: object, date_formats: Mapping[str, str] | None = None
    ) -> Attached:
        """Add a table from outside the lake, with one row per patient.

        Args:
            name: Its name from now on.
            source: See `sources.read`.
            date_formats: Column of text -> how its dates are written, as `%d/%m/%Y`.

        Returns:
            How many of its keys are patients of the lake. A warning says so too where that is
            suspicious.

        Raises:
            BadCriteria: The name cannot be used.
            BadOutsideTable: It cannot be read, is not one row per patient, or has a name or a
                column that is taken.
        """
        check_name(name, "a table's name")
        if name in {*schema.PUBLISHED, *reserved.TABLES} or name.startswith("step_"):
            raise BadOutsideTable(f"{name!r} is already a table of the lake; take another name")
        shown = self.columns("patients")
        self._register(name, outside_tables.read(self.connection, source, date_formats, shown))
        attached = outside_tables.matches(self.connection, name, self.outside[name].table)
        if attached.is_suspicious:
            warnings.warn(str(attached), stacklevel=3)
        self.attached[name] = attached
        return attached

    def attach_unnamed(self, source: object, taken: Collection[str]) -> str:
        """Attach a table for one cohort, and return the name that it gets.

        A file gets its own name, and other tables are called `joined`, `joined_2` and so on. A
        table that has such a name keeps it, because other cohorts may join it.

        Args:
            source: See `sources.read`.
            taken: Names that the cohort joins already.

        Raises:
            BadCriteria: The name of the file cannot be the name of a table.
            BadOutsideTable: See `attach`. Two tables without a name have the same column.
        """
        if isinstance(source, str | os.PathLike):
            name = Path(source).stem
            self.attach(name, source)
            return name
        table = outside_tables.read(self.connection, source, None, self.columns("patients")).table
        for number in itertools.count(1):
            name = "joined" if number == 1 else f"joined_{number}"
            there = self.outside.get(name)
            if name not in taken and (there is None or there.table.equals(table)):
                break
        shared = {*table.column_names} & {
            column for other in self.outside.keys() - {name} for column in self.columns(other)
        } - {outside_tables.KEY}
        if shared:
            raise BadOutsideTable(
                f"{min(shared)!r} is a column of another table that was attached. Rename it, or "
                "give the table the name of that one, to put it in its place: "
                'join(frame, name="...")'
            )
        self.attach(name, table)
        return name

    def attach_from(self, other: OpenedTables, names: Iterable[str]) -> None:
        """Attach outside tables that are attached to other opened tables."""
        for name in names:
            self._register(name, other.outside[name])

    def outside_table(self, name: str) -> OutsideTable:
        """Return a table that was attached.

        Raises:
            UnknownTable: None was attached under that name.
        """
        if name not in self.outside:
            remedy = f"; attach it with lake.attach({name!r}, ...)"
            raise UnknownTable(name, self.outside, remedy)
        return self.outside[name]

    def require_dates(self, table: str, column: str) -> None:
        """Check that each value of a column of an outside table is a date.

        Raises:
            UnknownTable: None was attached under that name.
            BadOutsideTable: One is not; the message names the column and the line.
        """
        outside_tables.require_dates(table, self.outside_table(table), column)

    def has_withheld(self, table: str, column: str) -> bool:
        """Return whether the policy withholds a value of a column in some row of a table."""
        key = table, schema.WITHHELD_FIELDS.name
        if key not in self._value_counts:
            fields = f"SELECT unnest({schema.WITHHELD_FIELDS.name}) AS field FROM {table}"
            counts = f"SELECT field, count(*) FROM ({fields}) GROUP BY field"
            self._value_counts[key] = dict(self.sql(counts).fetchall())
        return column in self._value_counts[key]

    def occurs(self, table: str, column: str, value: object) -> bool:
        """Return whether any row of a table has a value; of a list, whether any list has it."""
        has = f'"{column}" = $value'
        if self.types(table)[column] == pa.list_(pa.string()):
            has = f'list_contains("{column}", $value)'
        query = f"SELECT EXISTS (FROM {table} WHERE {has})"
        return bool(self.sql(query, {"value": value}).fetchall()[0][0])

    def value_counts(self, table: str, column: str) -> Mapping[str, int]:
        """Return the values of a column of text, with the number of rows that have each.

        A text of several values counts for each of them too.
        """
        if (table, column) not in self._value_counts:
            counts = (
                f'SELECT "{column}", count("{column}") AS n FROM {table} GROUP BY 1 HAVING n > 0'
            )
            found: Counter[str] = Counter()
            for text, rows in self.sql(counts).fetchall():
                for value in {text, *text.split(SEPARATOR)}:
                    found[value] += rows
            self._value_counts[table, column] = found
        return self._value_counts[table, column]

    def _register(self, name: str, outside: OutsideTable) -> None:
        others = self.outside.keys() - {name}
        known = {c for other in (*schema.PUBLISHED, *others) for c in self.columns(other)}
        outside_tables.check_columns(outside.table, known | reserved.COLUMNS)
        self.connection.register(name, outside.table)
        self.outside[name] = outside

    def _create_views(self, publication: Publication) -> Publication:
        with engine.explained(self.connection):
            views.create(self.connection, self.root, publication, self.as_of)
        return publication

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Explain errors of a query: of the files of the lake, or of the query itself."""
        try:
            with (
                explained(self.names, self._all_columns, self.publication.not_shown),
                engine.explained(self.connection),
            ):
                yield
        except DamagedFile:
            if self._published.publication().files == self.publication.files:
                raise
            raise LakeClosed(
                "the lake was published again after it was opened, and files that it reads are "
                "gone; open it again"
            ) from None

    @property
    def _all_columns(self) -> frozenset[str]:
        return frozenset(column for table in self.names for column in self.columns(table))


def _parameter(value: Any) -> Any:
    """Return a value of a query as DuckDB takes it: it takes no NumPy number, set or Series."""
    if isinstance(value, Set | range):
        return list(value)
    if hasattr(value, "tolist") and "datetime64" not in type(value).__name__:
        return value.tolist()  # of a scalar of NumPy it is one value
    return value.to_pylist() if hasattr(value, "to_pylist") else value


def _reopen(
    root: str,
    as_of: datetime | None,
    outside: dict[str, OutsideTable],
    attached: dict[str, Attached],
) -> OpenedTables:
    """Open tables that were pickled, as they are published now."""
    tables = OpenedTables(Root(root), as_of)
    for name, table in outside.items():
        tables._register(name, table)
    tables.attached = attached
    return tables
