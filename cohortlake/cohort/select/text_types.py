"""Text of a file that has no types: which columns are numbers, dates or instants.

A column is one only where each of its values is written as such, in a way that nobody reads
otherwise. `03/04/2024` stays text, since it is April or March, and so does `0123`, which is an id.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.cohort.define.values import is_text, read_day
from cohortlake.cohort.select.sources import OutsideTable
from cohortlake.errors import BadOutsideTable
from cohortlake.schema import INSTANT

_BOOLEAN = re.compile(r"true|false|True|False|TRUE|FALSE")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+][0-9]+)?")
_LOCAL = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", re.ASCII)
_ZONED = re.compile(_LOCAL.pattern + r"(Z|[+-]\d{2}(:?\d{2})?)", re.ASCII)
_YEARS = range(1800, 2200)
"""Years of DICOM's form that are taken for dates, and of a form that a person gives."""


def typed(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Return a column of text as what all its values are, or as it is."""
    for type_, read in _READERS:
        found = _read_all(column, type_, read)
        if found is not None:
            return found
    return column


def first_no_date(column: pa.ChunkedArray) -> int | None:
    """Return the first row that holds something else than a date; None where all hold one."""
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return None
    dates = _mapped(column, lambda value: read_day(value) if isinstance(value, str) else None)
    return _first(pc.and_(pc.is_valid(column), pc.is_null(dates)))


def dated(
    con: duckdb.DuckDBPyConnection, outside: OutsideTable, column: str, form: str
) -> pa.Table:
    """Return the table with a column of text read as dates of one form.

    Args:
        con: Any connection: Python reads months by the machine's language.
        outside: The table.
        column: The column.
        form: How they are written, as in strptime: `%d/%m/%Y`.

    Raises:
        BadOutsideTable: There is no such column of text, the form is none, or a value is not
            written so; the message names the line and not the value.
    """
    table = outside.table
    if column not in table.column_names or not is_text(table[column].type):
        raise BadOutsideTable(f"date_formats names {column!r}, and there is no such column of text")
    texts = pc.unique(table[column]).drop_null().cast(pa.string()).to_pylist()
    try:
        query = "SELECT try_strptime(unnest($texts::VARCHAR[]), $form)::DATE"
        days = [day for (day,) in con.execute(query, {"texts": texts, "form": form}).fetchall()]
    except duckdb.Error as error:
        error.args = ()
        raise BadOutsideTable(
            f"date_formats of {column!r} is no format; write it as '%d/%m/%Y'"
        ) from None
    known = {t: d for t, d in zip(texts, days, strict=True) if d is not None and d.year in _YEARS}
    dates = _mapped(table[column], known.get)
    row = _first(pc.and_(pc.is_valid(table[column]), pc.is_null(dates)))
    if row is not None:
        raise BadOutsideTable(
            f"{column!r} is no date of the format given in {outside.place(row)}; correct it there, "
            "or give another format"
        )
    return table.set_column(table.column_names.index(column), column, dates)


def _read_all(
    column: pa.ChunkedArray, type_: pa.DataType, read: Callable[[str], Any]
) -> pa.Array | None:
    """Return a column as a type, or None where not all of its values can be read so."""
    texts = pc.unique(column).drop_null().to_pylist()
    values: dict[str, Any] = {}
    for text in texts:
        value = read(text)
        if value is None:
            return None
        values[text] = value
    return pa.array([values.get(text) for text in column.to_pylist()], type_) if texts else None


def _mapped(column: pa.ChunkedArray, read: Callable[[Any], date | None]) -> pa.Array:
    known = {value: read(value) for value in pc.unique(column).to_pylist() if value is not None}
    return pa.array([known.get(value) for value in column.to_pylist()], pa.date32())


def _first(mask: pa.ChunkedArray) -> int | None:
    row = pc.index(mask, True).as_py()
    return None if row < 0 else int(row)


def _boolean(text: str) -> bool | None:
    return text.lower() == "true" if _BOOLEAN.fullmatch(text) else None


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _float(text: str) -> float | None:
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _day(text: str) -> date | None:
    day = read_day(text)
    return day if day and ("-" in text or day.year in _YEARS) else None


def _local(text: str) -> datetime | None:
    return _instant(text) if _LOCAL.fullmatch(text) else None


def _zoned(text: str) -> datetime | None:
    found = _instant(text) if _ZONED.fullmatch(text) else None
    return found.astimezone(UTC) if found else None


def _instant(text: str) -> datetime | None:
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text)
    return None


_READERS: tuple[tuple[pa.DataType, Callable[[str], Any]], ...] = (
    (pa.bool_(), _boolean),
    (pa.date32(), _day),  # before numbers: DICOM writes dates in digits alone
    (pa.int64(), _integer),
    (pa.float64(), _float),
    (pa.timestamp("us"), _local),
    (INSTANT, _zoned),
)
