"""`cohortlake.duckdb`: a database of views over the published files, and of no row.

Views that read by pattern see months that come and go, so the database changes only with the
columns, or with the folder. DuckDB takes a relative path from where its process stands, and knows
no path relative to the database: the views hold the folder's own path, and give way to
`file_search_path` where that is set, as for a folder that was copied or mounted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from cohortlake import schema
from cohortlake.publish.export.tables import Table
from cohortlake.storage import engine, locks

_READABLE_SINCE = "v1.0.0"
"""The oldest DuckDB that can open the database: those in BI tools lag behind."""


def views(folder: str, tables: Iterable[Table]) -> str:
    """Return the views as SQL, with what their columns mean.

    Args:
        folder: The full path of `published/`.
        tables: What to make views of.
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
    """Return a database file in which some statements were run."""
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
    if not table.has_files:  # DuckDB makes no view over files that are not there
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
