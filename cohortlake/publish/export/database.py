"""`cohortlake.duckdb`: a database of views over the published files. It holds no row.

The views read files by a pattern, so they see new months without a change. The database changes
only with the columns or with the path of the folder.

The views read the folder that the database lies in, also after it was copied or moved. DuckDB has
no name for that folder, and reads relative paths from the working directory of its process. But the
default of `temp_directory` is the path of the opened database and `.tmp`, and a view may name its
files by a setting. A session that attaches the database beside another one has another
`temp_directory`. Then the views read the folder in which they were written, and refuse if the
database lies elsewhere. So no copy ever shows the rows of the original. If `file_search_path` is
set, the views use that instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cohortlake import schema
from cohortlake.publish.export.tables import Table
from cohortlake.storage import engine, locks

NAME = "cohortlake.duckdb"
"""The name of the database. Under another name its views do not know their folder."""

_OPENED = rf"^(.*[/\\])?{re.escape(NAME)}\.tmp$"
"""The `temp_directory` of a session that opened the database itself."""

_MOVED = (
    f"{NAME} was copied, moved or renamed, or a second one is attached, and does not know its "
    "folder: open it by itself, write SET file_search_path = '<the path of published/>', or run "
    "`cohortlake publish` where it lies now"
)

_MARK = "does not know its "
"""A part of `_MOVED`, and so of the SQL of each view."""

_READABLE_SINCE = "v1.0.0"
"""The oldest DuckDB that can open the database. BI tools come with old versions."""


def views(folder: str, tables: Iterable[Table]) -> str:
    """Return the SQL of the views with a fixed path, to run in a database of one's own.

    Args:
        folder: The full path of `published/`.
        tables: The published tables.
    """
    head = (
        f"-- The views of {NAME}, to read or to run in your own database. The path is\n"
        "-- the one that the folder had when this was written. Where it lies elsewhere now, run\n"
        "-- `cohortlake publish` there, or SET file_search_path = '<path of published/>' first.\n"
    )
    written = (
        "CASE WHEN current_setting('file_search_path') <> '' THEN ''\n"
        f"    ELSE {_text(engine.literally(folder) + '/')} END"
    )
    return head + _statements(tables, written, "")


def build(folder: str, tables: Iterable[Table]) -> bytes:
    """Return the content of a database file with the views.

    Args:
        folder: The full path of `published/`.
        tables: The published tables.
    """
    with locks.temporary_folder() as draft:
        file = draft / "views.duckdb"
        with engine.connect() as con:
            con.execute(f"ATTACH {_text(file)} AS built (STORAGE_VERSION '{_READABLE_SINCE}')")
            con.execute("USE built")
            con.execute(_statements(tables, _own_folder(folder), _knows_folder(folder)))
            con.execute("USE memory")
            con.execute("DETACH built")
        return file.read_bytes()


def _statements(tables: Iterable[Table], folder: str, condition: str) -> str:
    parts = []
    for table in tables:
        parts.append(f"{_view(table, folder, condition)};\n")
        parts += (
            f"COMMENT ON COLUMN {table.name}.{_name(column)} IS {_text(column.description)};\n"
            for column in table.all_columns
        )
    return "".join(parts)


def _view(table: Table, folder: str, condition: str) -> str:
    columns = table.all_columns
    if not table.has_files:  # DuckDB makes no view over missing files
        types = [(engine.sql_type(column.type), _name(column)) for column in columns]
        nulls = ", ".join(f"NULL::{type_} AS {name}" for type_, name in types)
        return f"\nCREATE VIEW {table.name} AS SELECT {nulls} WHERE false"
    names = ", ".join(map(_name, table.columns))
    if part := table.partition:
        names += f", {schema.dated_sql(engine.folder_value(part.name))} AS {_name(part)}"
    return (
        f"\nCREATE VIEW {table.name} AS SELECT {names} FROM read_parquet(\n"
        f"    {folder}\n"
        f"    || {_text(table.pattern)}, hive_partitioning = false, filename = true){condition}"
    )


def _own_folder(written: str) -> str:
    """Return SQL for the folder of the database, as the beginning of a pattern."""
    return (
        "CASE WHEN current_setting('file_search_path') <> '' THEN ''\n"
        f"    WHEN {_IS_OPENED} THEN regexp_replace(regexp_extract(\n"
        f"        current_setting('temp_directory'), {_text(_OPENED)}, 1),\n"
        "        '([*?[])', '[\\1]', 'g')\n"
        f"    ELSE {_text(engine.literally(written) + '/')} END"
    )


def _knows_folder(written: str) -> str:
    """Return a WHERE that raises an error where `_own_folder` may be another one."""
    return (
        "\nWHERE current_setting('file_search_path') <> '' OR (\n"
        f"    SELECT count(*) = 1 AND ({_IS_OPENED} OR max(path) = {_text(f'{written}/{NAME}')})\n"
        "    FROM duckdb_databases() WHERE database_name IN (\n"
        f"        SELECT database_name FROM duckdb_views() WHERE contains(sql, {_text(_MARK)})))\n"
        f"    OR error({_text(_MOVED)})"
    )


def _name(column: schema.Column) -> str:
    return f'"{column.name}"'


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


_IS_OPENED = f"regexp_matches(current_setting('temp_directory'), {_text(_OPENED)})"
