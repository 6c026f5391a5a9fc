"""The published tables of headers: `series_headers` and `earlier_headers`.

`series_headers` has a row for each row of `series` whose header was fetched in the version that is
shown. `earlier_headers` has the headers of all other versions in `history`, so the past is made of
both. The files of `series`, `image_sets` and `history` of a period say which versions there are.
Headers that are published already are copied, so few are read from `headers/`. In a file that was
published, only the rows of image sets that changed are replaced.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import duckdb
import pyarrow as pa

from cohortlake.headers import columns, files
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.history import image_sets
from cohortlake.privacy import Policy
from cohortlake.publish.parquet_file import Entities
from cohortlake.publish.periods import Periods
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.writer import Writer
from cohortlake.storage import engine
from cohortlake.storage.root import Root

SHOWN, EARLIER = TABLES = ("series_headers", "earlier_headers")
_MADE_OF = ("series", "image_sets", "history")
_ROWS = 10_000  # a row has 200 columns
_VERSION = ("datastore_id", "image_set_id", "version")
_OF_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "patient_key")
_KEY = ", ".join((*_VERSION, "period"))
_IMAGE_SET = "datastore_id, image_set_id"
_ALTERED = "altered_image_sets"
_ROW = ", ".join((_KEY, *_OF_SERIES, "in_table"))


def write(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    version: int,
    policy: Policy,
    values: HeaderValues,
    writer: Writer,
    by_month: Mapping[str, Sequence[str]],
    changed: Collection[str],
    plan: PublishPlan,
) -> None:
    """Write the files of the periods that changed.

    Args:
        con: A connection.
        root: The lake.
        version: The version of the version history that is published.
        policy: The privacy policy.
        values: Treats the values under the policy.
        writer: Has written `series`, `image_sets` and `history`.
        by_month: Study month -> the files of `headers/` that hold its rows.
        changed: The study months whose headers changed.
        plan: What else is published.
    """
    periods = Periods(policy.dates, dict.fromkeys(by_month, 0))
    due = {*plan.rewrite, *periods.of_months(changed), *_periods_of(writer.written)}
    rewrite, states = plan.rewrite, "written_image_sets"
    if not _shows_versions(policy):
        # No published file says of which version a header is, so none is copied.
        due |= plan.periods["series"]
        rewrite = frozenset(due)
        states = image_sets.register(con, root, version).current
    due = {p for p in due if periods.months([p]) or any(writer.has_file(t, p) for t in TABLES)}
    for some in writer.in_memory("history", due & _periods_of(writer.files), _ROWS):
        paths = [path for month in sorted(periods.months(some)) for path in by_month[month]]
        kept = [period for period in some if period not in rewrite]
        _list_versions(con, policy, writer, some, states)
        _list_former(con, policy, writer, kept)
        _read_new(con, root, policy, values, paths)
        altered = _find_altered(con)
        are_few = engine.count(con, f"SELECT count(*) FROM {_ALTERED}") <= _ROWS
        if are_few:
            _copy_former(con, policy, f"SEMI JOIN {_ALTERED} USING ({_IMAGE_SET})")
        else:
            _copy_former(con, policy)
            kept = []
        for table in TABLES:
            to_write = [p for p in some if p in rewrite or (table, p) in altered]
            _replace(con, policy, writer, table, [p for p in to_write if p in kept])
            _write(con, policy, writer, table, [p for p in to_write if p not in kept])
        writer.finish()
        for name in ("versions_of_periods", "former_rows", "altered_rows", "header_rows"):
            con.execute(f"DROP TABLE {name} CASCADE")
        pa.default_memory_pool().release_unused()


def _shows_versions(policy: Policy) -> bool:
    return "version" in policy.tables[SHOWN]


def _periods_of(paths: Collection[str]) -> set[str]:
    """Return the periods of the files that the tables are made of, among some files."""
    parts = (path.split("/") for path in paths)
    return {part[2].partition("=")[2] for part in parts if part[1] in _MADE_OF}


def _list_versions(
    con: duckdb.DuckDBPyConnection,
    policy: Policy,
    writer: Writer,
    periods: Collection[str],
    states: str,
) -> None:
    """List the versions of some periods, and the table that has the header of each.

    Args:
        con: The connection of the states.
        policy: The privacy policy.
        writer: Has written the files of the periods.
        periods: The periods.
        states: A relation with the current version of each image set.
    """
    for table in _MADE_OF:
        writer.register_published(con, f"written_{table}", table, periods)
    period = policy.partition.name
    is_shown = _shows_versions(policy)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE versions_of_periods AS
        SELECT {", ".join(_VERSION)}, s.{period} AS period,
               {", ".join(f"s.{name}" for name in _OF_SERIES)}, '{SHOWN}' AS in_table
        FROM written_series s JOIN {states}
            USING (datastore_id, image_set_id)
        WHERE version IS NOT NULL
    """)
    if is_shown:
        # An image set that was gone for a while has two states of one version.
        con.execute(f"""
            INSERT INTO versions_of_periods
            SELECT DISTINCT ON ({_KEY}) {_ROW}
            FROM (SELECT *, {period} AS period, '{EARLIER}' AS in_table FROM written_history)
            ANTI JOIN versions_of_periods USING ({_KEY})
            WHERE version IS NOT NULL ORDER BY {_ROW}
        """)


