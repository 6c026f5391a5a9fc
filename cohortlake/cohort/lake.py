"""A lake opened for reading: its tables, what they mean, SQL over them, and cohorts.

Owns the connection. Opening loads nothing: each table is a view over its files. Reads
`published/` only, so a reader with no right on the restricted zone can do all of it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.cohort import Cohort, drawn
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.steps import check_name
from cohortlake.cohort.freeze import digest
from cohortlake.cohort.freeze.manifest import Manifest, numbers_of
from cohortlake.cohort.freeze.manifest import read as read_manifest
from cohortlake.cohort.freeze.signature import read_key
from cohortlake.cohort.freeze.verify import Difference, Verification, diff, verify
from cohortlake.cohort.select import outside_tables, views, withheld
from cohortlake.cohort.select.outside_tables import Attached
from cohortlake.cohort.select.rows import Rows, explained
from cohortlake.cohort.select.sources import Read
from cohortlake.dicom_values import SEPARATOR
from cohortlake.errors import (
    BadCriteria,
    BadOutsideTable,
    BadQuery,
    DamagedFile,
    LakeClosed,
    UnknownCohort,
    UnknownTable,
    UnknownValue,
)
from cohortlake.instants import Instant, instant
from cohortlake.publish.marker import Publication
from cohortlake.published import read
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    import pandas as pd

_OWN_COLUMNS = frozenset((*digest.OWN_COLUMNS, "few", "members", "patients", "series_id", "split"))
"""What else stands beside the columns of members, in a file of them or where they are counted."""
_OWN_TABLES = frozenset(("after", "before", "differing", "in_the_lake", "present", "visits"))
"""What queries of cohorts call something; their stages are step_1 and so on."""

_CODED = (*schema.MEANINGS, schema.STUDY_YEAR, schema.SHIFTED_YEAR)
"""Columns of ours with few values, which are spelled in one way."""

_SHARED_BY = 11
"""Rows of a value before it is suggested: one that so many share names nobody."""


class Lake(read.PublishedTables):
    """A published lake, opened for reading.

    Use it as a context manager, or let it be closed when nothing refers to it or to its rows any
    more. A lake shows the files that were published when it was opened, and of a file that was
    replaced since then the new rows: open it anew after a publication.

    Args:
        root: The lake.
        as_of: The instant that the tables show; None is now. `history` always holds all.

    Attributes:
        root: The lake.
        as_of: The instant, or None.
        as_opened: What was published there when it was opened.
        connection: DuckDB, with the tables as views.
        outside: The tables that were attached.
        attached: Each one's name -> how many of its keys are patients of the lake.
        close: Call it to close the lake, and the rows that were not taken out yet.

    Raises:
        NotALake: Nothing was ever published there.
    """

    def __init__(self, root: Root, as_of: datetime | None = None) -> None:
        super().__init__(root)
        self.as_of = as_of
        self.connection = engine.spilling()
        self.close = self.connection.close
        self.outside: dict[str, pa.Table] = {}
        self.attached: dict[str, Attached] = {}
        self._read: dict[str, Read] = {}
        self._date_formats: dict[str, tuple[tuple[str, str], ...]] = {}
        self._counted: dict[tuple[str, str], dict[str, int]] = {}
        self.as_opened = self.reading(self._create_views)

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, those that were attached too."""
        return (*schema.PUBLISHED, *self.outside)

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the names of a table's columns, as the policy shows them.

        Raises:
            UnknownTable: There is no such table.
        """
        if table not in self.tables:
            raise UnknownTable(table, self.tables)
        if table in self.outside:
            return tuple(self.outside[table].column_names)
        return tuple(column.name for column in self.as_opened.shown(table))

    def types(self, table: str) -> dict[str, pa.DataType]:
        """Return the names of a table's columns, and their types.

        Raises:
            UnknownTable: There is no such table.
        """
        return {column.name: column.type for column in self._described(table)}

    @property
    def study_date(self) -> str:
        """The column that says when a study was, as the policy shows it.

        StudyDate, or study_date_shifted, or study_year.
        """
        there = self.columns("series")
        return next(form.name for form in schema.forms(schema.STUDY_DATE) if form.name in there)

    def describe(self, table: str) -> pd.DataFrame:
        """Say what a table holds.

        Args:
            table: Its name.

        Returns:
            One row per column: its name, DICOM tag, VR, type, the share of rows for which nothing
            was sent, the share of rows of which the policy withholds a value, and its meaning.

        Raises:
            UnknownTable: There is no such table.
        """
        import pandas as pd  # here and not above: see flatten.frame

        columns, names = self._described(table), self.columns(table)
        lacking = {c.name: withheld.is_missing(c.name, c.type, names) for c in columns}
        counts = [f"count(*) FILTER ({sql})" for sql in lacking.values()]
        counts += [f"count(*) FILTER ({withheld.is_withheld(c)})" for c in self._by_value(table)]
        query = f'SELECT count(*), {", ".join(counts)} FROM "{table}"'
        ((rows, *found),) = self.sql(query).fetchall()
        missing, hidden = found[: len(columns)], found[len(columns) :]
        of_hidden = dict(zip(self._by_value(table), hidden, strict=True))
        return pd.DataFrame(
            [
                {
                    "column": column.name,
                    "tag": column.tag,
                    "VR": column.vr,
                    "type": str(column.type),
                    "missing": round(count / rows, 4) if rows else None,
                    "withheld": round(of_hidden.get(column.name, 0) / rows, 4) if rows else None,
                    "meaning": column.description,
                }
                for column, count in zip(columns, missing, strict=True)
            ]
        ).astype({"tag": "string", "VR": "string"})

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        as_of: Instant | None = None,
        known_at: Instant | None = None,
    ) -> pd.DataFrame:
        """Read a table as `PublishedTables.table` does; without an instant, as it is shown."""
        if self.as_of is None or as_of is not None or known_at is not None:
            return super().table(name, columns, as_of, known_at)
        known = self.columns(name)
        for column in columns or ():
            if column not in known:
                raise self.as_opened.unknown(column, name, known)
        shown = ", ".join(f'"{column}"' for column in columns or known)
        return self.sql(f'SELECT {shown} FROM "{name}"').to_pandas()

    def sql(self, query: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Ask the tables something in SQL.

        Args:
            query: One SELECT over the tables, in DuckDB's SQL.
            params: Values for `$name` in it.

        Returns:
            The rows, once they are asked for: `.to_pandas()`, `.to_arrow()`, `.to_polars()`,
            or `.relation` to go on in DuckDB.

        Raises:
            BadQuery: It cannot be run; the message says what is near a name that is not there.
            ColumnNotShown: It names a column that the policy does not show.
        """
        with self._explained():
            kinds = [statement.type for statement in self.connection.extract_statements(query)]
            if kinds != [duckdb.StatementType.SELECT]:
                raise BadQuery("a lake is only read: ask with one SELECT")
            relation = self.connection.sql(query, params=dict(params) if params else None)
        return Rows(relation, self._explained)

    def check_value(self, table: str, column: str, value: object) -> None:
        """Look whether any row has a value, in a column of coded values (VR CS) or their meanings.

        Raises:
            UnknownColumn: The table has no such column.
            ColumnNotShown: The policy does not show it.
            UnknownValue: None has it; the message names a near one that several patients share.
        """
        columns = {c.name: c for c in self._described(table)}
        if column not in columns:
            raise self.as_opened.unknown(column, table, columns)
        withheld.require_value(self, table, column, value)
        is_coded = columns[column].vr == "CS" or columns[column] in _CODED
        if not is_coded or not isinstance(value, str):
            return
        counts = self._values(table, column)
        if value not in counts:
            shared = [known for known, rows in counts.items() if rows >= _SHARED_BY]
            raise UnknownValue(value, f"{table}.{column}", shared)

    def attach(
        self, name: str, source: object, *, date_formats: Mapping[str, str] | None = None
    ) -> Attached:
        """Take in a table from outside, keyed by patient, that cohorts can join.

        Args:
            name: What it is called from now on.
            source: One row per `patient_key`: a pandas or Polars frame, whatever else has the
                Arrow C stream, array or dataframe interface, a dict of columns, a list of dicts,
                or a Parquet or CSV file.
            date_formats: Column of text -> how its dates are written, as `%d/%m/%Y`. Dates as
                2024-01-31 or 20240131 need none.

        Returns:
            How many of its keys are patients of the lake. A warning says so too where none is, or
            where some would be without blanks around them or in other case.

        Raises:
            BadCriteria: It cannot be called so.
            BadOutsideTable: It cannot be read, is not one row per patient, or has a column that
                the lake has too.
        """
        check_name(name, "a table's name")
        if name in {*schema.PUBLISHED, *_OWN_TABLES} or name.startswith("step_"):
            raise BadOutsideTable(f"{name!r} is a table of the lake's already; take another name")
        self._attach(name, outside_tables.read(self.connection, source, date_formats), date_formats)
        attached = outside_tables.matches(self.connection, name, self.outside[name])
        self.attached[name] = attached
        if attached.is_suspicious:
            warnings.warn(str(attached), stacklevel=2)
        return attached

    def attach_from(self, other: Lake, name: str) -> None:
        """Attach a table as another lake has it."""
        self._attach(name, other._read[name], dict(other.date_formats_of(name)))

    def _attach(self, name: str, read: Read, date_formats: Mapping[str, str] | None) -> None:
        others = self.outside.keys() - {name}
        known = {c for other in (*schema.PUBLISHED, *others) for c in self.columns(other)}
        outside_tables.check_columns(read.table, known | _OWN_COLUMNS)
        self.connection.register(name, read.table)
        self.outside[name], self._read[name] = read.table, read
        self._date_formats[name] = tuple((date_formats or {}).items())

    def file_of(self, table: str) -> str | None:
        """Return the file that an outside table came from, or None where it was a frame.

        Raises:
            UnknownTable: None was attached under that name.
        """
        return self._outside(table).path

    def date_formats_of(self, table: str) -> tuple[tuple[str, str], ...]:
        """Return the date formats that an outside table was attached with.

        Raises:
            UnknownTable: None was attached under that name.
        """
        self._outside(table)
        return self._date_formats[table]

    def require_dates(self, table: str, column: str) -> None:
        """Look whether each value of an outside table's column is a date.

        Raises:
            UnknownTable: None was attached under that name.
            BadOutsideTable: One is not; the message names the column and the line.
        """
        outside_tables.require_dates(table, self._outside(table), column)

    def _outside(self, table: str) -> Read:
        if table not in self._read:
            remedy = f"; attach it with lake.attach({table!r}, ...)"
            raise UnknownTable(table, self.outside, remedy)
        return self._read[table]

    def cohort(self, name: str, *, level: str = "study", about: str = "") -> Cohort:
        """Begin a cohort: everybody, until steps leave some out.

        Args:
            name: A name, also for files: lower case, digits and underscores.
            level: What a member is: `patient`, `study` or `series`.
            about: What it is for, in a sentence.

        Raises:
            BadCriteria: The name or the level cannot be used.
        """
        return Cohort(self, Criteria(name, level, about))

    def load_cohort(self, path: str | Path) -> Cohort:
        """Draw the cohort that a YAML file says, and attach the tables it joins.

        Raises:
            BadCriteria: The file cannot be read, or makes no cohort.
            BadOutsideTable: A table it joins cannot be.
            BadCondition: A condition cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise BadCriteria(
                f"{path} cannot be read ({error.strerror}); correct the path"
            ) from None
        except UnicodeDecodeError:
            raise BadCriteria(f"{path} is not text in UTF-8; save it as such") from None
        criteria = Criteria.from_yaml(text)
        self.attach_files(criteria, Path(path).parent)
        return drawn(self, criteria)

    def attach_files(self, criteria: Criteria, folder: str | Path) -> None:
        """Attach the files that some criteria join.

        Args:
            criteria: The cohort.
            folder: Where the files are, unless their paths are absolute.

        Raises:
            BadOutsideTable: One cannot be joined.
        """
        for join in criteria.joins:
            if join.file:
                file = Path(folder) / join.file
                self.attach(join.table, file, date_formats=dict(join.date_formats))

    def verify(self, frozen: str) -> Verification:
        """Draw a frozen cohort again, and say who joined, left or changed since, and why.

        Args:
            frozen: Its name, or `name@number`; the last freezing by default. The outside tables
                that it joins must be attached.

        Raises:
            UnknownCohort: Nothing was frozen under that name.
            NotAsFrozen: The frozen files themselves were changed.
            UnknownTable: An outside table is not attached.
            SettingError: The key of COHORTLAKE_COHORT_KEY_FILE cannot be read.
        """
        manifest = self.frozen(frozen)
        key = read_key(Settings.from_env().cohort_key_file)
        as_of = instant(manifest.as_of) if manifest.as_of else None
        if as_of == self.as_of:
            return verify(self, manifest, key)
        with Lake(self.root, as_of) as then:
            for name in self.outside:
                then.attach_from(self, name)
            return verify(then, manifest, key)

    def compare(self, before: str, after: str) -> Difference:
        """Compare two frozen cohorts: their criteria, and who joined, left or changed.

        Args:
            before: The one: a name, or `name@number`.
            after: The other.

        Raises:
            UnknownCohort: Nothing was frozen under one of these names.
            NotAsFrozen: The frozen files themselves were changed.
        """
        return diff(self, self.frozen(before), self.frozen(after))

    def frozen(self, name: str) -> Manifest:
        """Return what was frozen under a name, or `name@number`; the last freezing by default.

        Raises:
            UnknownCohort: Nothing was.
        """
        cohort, _, number = name.partition("@")
        if number and not number.isdecimal():
            raise UnknownCohort(name, numbers_of(self.root), f"was frozen below {self.root.uri}")
        return read_manifest(self.root, cohort, int(number) if number else None)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Explain errors of a query: of the lake's files, or of the query itself."""
        try:
            with (
                explained(self._names, self.as_opened.not_shown),
                engine.explained(self.connection),
            ):
                yield
        except DamagedFile:
            if self.publication() == self.as_opened:
                raise
            raise LakeClosed(
                "the lake was published anew since it was opened, and files that it reads are "
                "gone; open it again"
            ) from None

    def _create_views(self, publication: Publication) -> Publication:
        with engine.explained(self.connection):
            views.create(self.connection, self.root, publication, self.as_of)
        return publication

    def _described(self, table: str) -> tuple[schema.Column, ...]:
        self.columns(table)
        if table not in self.outside:
            return self.as_opened.shown(table)
        fields = self.outside[table].schema
        return tuple(schema.Column(f.name, f.type, "From outside the lake.") for f in fields)

    def _by_value(self, table: str) -> list[str]:
        """Return the columns of a table of which the policy may withhold values."""
        known = self.columns(table)
        has_fields = schema.WITHHELD_FIELDS.name in known
        return [name for name in known if has_fields and name in schema.MAY_BE_WITHHELD]

    @property
    def _names(self) -> frozenset[str]:
        columns = (name for table in self.tables for name in self.columns(table))
        return frozenset((*self.tables, *columns))

    def has_withheld(self, table: str, column: str) -> bool:
        """Return whether the policy withholds a value of a column in some row of a table."""
        key = table, schema.WITHHELD_FIELDS.name
        if key not in self._counted:
            fields = f"SELECT unnest({schema.WITHHELD_FIELDS.name}) AS field FROM {table}"
            counts = f"SELECT field, count(*) FROM ({fields}) GROUP BY field"
            self._counted[key] = dict(self.sql(counts).fetchall())
        return column in self._counted[key]

    def occurs(self, table: str, column: str, value: object) -> bool:
        """Return whether any row of a table has a value; of a list, whether any list has it."""
        has = f'"{column}" = $value'
        if self.types(table)[column] == pa.list_(pa.string()):
            has = f'list_contains("{column}", $value)'
        query = f"SELECT EXISTS (FROM {table} WHERE {has})"
        return bool(self.sql(query, {"value": value}).fetchall()[0][0])

    def _values(self, table: str, column: str) -> dict[str, int]:
        if (table, column) not in self._counted:
            counts = (
                f'SELECT "{column}", count("{column}") AS n FROM {table} GROUP BY 1 HAVING n > 0'
            )
            found: Counter[str] = Counter()
            for text, rows in self.sql(counts).fetchall():
                for value in {text, *text.split(SEPARATOR)}:
                    found[value] += rows
            self._counted[table, column] = found
        return self._counted[table, column]


def open_lake(root: str, as_of: Instant | None = None) -> Lake:
    """Open a lake for reading; nothing is loaded before it is asked for.

    Args:
        root: The lake: a folder or an `s3://` URL.
        as_of: The instant that the tables show; now by default. What was true then, as far as
            the lake knows today.

    Raises:
        NotALake: Nothing was ever published there.
        OldFormat: An older release published it.
        InstantError: `as_of` is no instant.

    >>> lake = open_lake("var/demo/lake")
    >>> lake.tables
    ('image_sets', 'series', 'studies', 'patients', 'history')
    >>> women = lake.sql("SELECT count(*) AS n FROM patients WHERE sex = 'F'").to_pandas()
    """
    return Lake(Root(root), instant(as_of) if as_of else None)
