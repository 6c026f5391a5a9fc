"""`cohortlake.duckdb`: a database of views over the published files. It holds no row.

The views read files by a pattern, so they see new months without a change. The database changes
only with the columns or with the path of the folder. DuckDB reads relative paths from the working
directory of its process, and not from the folder of the database. So the views hold the full path
of the folder. If `file_search_path` is set, they use that instead: set it for a copied folder.
"""

from __future__ import annotations

from collections.abc import Iterable

from cohortlake import schema
from cohortlake.publish.export.tables import Table
from cohortlake.storage import engine, locks

_READABLE_SINCE = "v1.0.0"
"""The oldest DuckDB that can open the database. BI tools come with old versions."""


def views(folder: str, tables: Iterable[Table]) -> str:
    """Return the SQL of the views, with the descriptions of their columns.

    Args:
        folder: The full path of `published/`.
        tables: The published tables.
    """
    parts = [
        "-- What cohortlake.duckdb holds. The paths are those that the folder had when it was\n"
        "-- written. Where it lies elsewhere now, run `cohortlake publish` there, or begin each\n"
        "-- session with SET file_search_path = '<the path of published/>';\n"
    ]
    for table in tables:
        parts.append(f"{_view(folder, table)};\n")
        parts += (
            f"COMMENT ON COLUMN {table.name}.{_name(column)} IS {_text(column.description)};\n"
            for column in table.all_columns
        )
    return "".join(parts)


def build(statements: str) -> bytes:
    """Return the content of a database file in which some statements were run."""
    with locks.temporary_folder() as folder:
        file = folder / "views.duckdb"
        with engine.connect() as con:
            con.execute(f"ATTACH {_text(file)} AS built (STORAGE_VERSION '{_READABLE_SINCE}')")
            con.execute("USE built")
            con.execute(statements)
            con.execute("USE memory")
            con.execute("DETACH built")
        return file.read_bytes()


def _view(folder: str, table: Table) -> str:
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
        f"    CASE WHEN current_setting('file_search_path') = '' "
        f"THEN {_text(engine.literally(folder) + '/')} ELSE '' END\n"
        f"    || {_text(table.pattern)}, hive_partitioning = false, filename = true)"
    )


def _name(column: schema.Column) -> str:
    return f'"{column.name}"'


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