def _list_former(
    con: duckdb.DuckDBPyConnection, policy: Policy, writer: Writer, periods: Collection[str]
) -> None:
    """List the versions whose header the files of some periods have."""
    version = "" if _shows_versions(policy) else ", 0::BIGINT AS version"
    for table in TABLES:
        writer.register_published(con, f"published_{table}", table, periods)
        con.execute(f"""
            CREATE OR REPLACE TEMP VIEW former_{table} AS
            SELECT *, {policy.partition.name} AS period, '{table}' AS in_table{version}
            FROM published_{table}
        """)
    rows = " UNION ALL ".join(f"SELECT {_ROW} FROM former_{table}" for table in TABLES)
    con.execute(f"CREATE OR REPLACE TEMP TABLE former_rows AS {rows}")


def _read_new(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    policy: Policy,
    values: HeaderValues,
    paths: Collection[str],
) -> None:
    """Read the headers that no file has yet from files of `headers/`."""
    of_header = ", ".join(_of_header(policy))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE header_rows AS
        SELECT {_KEY}, {of_header} FROM former_{SHOWN} LIMIT 0
    """)
    lacking = f"FROM versions_of_periods ANTI JOIN former_rows USING ({_KEY})"
    wanted = con.sql(f"SELECT image_set_id, version, period {lacking}").to_arrow_table()
    con.register("wanted_headers", wanted)
    for stored in files.read_headers(root, paths, wanted) if len(wanted) else ():
        typed = values.treat(columns.read(stored.to_pylist()))
        for name in _VERSION:
            typed = typed.append_column(name, stored[name])
        con.register("read_headers", typed)
        con.execute(f"""
            INSERT INTO header_rows SELECT {_KEY}, {of_header}
            FROM read_headers JOIN wanted_headers USING (image_set_id, version)
        """)
        con.unregister("read_headers")
    con.unregister("wanted_headers")


def _find_altered(con: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """List the image sets whose rows are not those of the files.

    Returns:
        The tables and periods of these rows.
    """
    known = f"SELECT {_KEY} FROM former_rows UNION ALL SELECT {_KEY} FROM header_rows"
    con.execute(f"""
        CREATE OR REPLACE TEMP VIEW present_rows AS
            SELECT {_ROW} FROM versions_of_periods SEMI JOIN ({known}) USING ({_KEY});
        CREATE OR REPLACE TEMP TABLE altered_rows AS
            (FROM present_rows EXCEPT FROM former_rows)
            UNION ALL (FROM former_rows EXCEPT FROM present_rows);
        CREATE OR REPLACE TEMP VIEW {_ALTERED} AS SELECT DISTINCT {_IMAGE_SET} FROM altered_rows;
    """)
    altered = con.sql("SELECT DISTINCT in_table, period FROM altered_rows").fetchall()
    return {(str(table), str(period)) for table, period in altered}


def _copy_former(con: duckdb.DuckDBPyConnection, policy: Policy, which: str = "") -> None:
    """Copy headers out of the files, before these are written again."""
    for table in TABLES:
        con.execute(f"""
            INSERT INTO header_rows SELECT {_KEY}, {", ".join(_of_header(policy))}
            FROM former_{table} {which}
        """)


def _replace(
    con: duckdb.DuckDBPyConnection,
    policy: Policy,
    writer: Writer,
    table: str,
    periods: Collection[str],
) -> None:
    """Replace the rows of the altered image sets in the files of some periods of a table."""
    if periods:
        rows = f"SELECT {', '.join(_names(policy))}, period {_rows_of(table, periods)}"
        replaced = Entities(con.sql(f"FROM {_ALTERED}").to_arrow_table())
        writer.replace(table, writer.read_periods(con, table, rows), periods, replaced)


def _write(
    con: duckdb.DuckDBPyConnection,
    policy: Policy,
    writer: Writer,
    table: str,
    periods: Collection[str],
) -> None:
    """Write the files of some periods of a table.

    DuckDB cannot sort many rows of 200 columns in bounded memory, so they are sorted in slices.
    Only a period that is alone can have many.
    """
    if not periods:
        return
    names, rows = ", ".join(_names(policy)), _rows_of(table, periods)
    last_ids = con.sql(f"""
        SELECT image_set_id FROM (
            SELECT image_set_id, row_number() OVER (ORDER BY image_set_id) AS number {rows}
        ) WHERE number % {_ROWS} = 0 ORDER BY ALL
    """).fetchall()
    if len(periods) > 1 or not last_ids:
        together = writer.read_periods(con, table, f"SELECT {names}, period {rows}")
        writer.write(table, together, periods)
        return
    bounds = [None, *sorted({str(id_) for (id_,) in last_ids}), None]
    slices = (
        f"SELECT {names} {rows} AND {_is_between(*ends)}" for ends in itertools.pairwise(bounds)
    )
    writer.write_period(con, table, next(iter(periods)), slices)


def _is_between(first: str | None, last: str | None) -> str:
    """Return SQL for ids after one and up to another. Without either there is no bound."""
    after = f"image_set_id > {engine.quoted(first)}" if first else "true"
    return f"{after} AND image_set_id <= {engine.quoted(last)}" if last else after


def _rows_of(table: str, periods: Collection[str]) -> str:
    return f"""
        FROM header_rows JOIN versions_of_periods USING ({_KEY})
        WHERE in_table = '{table}' AND period IN {engine.text_list(periods)}
    """


def _names(policy: Policy) -> list[str]:
    """Return the columns of a file."""
    return [name for name in policy.tables[SHOWN] if name != policy.partition.name]


def _of_header(policy: Policy) -> list[str]:
    """Return the columns that a header gives."""
    return [name for name in _names(policy) if name not in (*_VERSION, *_OF_SERIES)]
