"""`athena.sql`: the published tables as external tables of Amazon Athena.

The partitions are projected, so that nobody has to add them. Only the projection type `enum` can
list both months and `undated`, and allows queries that name no partition. Its values are the
published partitions and those to be expected, so that the statements seldom change. Tools that read
Hive's DDL understand everything but the projection.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable

import pyarrow as pa

from cohortlake import schema
from cohortlake.publish.export.tables import Table

PLACE = "${LAKE}"
"""Stands for the `s3://` URL of the root, if the lake is on a disk."""

_FIRST_YEAR = 1980
_LONGEST_COMMENT = 255  # Glue's limit
_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"

_TYPES = {
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.date32(): "date",
    schema.INSTANT: "timestamp",
    pa.list_(pa.string()): "array<string>",
}
"""Arrow type -> Athena's type. Athena has none for a time of day in a table of files."""


def statements(lake: str, tables: Iterable[Table], last_year: int) -> str:
    """Return the DDL, one statement after another.

    Args:
        lake: The URL of the root, or `PLACE`.
        tables: The published tables.
        last_year: The last year of which partitions are expected.
    """
    replace = (
        f"-- Put the s3:// URL that the lake was copied to in the place of {PLACE}.\n"
        if lake == PLACE
        else ""
    )
    head = (
        "-- Tables for Amazon Athena over the files of published/, a statement at a time.\n"
        "-- Run them again whenever this file changes: a partition that is not named is not read.\n"
        "-- To drop an external table deletes no file.\n"
    )
    return head + replace + "".join(_statements(lake, table, last_year) for table in tables)


def column_lines(columns: Iterable[schema.Column]) -> list[str]:
    """Return a line for each column that has a type there: its name, its type, its meaning."""
    return [f"  {_column(column)}" for column in columns if column.type in _TYPES]


def _statements(lake: str, table: Table, last_year: int) -> str:
    lines = column_lines(table.columns)
    left_out = [column.name for column in table.columns if column.type not in _TYPES]
    note = (
        f"-- Left out, for Athena has no type for it: {', '.join(left_out)}.\n" if left_out else ""
    )
    return (
        f"\nDROP TABLE IF EXISTS `{table.name}`;\n\n{note}"
        f"CREATE EXTERNAL TABLE `{table.name}` (\n" + ",\n".join(lines) + "\n)\n"
        f"{_partitioned(table)}STORED AS PARQUET\n"
        f"LOCATION '{lake}/published/{table.name}/'{_projection(table, last_year)};\n"
    )


def _partitioned(table: Table) -> str:
    # The value is text: it is the name of a folder, and one of them is `undated`.
    return f"PARTITIONED BY (`{table.partition.name}` string)\n" if table.partition else ""


def _projection(table: Table, last_year: int) -> str:
    if table.partition is None:
        return ""
    name = table.partition.name
    values = ",".join(_expected(table.partition, table.values, last_year))
    return (
        "\nTBLPROPERTIES (\n  'projection.enabled' = 'true',\n"
        f"  'projection.{name}.type' = 'enum',\n"
        f"  'projection.{name}.values' = '{values}'\n)"
    )


def _expected(partition: schema.Column, found: Iterable[str], last_year: int) -> list[str]:
    """Return the values that exist and those that are expected, sorted."""
    years = [f"{year:04d}" for year in range(_FIRST_YEAR, last_year + 1)]
    is_monthly = partition == schema.STUDY_MONTH
    months = [f"{year}-{month:02d}" for year in years for month in range(1, 13)]
    periods = months if is_monthly else [schema.YEAR_FORMAT.replace("%Y", year) for year in years]
    return sorted({*found, *periods, schema.UNDATED})


@functools.cache
def _column(column: schema.Column) -> str:
    # An apostrophe would end the comment. Hive and Athena escape it in different ways.
    meaning = textwrap.shorten(column.description, _LONGEST_COMMENT).replace("'", _APOSTROPHE)
    return f"`{column.name}` {_TYPES[column.type]} COMMENT '{meaning}'"
