"""The published tables as views in DuckDB: as they are now, or as they were at an instant.

Owns which files a view reads. As of an instant, `image_sets` is a filter on `history`, and the
other tables follow from it by the same SQL that publishing runs (`lake.marts`). Nothing is
read before a query asks for it. Reads `published/` only.
"""

from __future__ import annotations

from datetime import datetime

import duckdb

from cohortlake import schema
from cohortlake.lake import engine, marts, visits
from cohortlake.lake.publish import Publication
from cohortlake.lake.root import Root
from cohortlake.privacy import visible

_MARTS = {
    "series": marts.SERIES,
    "studies": marts.STUDIES,
    "patients": f"FROM ({marts.patients()}) WHERE patient_key IS NOT NULL",
}


def columns(table: str, policy: str) -> tuple[schema.Column, ...]:
    """Return the columns of a published table that its policy shows.

    Raises:
        UnknownTable: There is none of that name.
    """
    return visible(schema.published(table), policy)


def create(
    con: duckdb.DuckDBPyConnection, root: Root, publication: Publication, as_of: datetime | None
) -> None:
    """Make a view of each published table.

    Args:
        con: The connection.
        root: The lake.
        publication: What is published there.
        as_of: The instant that all tables but `history` show; None is now.
    """
    shown = {table: columns(table, publication.policy) for table in schema.PUBLISHED}
    for table in ("history",) if as_of else schema.PUBLISHED:
        files = publication.paths(table)
        engine.register(con, table, root, files, schema.arrow_schema(shown[table]), hive=True)
    if as_of is None:
        return
    con.execute(_rows_as_of(as_of, shown["history"]))
    con.execute(f"CREATE VIEW visits AS {visits.of('present')}")
    for table, query in {"image_sets": "FROM present", **_MARTS}.items():
        names = ", ".join(column.name for column in shown[table])
        con.execute(f"CREATE VIEW {table} AS SELECT {names} FROM ({query})")


def _rows_as_of(as_of: datetime, known: tuple[schema.Column, ...]) -> str:
    # The marts name all columns; those that the policy hides are null, and left out again.
    hidden = (c.name for c in schema.published("image_sets") if c not in known)
    return f"""
        CREATE VIEW present AS
        SELECT *{"".join(f", NULL::VARCHAR AS {name}" for name in hidden)},
               datastore_id || image_set_id AS interval_key  -- of each image set one is true
        FROM history
        WHERE valid_from <= TIMESTAMPTZ '{as_of.isoformat()}'
          AND (valid_to IS NULL OR valid_to > TIMESTAMPTZ '{as_of.isoformat()}')
    """
