"""The published tables as views in DuckDB: as they are now, or as they were at an instant.

Decides which files a view reads. As of an instant, `image_sets` is a filter on `history`, and the
other tables follow from it by the same SQL that publishing runs (`publish.marts`). Nothing is
read before a query asks for it. Reads `published/` only.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import duckdb

from cohortlake import schema
from cohortlake.errors import InstantError, NotShown
from cohortlake.publish import marts, study_order
from cohortlake.publish.publication.marker import Publication
from cohortlake.storage import engine
from cohortlake.storage.root import Root

OF_ALL_TIMES = ("history", "earlier_headers")
"""The tables that are the same as of each instant."""

_MARTS = {
    "series": marts.series("present"),
    "studies": marts.studies("present", "study_order"),
    "patients": f"FROM ({marts.patients('present')}) WHERE patient_key IS NOT NULL",
}


def create(
    con: duckdb.DuckDBPyConnection, root: Root, publication: Publication, as_of: datetime | None
) -> None:
    """Create a view for each published table.

    Args:
        con: The connection.
        root: The lake.
        publication: What is published there.
        as_of: The instant that all tables but `OF_ALL_TIMES` show; None is now.

    Raises:
        InstantError: The lake was first searched after the instant.
        NotShown: There is an instant, and the policy hides what the past is made from.
    """
    for table in OF_ALL_TIMES if as_of else schema.PUBLISHED:
        con.execute(f"CREATE TEMP VIEW {table} AS {_registered(con, root, publication, table)}")
    if as_of is None:
        return
    require_past(publication, as_of)
    if schema.year_of(schema.STUDY_DATE).name in publication.columns["history"]:
        raise NotShown("tables of the past are made from dates", publication.policy)
    con.execute(_rows_as_of(as_of, publication))
    con.execute(f"CREATE TEMP VIEW study_order AS {study_order.of('present')}")
    for table, query in {"image_sets": "FROM present", **_MARTS}.items():
        names = ", ".join(f"{sql} AS {name}" for name, sql in _as_shown(table, publication).items())
        con.execute(f"CREATE TEMP VIEW {table} AS SELECT {names} FROM ({query})")
    con.execute(f"CREATE TEMP VIEW series_headers AS {_headers_as_of(con, root, publication)}")


def _headers_as_of(con: duckdb.DuckDBPyConnection, root: Root, publication: Publication) -> str:
    """Return SQL for the header of each series, in the version that represented it then."""
    rows = _registered(con, root, publication, "series_headers")
    if publication.paths("earlier_headers"):
        rows = f"FROM ({rows}) UNION ALL FROM earlier_headers"
    elif not publication.paths("series_headers"):
        return rows
    columns = publication.columns["series_headers"]
    if "version" not in columns:
        raise NotShown("headers of the past are found by `version`", publication.policy)
    month = next(name for name in _PARTITIONS if name in columns)
    # Both tables may have one version, in two months.
    return f"""
        SELECT {", ".join(f"h.{name}" for name in columns)} FROM ({rows}) h SEMI JOIN (
            SELECT datastore_id, image_set_id, version, {_month_sql(columns)} AS month
            FROM present SEMI JOIN series USING (datastore_id, image_set_id)
        ) p ON h.datastore_id = p.datastore_id AND h.image_set_id = p.image_set_id
            AND h.version = p.version AND h.{month} IS NOT DISTINCT FROM p.month
    """


def require_clocks(publication: Publication) -> None:
    """Check that the published history shows when its states began and ended.

    Raises:
        NotShown: The policy hides it.
    """
    if not {"valid_from", "valid_to", "observed_from", "observed_to"} <= {
        *publication.columns["history"]
    }:
        raise NotShown("reading the past needs the instants of `history`", publication.policy)


def require_past(publication: Publication, at: datetime) -> None:
    """Check that the published history can say what was there at an instant.

    Raises:
        InstantError: The lake was first searched after it.
        NotShown: The policy hides when states began and ended.
    """
    require_clocks(publication)
    first = publication.observed_since and datetime.fromisoformat(publication.observed_since)
    if not first:
        raise InstantError("the lake has not seen any image set yet, so it has no past")
    if at < first:
        raise InstantError(
            f"the first search began at {first.isoformat()}, so the lake does not know what was "
            f"there at {at.isoformat()}. Give a later instant; 'history' holds what is known of "
            "earlier times"
        )


def _registered(
    con: duckdb.DuckDBPyConnection, root: Root, publication: Publication, table: str
) -> str:
    """Make the files of a table readable, and return SQL for its rows."""
    files, columns = publication.paths(table), schema.arrow_schema(publication.shown(table))
    engine.register(con, f"_{table}", root, files, columns)
    is_local = not files or root.location_of(files[0]).is_local
    return _rows(table, columns.names, is_local=is_local)


def _rows(table: str, names: Collection[str], *, is_local: bool) -> str:
    """Return SQL for a table's rows as its files hold them, without a date as null."""
    relation = f"_{table}"
    partition = next((name for name in _PARTITIONS if name in names), None)
    if partition is None:
        return f"FROM {relation}"
    if is_local:
        return f"SELECT * REPLACE ({schema.dated_sql(partition)} AS {partition}) FROM {relation}"
    # Arrow skips files by plain comparisons only, so those without a date are read apart.
    return f"""
        FROM {relation} WHERE {partition} <> '{schema.UNDATED}' UNION ALL
        SELECT * REPLACE (NULL AS {partition}) FROM {relation}
        WHERE {partition} = '{schema.UNDATED}'
    """


def _rows_as_of(as_of: datetime, publication: Publication) -> str:
    # The marts name all columns, by their own names; those that the policy hides are null.
    known = _as_shown("history", publication)
    own = {sql: name for name, sql in known.items() if name not in _PARTITIONS}
    columns = (
        f"{own.get(c.name) or f'NULL::{engine.sql_type(c.type)}'} AS {c.name}"
        for c in schema.published("history")
        if c != schema.STUDY_MONTH
    )
    return f"""
        CREATE TEMP VIEW present AS
        SELECT {", ".join(columns)}, hash({marts.STUDY}) AS entity_hash,
               datastore_id || image_set_id AS interval_key  -- of each image set one is true
        FROM history
        WHERE valid_from <= TIMESTAMPTZ '{as_of.isoformat()}'
          AND (valid_to IS NULL OR valid_to > TIMESTAMPTZ '{as_of.isoformat()}')
    """


def _as_shown(table: str, publication: Publication) -> dict[str, str]:
    """Return the name of each column as the policy shows it -> SQL for it, from the schema's."""
    shown = publication.columns[table]
    found = {f.name: c.name for c in schema.published(table) for f in schema.forms(c)}
    month = _month_sql(shown)
    return {name: month if name in _PARTITIONS else found[name] for name in shown}


def _month_sql(shown: Collection[str]) -> str:
    """Return SQL for the month or the year by which a table with these columns is cut."""
    form = "%Y-%m" if schema.STUDY_MONTH.name in shown else schema.YEAR_FORMAT
    return f"strftime(StudyDate, '{form}')"


_PARTITIONS = tuple(form.name for form in schema.forms(schema.STUDY_MONTH))
