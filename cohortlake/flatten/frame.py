"""Turns Arrow tables into pandas frames with the dtypes that users of pandas expect.

Text is `string`, whole numbers are `Int64` and the like, truth values are `boolean`: none of them
turns into another type because a value is missing. Dates and instants are `datetime64[us]`, which
holds every date of the years 1 to 9999. Lists and times of day stay Arrow's own types.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

_EXACT = {
    pa.string(): "string",
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.bool_(): "boolean",
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
}
"""Arrow type -> the name of the dtype of pandas that holds its values and nulls."""

_DATE_IN_FILE = "timestamp[us][pyarrow]"
"""The dtype for a date of a Parquet file: pandas makes no other dtype with dates of one."""


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame. See the docstring of this module for its dtypes."""
    import pandas as pd  # 50 MB, and opening a lake makes no frame

    columns = [_for_pandas(column) for column in table.columns]
    arrow = pa.table(columns, names=table.column_names)
    frame: pd.DataFrame = arrow.to_pandas(types_mapper=_dtype_of(pd))
    return frame


def to_table(frame: pd.DataFrame) -> pa.Table:
    """Return a frame of `to_frame` as a table again, with its dates as dates."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return pa.table([as_dates(column) for column in table.columns], names=table.column_names)


def as_dates(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times that are all at midnight, without a zone, as dates: pandas has no dates."""
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        days = column.cast(pa.date32())  # pyarrow drops the time of day without an error
        if days.cast(column.type).equals(column):
            return days
    return column


def with_pandas_dtypes(table: pa.Table) -> pa.Table:
    """Return a table for a Parquet file, from which plain pandas reads exact dtypes.

    Without them pandas reads a column of whole numbers as floats in a file that has a null there.
    """
    return table.replace_schema_metadata(schema_with_pandas_dtypes(table.schema).metadata)


def schema_with_pandas_dtypes(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a Parquet file; see `with_pandas_dtypes`."""
    columns = [
        {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": "object",
            "numpy_type": _dtype_in_file(field.type),
            "metadata": None,
        }
        for field in schema
    ]
    written = {
        "index_columns": [],
        "column_indexes": [],
        "columns": columns,
        "creator": {"library": "cohortlake", "version": ""},
        "pandas_version": "3.1.0",
    }
    metadata = {**(schema.metadata or {}), b"pandas": json.dumps(written).encode()}
    return schema.with_metadata(metadata)


def _dtype_in_file(type_: pa.DataType) -> str:
    return _DATE_IN_FILE if pa.types.is_date(type_) else _EXACT.get(type_, "object")


def _for_pandas(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in a type that pandas computes with: a sum of DuckDB is a decimal."""
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("us"))
    if pa.types.is_decimal(column.type):
        whole = column.type.scale == 0
        try:
            return column.cast(pa.int64() if whole else pa.float64())
        except pa.ArrowInvalid:
            return column  # beyond 64 bits
    return column


def _dtype_of(pandas: Any) -> Callable[[pa.DataType], Any]:
    def dtype(type_: pa.DataType) -> Any:
        if name := _EXACT.get(type_):
            return pandas.api.types.pandas_dtype(name)
        is_of_pandas = (
            pa.types.is_floating(type_)
            or pa.types.is_timestamp(type_)
            or pa.types.is_dictionary(type_)
        )
        return None if is_of_pandas else pandas.ArrowDtype(type_)

    return dtype
