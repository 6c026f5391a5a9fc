"""Tables from outside the lake: a registry, a pathology export, anything keyed by patient.

Checks whether one can be joined, and counts how many of its keys are patients of the lake. See
`sources` for how a source becomes a table.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from cohortlake.cohort.define.values import is_text
from cohortlake.cohort.select import sources, text_types
from cohortlake.cohort.select.sources import OutsideTable
from cohortlake.errors import BadOutsideTable, did_you_mean

KEY = "patient_key"
_IDS = frozenset(
    ("accession", "accessionnumber", "id", "mrn", "patientid", "pid", "subject", "subjectid")
)
"""Words for columns of ids that are no keys, without case and signs."""


@dataclass(frozen=True, repr=False)
class Attached:
    """How many keys of an outside table are patients of the lake.

    Attributes:
        table: The name it was attached under.
        rows: Its rows, one per key.
        matched: Keys that are patients of the lake.
        nearly: Keys that would be, without the blanks around them or in other case.
    """

    table: str
    rows: int
    matched: int
    nearly: int

    @property
    def unmatched(self) -> int:
        """Keys that are no patient of the lake."""
        return self.rows - self.matched

    @property
    def is_suspicious(self) -> bool:
        """Whether keys seem to be spelled otherwise than the lake's, or are keys of another."""
        return self.nearly > 0 or (self.rows > 0 and self.matched == 0)

    def __repr__(self) -> str:
        text = f"{self.table}: {self.matched:,} of {self.rows:,} keys are patients of the lake"
        if self.unmatched:
            text += f", {self.unmatched:,} are not"
        if self.nearly:
            text += f"; {self.nearly:,} of these would be without blanks or in other case"
        return text


def read(
    con: duckdb.DuckDBPyConnection,
    source: object,
    date_formats: Mapping[str, str] | None = None,
    shown: Collection[str] = (),
) -> OutsideTable:
    """Read an outside table, and check that it can be joined.

    Args:
        con: Any connection.
        source: See `sources.read`.
        date_formats: Column of text -> how its dates are written, as `%d/%m/%Y`.
        shown: The columns of `patients` that the policy shows, for the error without a key.

    Raises:
        BadOutsideTable: It cannot be read, or is not one row per patient.
    """
    found = replace(sources.read(source, KEY), date_formats=tuple((date_formats or {}).items()))
    for column, form in found.date_formats:
        found = replace(found, table=text_types.dated(con, found, column, form))
    table = found.table
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise BadOutsideTable(f"{twice[0]!r} is the name of two columns; rename one")
    if KEY not in table.column_names:
        raise BadOutsideTable(_without_key(table.column_names, shown))
    if not is_text(table[KEY].type):
        raise BadOutsideTable(f"{KEY} must be text, as `lake.sql('FROM patients')` shows it")
    _check_keys(table[KEY])
    if found.lines is not None:
        found = replace(found, table=_typed(table))
    _check_types(con, found.table)
    return found


def matches(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Attached:
    """Count how many keys of a table are patients of the lake.

    Args:
        con: The connection, which has the table under that name, and `patients`.
        name: The table's name.
        table: The table.
    """
    ((matched, nearly),) = con.execute(f"""
        WITH known AS (SELECT DISTINCT {KEY} FROM patients WHERE {KEY} IS NOT NULL),
        unmatched AS (SELECT {KEY} FROM "{name}" ANTI JOIN known USING ({KEY}))
        SELECT (SELECT count(*) FROM "{name}") - (SELECT count(*) FROM unmatched),
               (SELECT count(*) FROM unmatched u
                SEMI JOIN known k ON lower(trim(u.{KEY})) = lower(k.{KEY}))
    """).fetchall()
    return Attached(name, len(table), int(matched), int(nearly))


def require_dates(name: str, outside: OutsideTable, column: str) -> None:
    """Check that each value of a column is a date, so that it can be used as one.

    Raises:
        BadOutsideTable: One is not; the message names the column and the line.
    """
    row = text_types.first_no_date(outside.table[column])
    if row is not None:
        raise BadOutsideTable(
            f"{name}.{column} is used as a date, and holds something else in "
            f"{outside.place(row)}: write it as 2024-01-31 or 20240131, or "
            f"say how dates are written, as in date_formats={{{column!r}: '%d/%m/%Y'}}"
        )


def check_columns(table: pa.Table, taken: Collection[str]) -> None:
    """Refuse columns whose names are taken. SQL ignores upper and lower case.

    Args:
        table: The table.
        taken: Names that stand for something else already.

    Raises:
        BadOutsideTable: The table has such a column.
    """
    seen = {name.casefold() for name in taken} - {KEY}
    for name in table.column_names:
        if name.casefold() in seen or not name or {"'", '"'} & {*name}:
            raise BadOutsideTable(
                f"{name!r} is already a column of the lake, of cohorts or of another table, in "
                "upper or lower case, or cannot be the name of a column; rename it"
            )
        seen.add(name.casefold())


def _without_key(names: Collection[str], shown: Collection[str]) -> str:
    """Return what to do with a table that has no key."""
    said = f"the table has no column {KEY!r}"
    ids = [name for name in names if re.sub(r"[\W_]", "", name.casefold()) in _IDS]
    if not ids:
        return f"{said}{did_you_mean(KEY, names)}; rename or add it"
    said += f", and the lake knows patients by it and not by {ids[0]!r}"
    if "PatientID" in shown:
        return (
            f"{said}: add it from lake.sql('SELECT PatientID, {KEY} FROM patients').to_pandas(), "
            "with merge of pandas"
        )
    return (
        f"{said}: somebody who may read the restricted zone gets the keys of a list of ids with "
        "`cohortlake key lookup --ids ids.csv`"
    )


def _check_keys(keys: pa.ChunkedArray) -> None:
    if keys.null_count:
        raise BadOutsideTable(f"{keys.null_count:,} rows have no {KEY}; leave them out")
    repeated = len(keys) - len(keys.unique())
    if repeated:
        raise BadOutsideTable(
            f"{repeated:,} rows repeat a {KEY}, and would multiply members; give one per patient"
        )


def _typed(table: pa.Table) -> pa.Table:
    """Return a table of text with the types that its columns are written in; the key is text."""
    columns = [
        column if name == KEY or not is_text(column.type) else text_types.typed(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _check_types(con: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
    for name in table.column_names:
        try:
            con.from_arrow(table.select([name])).limit(0).fetchall()
        except (duckdb.Error, pa.ArrowException) as error:
            error.args = ()
            raise BadOutsideTable(
                f"the column {name!r} has a type that DuckDB cannot read; cast or drop it"
            ) from None
