"""A lake opened for reading: the object that people hold in a notebook.

Opening loads nothing. It reads `published/` only, so a reader needs no right on the restricted
zone. The work is done below: see `select.opened_tables` for the tables, and `cohort` for cohorts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb
import pyarrow as pa

from cohortlake.cohort import guesses
from cohortlake.cohort.cohort import Cohort, draw
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.describe import lake_facts, short_table, table_description
from cohortlake.cohort.freeze.manifest import Manifest, numbers_of
from cohortlake.cohort.freeze.manifest import read as read_manifest
from cohortlake.cohort.freeze.signature import read_key
from cohortlake.cohort.freeze.verify import Difference, Verification, diff, verify
from cohortlake.cohort.pixels.summary import PixelManifest
from cohortlake.cohort.pixels.write import write_frozen
from cohortlake.cohort.select import condition_sql
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.outside_tables import Attached
from cohortlake.cohort.select.rows import Rows
from cohortlake.cohort.select.selected import select
from cohortlake.errors import BadCriteria, UnknownCohort, did_you_mean
from cohortlake.instants import Instant, instant
from cohortlake.published.read import PublishedTables
from cohortlake.settings import Settings
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    import pandas as pd


class Lake(PublishedTables):
    """A published lake, opened for reading.

    Use it as a context manager. Otherwise it is closed when nothing refers to it or to its rows any
    more. A lake reads the files that were published when it was opened. If a file was replaced
    since then, it reads the new rows: open the lake again after a publication.

    Args:
        root: The lake.
        as_of: The instant that the tables show; None is now. `history` and `earlier_headers` are
            of all times.

    Attributes:
        root: The lake.
        as_of: The instant, or None.
        opened: Its tables, as they were opened.
        image_sets, series, studies, patients, history, series_headers, earlier_headers: The rows
            of a table, read when they are asked for. A table that was attached is an attribute too.

    Raises:
        NotALake: Nothing was ever published there.
        InstantError: The lake was first searched after the instant.
        NotShown: The policy hides what the past is made from.
    """

    image_sets: Rows
    series: Rows
    studies: Rows
    patients: Rows
    history: Rows
    series_headers: Rows
    earlier_headers: Rows

    def __init__(self, root: Root, as_of: datetime | None = None) -> None:
        super().__init__(root, as_of)
        self.opened = OpenedTables(root, as_of)

    def __reduce__(self) -> tuple[Callable[..., Lake], tuple[object, ...]]:
        return _lake_of, (self.opened,)

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the lake, and the rows that were not taken out yet."""
        self.opened.close()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB, with the tables as views."""
        return self.opened.connection

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables. Those that were attached come last."""
        return self.opened.names

    @property
    def outside(self) -> dict[str, pa.Table]:
        """The tables that were attached, by name."""
        return {name: outside.table for name, outside in self.opened.outside.items()}

    def __getitem__(self, table: str) -> Rows:
        """Return the rows of a table: `lake["studies"]`, which is the same as `lake.studies`.

        Raises:
            UnknownTable: There is no such table.
        """
        self.opened.columns(table)
        return self.sql(f'FROM "{table}"')

    def __iter__(self) -> NoReturn:
        raise TypeError("a lake cannot be iterated over: lake.tables has the names of its tables")

    if not TYPE_CHECKING:  # a type checker would take any name for one that there is

        def __getattr__(self, name: str) -> Rows:
            # Without `opened`, the lake is not made yet, and to ask for it would not end.
            if "opened" in vars(self) and name in self.tables:
                return self[name]
            is_near = "opened" in vars(self) and did_you_mean(name, self.tables)
            there = self.tables if is_near else dir(type(self))
            raise guesses.answer("lake", name, guesses.LAKES, there)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.tables})

    @property
    def _facts(self) -> dict[str, object]:
        return lake_facts.facts(self.opened)

    def __repr__(self) -> str:
        return short_table.text(f"lake {self.root.uri}", self._facts)

    def _repr_html_(self) -> str:
        return short_table.html(f"lake {self.root.uri}", self._facts)

    def columns(self, table: str) -> tuple[str, ...]:
        """Return the names of the columns of a table, as the policy shows them.

        Raises:
            UnknownTable: There is no such table.
        """
        return self.opened.columns(table)

    def types(self, table: str) -> dict[str, pa.DataType]:
        """Return the names of the columns of a table, and their types.

        Raises:
            UnknownTable: There is no such table.
        """
        return self.opened.types(table)

    @property
    def study_date(self) -> str:
        """The column with the date of a study: StudyDate, study_date_shifted or study_year."""
        return self.opened.study_date

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
        return table_description.describe(self.opened, table)

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
        return self.opened.sql(query, params)

    def check_value(self, table: str, column: str, value: object) -> None:
        """Check that some row has a value, if its column holds coded values (VR CS).

        Raises:
            UnknownColumn: The table has no such column.
            ColumnNotShown: The policy does not show it.
            UnknownValue: No row has it; the message names a similar one that several patients
                share.
        """
        condition_sql.check_value(self.opened, table, column, value)

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
        return self.opened.attach(name, source, date_formats)

    @property
    def attached(self) -> dict[str, Attached]:
        """Name of an outside table -> how many of its keys are patients of the lake."""
        return self.opened.attached

    def cohort(self, name: str, *, level: str = "study", about: str = "") -> Cohort:
        """Begin a cohort: everybody, until steps leave some out.

        Args:
            name: A name, also for files: lower case, digits and underscores.
            level: What a member is: `patient`, `study` or `series`.
            about: What it is for, in a sentence.

        Raises:
            BadCriteria: The name or the level cannot be used.
        """
        return Cohort(select(self.opened, Criteria(name, level, about)))

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
        return draw(self.opened, criteria)

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

    def verify(self, frozen: str | Cohort | Manifest) -> Verification:
        """Draw a frozen cohort again, and say who joined, left or changed since, and why.

        Args:
            frozen: What `Lake.frozen` takes. The outside tables that it joins must be attached.

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
            return verify(self.opened, manifest, key)
        with OpenedTables(self.root, as_of) as then:
            then.attach_from(self.opened, self.outside)
            return verify(then, manifest, key)

    def manifest(
        self, frozen: str | Cohort | Manifest, path: str | Path, *, format: str, label: str = ""
    ) -> PixelManifest:
        """Write what the pixels of a frozen cohort are fetched by, with the frozen versions.

        Image sets that are gone are left out, and those with another version now are counted. See
        `Cohort.manifest` for the arguments, the errors and what is returned.

        Args:
            frozen: What `Lake.frozen` takes.
            path: The file or folder to write.
            format: The format.
            label: The column of the frozen members that holds the labels.

        Raises:
            UnknownCohort: Nothing was frozen under that name.
            NotAsFrozen: The frozen files themselves were changed.
        """
        manifest = self.frozen(frozen)
        return write_frozen(self.opened, manifest, Path(path), format, label or None)

    def compare(
        self, before: str | Cohort | Manifest, after: str | Cohort | Manifest
    ) -> Difference:
        """Compare two frozen cohorts: their criteria, and who joined, left or changed.

        Args:
            before: The one; see `Lake.frozen`.
            after: The other.

        Raises:
            UnknownCohort: Nothing was frozen under one of these names.
            NotAsFrozen: The frozen files themselves were changed.
        """
        return diff(self.opened, self.frozen(before), self.frozen(after))

    def frozen(self, name: str | Cohort | Manifest) -> Manifest:
        """Return what was frozen under a name, or `name@number`; the last freezing by default.

        Args:
            name: The name, or a cohort that has it. A manifest is returned as the lake holds it.

        Raises:
            UnknownCohort: Nothing was.
        """
        if isinstance(name, Cohort):
            name = name.criteria.name
        elif isinstance(name, Manifest):
            name = name.label
        cohort, _, number = name.partition("@")
        if number and not number.isdecimal():
            raise UnknownCohort(name, numbers_of(self.root), f"was frozen below {self.root.uri}")
        return read_manifest(self.root, cohort, int(number) if number else None)


def _lake_of(opened: OpenedTables) -> Lake:
    """Return the lake of opened tables."""
    lake = Lake.__new__(Lake)
    PublishedTables.__init__(lake, opened.root, opened.as_of)
    lake.opened = opened
    return lake


def open_lake(root: str | os.PathLike[str], as_of: Instant | None = None) -> Lake:
    """Open a lake for reading; nothing is loaded before it is asked for.

    Args:
        root: The lake: a folder or an `s3://` URL.
        as_of: The instant that the tables show; now by default. What was true then, as far as
            the lake knows today.

    Raises:
        NotALake: Nothing was ever published there.
        OldFormat: An older release published it.
        InstantError: `as_of` is no instant, or the lake was first searched after it.
        NotShown: There is an instant, and the policy hides what the past is made from.

    >>> lake = open_lake("var/demo/lake")
    >>> lake.tables
    ('image_sets', 'series', 'studies', 'patients', 'history', 'series_headers', 'earlier_headers')
    >>> women = lake.sql("SELECT count(*) AS n FROM patients WHERE sex = 'F'").to_pandas()
    """
    return Lake(Root(os.fspath(root)), None if as_of is None else instant(as_of))
