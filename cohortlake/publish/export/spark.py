"""`spark.sql`: the published tables as temporary views of Apache Spark.

Spark cannot find out the columns by itself, because it fails at a file that has a time of day. So
the views name the columns, as the tables of Athena do. They find the partitions in the names of the
folders. To see a new one, run the file again.
"""

from __future__ import annotations

from collections.abc import Iterable

from cohortlake.publish.export import athena
from cohortlake.publish.export.tables import Table

_HEAD = """\
-- Views for Apache Spark over the files of published/. First say where the lake lies, as Spark
-- names the place: SET LAKE = /data/lake, or s3a://bucket/prefix. Run the statements again to see
-- new months.
"""


def statements(tables: Iterable[Table]) -> str:
    """Return the SQL of the views, one statement after another.

    Args:
        tables: The published tables. Those without files are left out, for Spark refuses them.
    """
    return _HEAD + "".join(_view(table) for table in tables if table.has_files)


def _view(table: Table) -> str:
    columns = athena.column_lines(table.all_columns)
    return (
        f"\nCREATE OR REPLACE TEMPORARY VIEW `{table.name}` (\n" + ",\n".join(columns) + "\n)\n"
        f"USING parquet OPTIONS (path '{athena.PLACE}/published/{table.name}');\n"
    )
