"""Writes tables as CSV and XLSX for a spreadsheet, and as Parquet for what those cannot hold.

A spreadsheet runs a text that looks like a formula, and anybody who can write a DICOM tag can write
such a text (OWASP, "CSV Injection"). In CSV it gets an apostrophe in front. So does a text that
begins with an apostrophe: to remove one from each gives every text back. In XLSX each is stored as
text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pyarrow.types as pat

from cohortlake import schema
from cohortlake.errors import ExportError
from cohortlake.flatten import with_pandas_dtypes
from cohortlake.optional_dependencies import module
from cohortlake.storage.disk import whole_file

_BETWEEN_VALUES = "\\"
"""Separates several values in one cell: the separator of DICOM, which no value holds."""

MOST_ROWS = 1_048_576
"""The most rows of a sheet of XLSX, with the row of names."""

_MOST_CHARACTERS = 32_767  # of a cell
_MOST_DIGITS = 15  # of a number, whatever its double could hold
_FIRST_DAY = date(1900, 3, 1)  # programs differ in the days before it (there was no 1900-02-29)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_FORMULA = "\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\\t\\r\\n]"  # the four, in full width too
# What XML cannot hold or would change, as XLSX writes it (ECMA-376, ST_Xstring).
_NOT_XML = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

Sheets = Mapping[str, pa.Table]


def check(path: Path) -> None:
    """Check that a file of this name can be written.

    Raises:
        ExportError: Its suffix is unknown.
    """
    if path.suffix.lower() not in _WRITERS:
        raise ExportError(f"{path.name!r} must end in {', '.join(_WRITERS)}")


def write(path: Path, sheets: Sheets) -> None:
    """Write tables to a file, whole or not at all.

    Args:
        path: A .csv, .xlsx or .parquet file. Only .xlsx holds more than the first table.
        sheets: Name -> table.

    Raises:
        ExportError: It cannot be written, or cannot hold a table.
        MissingExtra: openpyxl is not installed.
    """
    check(path)
    try:
        with whole_file(path) as draft:
            _WRITERS[path.suffix.lower()](draft, sheets)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror}; name a folder that is there and that this "
            "user may write, with room left"
        ) from None


def _write_parquet(path: Path, sheets: Sheets) -> None:
    (first, *_) = sheets.values()
    with path.open("wb") as file:
        pq.write_table(with_pandas_dtypes(first), file, compression="zstd")


def _write_csv(path: Path, sheets: Sheets) -> None:
    (first, *_) = sheets.values()
    table = _flat(first)
    columns = [_escaped(column) if _is_text(column.type) else column for column in table.columns]
    names = _escaped(pa.chunked_array([table.column_names], pa.large_string())).to_pylist()
    with path.open("wb") as file:
        file.write(_BYTE_ORDER_MARK)  # without it Excel reads the machine's old code page
        pacsv.write_csv(pa.table(columns, names), file)


def _escaped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(column, rf"\A({_FORMULA}|')", r"'\1")


def _write_xlsx(path: Path, sheets: Sheets) -> None:
    book = module("openpyxl").Workbook(write_only=True)
    cell_of = module("openpyxl.cell").WriteOnlyCell
    for name, table in sheets.items():
        if len(table) >= MOST_ROWS:
            raise ExportError(
                f"{len(table):,} rows are more than a sheet of XLSX holds ({MOST_ROWS:,} with the "
                "names of the columns); write a .csv or a .parquet file"
            )
        with closing(book.create_sheet(name)) as sheet:
            sheet.freeze_panes = "A2"
            sheet.append([_text_cell(cell_of(sheet), column) for column in table.column_names])
            for batch in _flat(table).to_batches():
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    sheet.append([_cell(cell_of(sheet), value) for value in row])
    book.save(path)


def _cell(cell: Any, value: Any) -> Any:
    """Put a value into a cell: with its own type if XLSX holds it exactly, otherwise as text."""
    if isinstance(value, str):
        return _text_cell(cell, value)
    if not _is_held(value):
        return _text_cell(cell, str(value))
    if isinstance(value, float | Decimal):  # openpyxl would write 16 of its digits
        cell.value, cell.data_type = repr(float(value)), "n"
    else:
        cell.value = value
    return cell


def _is_held(value: Any) -> bool:
    """Return whether XLSX gives a value back exactly.

    Its numbers and days are doubles, and a program shows 15 digits of a number. A float is held: it
    is a double itself.
    """
    match value:
        case bool() | None:
            return True
        case int():
            return len(str(abs(value))) <= _MOST_DIGITS
        case float():
            return math.isfinite(value)
        case Decimal():
            digits = value.normalize().as_tuple().digits
            return bool(value.is_finite()) and len(digits) <= _MOST_DIGITS
        case datetime():
            return value.date() >= _FIRST_DAY and not value.microsecond
        case date():
            return value >= _FIRST_DAY
    return False  # a time of day is the fraction of a day, and its last microsecond the next day


def _text_cell(cell: Any, text: str) -> Any:
    held = _NOT_XML.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    if len(held) > _MOST_CHARACTERS:
        raise ExportError(
            f"a text is longer than the {_MOST_CHARACTERS:,} characters that a cell of XLSX holds; "
            "write a .csv or a .parquet file"
        )
    cell.value = held or None
    cell.data_type = "s" if held else "n"  # openpyxl reads what begins with = as a formula
    cell.quotePrefix = bool(re.match(_FORMULA, text))  # it stays text when somebody edits it
    return cell


def _flat(table: pa.Table) -> pa.Table:
    """Return a table of texts, numbers, truths, dates and times only; instants in UTC.

    A duration is text, for CSV has none and that of XLSX is the fraction of a day. Instants and
    times have microseconds; a column with nanoseconds is text, because Python's types end there.
    """
    columns = [_flat_column(name, table[name]) for name in table.column_names]
    return pa.table(columns, table.column_names)


def _flat_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pat.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    type_ = column.type
    if pat.is_list(type_) or pat.is_large_list(type_):
        return pa.chunked_array([[_joined(values) for values in column.to_pylist()]], pa.string())
    if _is_text(type_):
        return column.cast(pa.large_string())
    if _has_nanoseconds(column):
        return _nanosecond_texts(column)
    if pat.is_timestamp(type_):
        utc = column if type_.tz is None else column.cast(schema.INSTANT)
        return utc.cast(pa.timestamp("us"))
    if pat.is_duration(type_):
        texts = [_duration_text(value) for value in column.cast(pa.duration("us")).to_pylist()]
        return pa.chunked_array([texts], pa.large_string())
    if any(is_held(type_) for is_held in _HELD):
        return column
    raise ExportError(f"{name!r} is of type {type_}, which no spreadsheet holds: leave it out")


def _nanosecond_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pat.is_duration(column.type):
        import pandas as pd  # here and not above: see flatten.frame

        values = (None if pd.isna(value) else str(value) for value in column.to_pandas())
        return pa.chunked_array([list(values)], pa.large_string())
    if pat.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp("ns", "UTC"))
    return column.cast(pa.large_string())


def _has_nanoseconds(column: pa.ChunkedArray) -> bool:
    type_ = column.type
    if not (pat.is_temporal(type_) and getattr(type_, "unit", "") == "ns"):
        return False
    since_zero = column.cast(pa.int64())
    thousands = pc.multiply(pc.divide(since_zero, 1000), 1000)
    return bool(pc.any(pc.not_equal(since_zero, thousands)).as_py())


_HELD: tuple[Callable[[pa.DataType], bool], ...] = (
    pat.is_integer,
    pat.is_floating,
    pat.is_decimal,
    pat.is_boolean,
    pat.is_date,
    pat.is_time,
    pat.is_null,
)


def _duration_text(value: timedelta | None) -> str | None:
    return None if value is None else str(value)


def _joined(values: list[Any] | None) -> str | None:
    if values is None:
        return None
    return _BETWEEN_VALUES.join("" if value is None else str(value) for value in values)


def _is_text(type_: pa.DataType) -> bool:
    return bool(pat.is_string(type_) or pat.is_large_string(type_) or pat.is_string_view(type_))


_WRITERS: dict[str, Callable[[Path, Sheets], None]] = {
    ".csv": _write_csv,
    ".xlsx": _write_xlsx,
    ".parquet": _write_parquet,
}
