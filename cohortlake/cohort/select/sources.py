"""Reads anything with columns as an Arrow table: frames, streams, dicts, Parquet and CSV files.

Nothing is guessed: a column of a CSV file is text. See `text_types` for what else it may be, and
`outside_tables` for whether cohorts can join the table. No message holds a cell.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.errors import BadOutsideTable
from cohortlake.flatten import as_dates

_DELIMITERS = ",;\t|"
_HOW = (
    "give a pandas or Polars frame, an Arrow table or stream, a dict of columns, a list of dicts, "
    "or a .parquet or .csv file; for keys alone write where(patient_key=keys)"
)
_ROWS_IN_ERROR = 5
_T = TypeVar("_T")


@dataclass(frozen=True)
class OutsideTable:
    """A table from outside the lake.

    Attributes:
        table: The table.
        path: The file that it was read from; None if it was no file.
        lines: The line in which each row begins; None if the source is no CSV file.
        date_formats: Column of text -> how its dates were written, as `%d/%m/%Y`.
    """

    table: pa.Table
    path: str | None = None
    lines: Sequence[int] | None = None
    date_formats: tuple[tuple[str, str], ...] = ()

    def place(self, row: int) -> str:
        """Return where people find a row; `row` counts from 0."""
        return f"line {self.lines[row]:,}" if self.lines is not None else f"row {row + 1:,}"


def read(source: object, key: str) -> OutsideTable:
    """Read a table.

    Args:
        source: A frame, whatever has the Arrow C stream, array or dataframe interface, a dict of
            columns, a list of dicts, or the path of a Parquet or CSV file.
        key: The column that a CSV file must have, and that may be the index of a pandas frame.

    Raises:
        BadOutsideTable: It cannot be read; the message names the column, if one causes it.
    """
    if isinstance(source, str | os.PathLike):
        return _file(Path(source), key)
    if isinstance(source, pa.Table):
        return OutsideTable(_plain(source))
    if isinstance(source, Mapping):
        return OutsideTable(_plain(_of_columns(list(source), list(source.values()))))
    if isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        names = list(dict.fromkeys(name for row in source for name in row))
        return OutsideTable(_plain(_of_columns(names, [[r.get(n) for r in source] for n in names])))
    if hasattr(source, "iloc") and hasattr(source, "columns"):  # of pandas, column by column
        return OutsideTable(_plain(_of_pandas(source, key)))
    return OutsideTable(_plain(_of_interface(source)))


def _of_pandas(frame: Any, key: str) -> pa.Table:
    if key not in frame.columns and key in getattr(frame.index, "names", ()):
        frame = frame.reset_index()
    columns = [frame.iloc[:, number] for number in range(len(frame.columns))]
    return _of_columns(list(frame.columns), columns)


def _of_interface(source: object) -> pa.Table:
    kind = type(source).__name__
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return _quietly(lambda: pa.table(source), f"the {kind} cannot be read as a table; {_HOW}")
    if hasattr(source, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        return _quietly(lambda: from_dataframe(source), f"the {kind} cannot be read; {_HOW}")
    raise BadOutsideTable(f"a {kind} is no table; {_HOW}")


def _of_columns(names: Sequence[object], columns: Sequence[Any]) -> pa.Table:
    arrays = []
    for name, values in zip(names, columns, strict=True):
        if not isinstance(name, str):
            raise BadOutsideTable("a column's name is no text; rename it")
        if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
            raise BadOutsideTable(f"the column {name!r} is no list of values")
        failed = (
            f"the column {name!r} holds values of several kinds, or of one that no table can hold"
        )
        arrays.append(_quietly(partial(_array, values), f"{failed}; make them one kind"))
    if len({len(array) for array in arrays}) > 1:
        raise BadOutsideTable("the columns are not equally long; give each a value per row")
    return pa.Table.from_arrays(arrays, names=list(names))


def _array(values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if hasattr(values, "__arrow_c_stream__") and not hasattr(values, "iloc"):
        return pa.chunked_array(values)
    return pa.array(values, from_pandas=True)


def _file(path: Path, key: str) -> OutsideTable:
    if path.suffix not in (".parquet", ".csv"):
        raise BadOutsideTable(f"{path.name}: give a .parquet or a .csv file, or a frame")
    if not path.is_file():
        raise BadOutsideTable(f"{path} is not there; its path is taken from the YAML's folder")
    where = str(path.absolute())
    if path.suffix == ".csv":
        table, lines = _csv(path, key)
        return OutsideTable(table, where, lines)
    # Not by name: a folder called `a=b` above the file would be read as a column.
    table = _quietly(
        lambda: pq.ParquetFile(path).read(),
        f"{path} cannot be read as Parquet; write it again, or give a frame",
    )
    return OutsideTable(_plain(table), where)


def _csv(path: Path, key: str) -> tuple[pa.Table, list[int]]:
    failed = f"{path} cannot be read as CSV in UTF-8; write it again, or give a frame"
    rows = _quietly(lambda: list(_rows(path, key)), failed)
    if not rows:
        raise BadOutsideTable(f"{path} is empty; its first line names the columns")
    (_, names), *cells = rows
    wrong = [line for line, row in cells if len(row) != len(names)][:_ROWS_IN_ERROR]
    if wrong:
        raise BadOutsideTable(
            f"{path}: {len(names)} columns have names, and other lines have more or fewer values "
            f"(line {', '.join(f'{line:,}' for line in wrong)}); correct them"
        )
    columns = [
        pa.array([row[number] or None for _, row in cells], pa.string())
        for number in range(len(names))
    ]
    return pa.Table.from_arrays(columns, names=names), [line for line, _ in cells]


def _rows(path: Path, key: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the line in which it begins."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        delimiter = next((d for d in _DELIMITERS if key in _split(head, d)), ",")
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        before = 0
        for row in reader:
            if row:
                yield before + 1, row
            before = reader.line_num


def _split(head: str, delimiter: str) -> list[str]:
    return next(csv.reader([head], delimiter=delimiter), [])


def _plain(table: pa.Table) -> pa.Table:
    """Return a table with one type for text and one zone for instants, so that values compare."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        failed = f"the column {name!r} has a type that cannot be read; cast it"
        columns.append(as_dates(_quietly(partial(column.cast, _plain_type(column.type)), failed)))
    return pa.Table.from_arrays(columns, names=table.column_names)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _plain_type(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp(type_.unit, "UTC")
    return type_


def _quietly(do: Callable[[], _T], message: str) -> _T:
    """Call something whose error may quote a cell, and raise another error instead.

    Raises:
        BadOutsideTable: It failed. Raised outside `except`, so that `__context__` cannot show
            the cell.
    """
    with contextlib.suppress(Exception):
        return do()
    raise BadOutsideTable(message)
