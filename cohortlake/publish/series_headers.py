"""The published table `series_headers`: what the whole header of each series says.

It has a row for each row of `series` whose header was fetched in the version that is shown. A file
is made of the files of `series` and `image_sets` of its period: they say which versions are shown.
Headers that stood in the file before are kept as they are, so that few are read from `headers/`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import duckdb
import pyarrow as pa

from cohortlake.headers import columns, files
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.privacy import Policy
from cohortlake.publish.periods import Periods
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.writer import Writer
from cohortlake.storage import engine
from cohortlake.storage.root import Root

TABLE = "series_headers"
_ROWS = 20_000  # a row has 200 columns
_VERSION = ("datastore_id", "image_set_id", "version")
_OF_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "patient_key")


def write(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    policy: Policy,
    values: HeaderValues,
    writer: Writer,
    by_month: Mapping[str, Sequence[str]],
    changed: Collection[str],
    plan: PublishPlan,
) -> None:
    """Write the files of the periods that changed.

    Args:
        con: The connection of the version history.
        root: The lake.
        policy: The privacy policy.
        values: Treats the values under the policy.
        writer: Has written `series` and `image_sets`.
        by_month: Study month -> the files of `headers/` that hold its rows.
        changed: The study months whose headers changed.
        plan: What else is published.
    """
    periods = Periods(policy.dates, dict.fromkeys(by_month, 0))
    due = {*plan.rewrite, *periods.of_months(changed), *_of_series(writer.written)}
    rewrite = plan.rewrite
    if "version" not in policy.tables[TABLE]:
        # No published file says of which version a header is, so none is kept.
        due |= plan.periods["series"]
        rewrite = frozenset(due)
    with_headers = {p for p in due if periods.months([p]) or writer.has_file(TABLE, p)}
    certain = rewrite | _of_series(writer.written)
    for some in writer.in_memory("series", with_headers & _of_series(writer.files), _ROWS):
        paths = [path for month in sorted(periods.months(some)) for path in by_month[month]]
        kept = [period for period in some if period not in rewrite]
        news = _collect(con, root, policy, values, writer, some, kept, paths)
        _write(con, policy, writer, [p for p in some if p in certain or p in news])
        con.execute("DROP TABLE shown_versions; DROP TABLE header_rows")
        pa.default_memory_pool().release_unused()


def _of_series(paths: Collection[str]) -> set[str]:
    """Return the periods of the files of `series` and `image_sets` among some files."""
    parts = (path.split("/") for path in paths)
    return {p[2].partition("=")[2] for p in parts if p[1] in ("series", "image_sets")}


def _collect(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    policy: Policy,
    values: HeaderValues,
    writer: Writer,
    periods: Collection[str],
    kept: Collection[str],
    paths: Collection[str],
) -> set[str]:
    """Make tables of the versions that some periods show, and of the headers of these.

    Headers come from the files of `kept` periods, and from files of `headers/`.

    Returns:
        The periods with a header that their file did not have.
    """
    is_shown = "version" in policy.tables[TABLE]
    for view, table, of in (
        ("written_series", "series", periods),
        ("written_image_sets", "image_sets", periods),
        ("kept_headers", TABLE, kept),
    ):
        writer.register_published(con, view, table, of)
    version = ", ".join(_VERSION)
    of_header = ", ".join(_of_header(policy))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE shown_versions AS
            SELECT {version}, {", ".join(f"s.{name}" for name in _OF_SERIES)},
                   s.{policy.partition.name} AS period
            FROM written_series s
            JOIN {"written_image_sets" if is_shown else "current"}
                USING (datastore_id, image_set_id);
        CREATE OR REPLACE TEMP TABLE header_rows AS
            SELECT {version}, {of_header} FROM (
                SELECT *{"" if is_shown else ", 0::BIGINT AS version"} FROM kept_headers
            ) SEMI JOIN shown_versions USING ({version});
    """)
    without = f"FROM shown_versions ANTI JOIN header_rows USING ({version})"
    wanted = con.sql(f"SELECT image_set_id, version, period {without}").to_arrow_table()
    if not len(wanted):
        return set()
    for stored in files.read_headers(root, paths, wanted):
        typed = values.treat(columns.read(stored.to_pylist()))
        for name in _VERSION:
            typed = typed.append_column(name, stored[name])
        con.register("read_headers", typed)
        con.execute(f"INSERT INTO header_rows SELECT {version}, {of_header} FROM read_headers")
        con.unregister("read_headers")
    con.register("wanted_headers", wanted)
    with_news = "FROM wanted_headers SEMI JOIN header_rows USING (image_set_id, version)"
    news = con.sql(f"SELECT DISTINCT period {with_news}").fetchall()
    con.unregister("wanted_headers")
    return {str(period) for (period,) in news}


def _write(
    con: duckdb.DuckDBPyConnection, policy: Policy, writer: Writer, periods: Collection[str]
) -> None:
    """Write the files of some periods from the tables that `_collect` made."""
    if periods:
        names = [name for name in policy.tables[TABLE] if name != policy.partition.name]
        rows = f"""
            SELECT {", ".join(names)}, period
            FROM header_rows JOIN shown_versions USING ({", ".join(_VERSION)})
            WHERE period IN {engine.text_list(periods)}
        """
        writer.write_rows(con, TABLE, rows, periods)


def _of_header(policy: Policy) -> list[str]:
    """Return the columns of the table that a header gives."""
    others = (*_VERSION, *_OF_SERIES, policy.partition.name)
    return [name for name in policy.tables[TABLE] if name not in others]
