"""The published table `series_headers`: what the whole header of each series says.

It has a row for each row of `series` whose header was fetched in the version that is shown. A file
is made of the files of `series` and `image_sets` of its period: they say which versions are shown.
Headers that stood in the file before are kept as they are, so that few are read from `headers/`.
"""

from __future__ import annotations

from collections.abc import Collection

import duckdb

from cohortlake.headers import columns, files
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.privacy import Policy
from cohortlake.publish.periods import Periods
from cohortlake.publish.writer import Writer
from cohortlake.storage.root import Root

TABLE = "series_headers"
_VERSION = ("datastore_id", "image_set_id", "version")
_OF_SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "patient_key")


def write(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    policy: Policy,
    values: HeaderValues,
    writer: Writer,
    changed: Collection[str],
    rewrite: Collection[str],
) -> None:
    """Write the files of the periods that changed.

    Args:
        con: A connection.
        root: The lake.
        policy: The privacy policy.
        values: Treats the values under the policy.
        writer: Has written `series` and `image_sets`.
        changed: The study months whose headers changed.
        rewrite: Periods whose file is not kept.
    """
    if "version" not in policy.tables[TABLE]:
        return  # nothing published says which version's header is due
    by_month = files.by_month(root)
    periods = Periods(policy.dates, dict.fromkeys(by_month, 0))
    due = {*rewrite, *periods.of_months(changed), *_of_series(writer.written)}
    with_headers = {p for p in due if periods.months([p]) or writer.has_file(TABLE, p)}
    for some in writer.in_memory("series", with_headers & _of_series(writer.files)):
        kept = [period for period in some if period not in rewrite]
        paths = [path for month in sorted(periods.months(some)) for path in by_month[month]]
        _write_periods(con, root, policy, values, writer, some, kept, paths)


def _of_series(paths: Collection[str]) -> set[str]:
    """Return the periods of the files of `series` and `image_sets` among some files."""
    parts = (path.split("/") for path in paths)
    return {p[2].partition("=")[2] for p in parts if p[1] in ("series", "image_sets")}


def _write_periods(
    con: duckdb.DuckDBPyConnection,
    root: Root,
    policy: Policy,
    values: HeaderValues,
    writer: Writer,
    periods: Collection[str],
    kept: Collection[str],
    paths: Collection[str],
) -> None:
    """Write the files of some periods, from those before and from files of `headers/`."""
    partition, version = policy.partition.name, ", ".join(_VERSION)
    for view, table, of in (
        ("written_series", "series", periods),
        ("written_image_sets", "image_sets", periods),
        ("kept_headers", TABLE, kept),
    ):
        writer.register_published(con, view, table, of)
    names = [name for name in policy.tables[TABLE] if name != partition]
    of_header = ", ".join(name for name in names if name not in (*_VERSION, *_OF_SERIES))
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE shown_versions AS
            SELECT {version}, {", ".join(f"s.{name}" for name in _OF_SERIES)},
                   s.{partition} AS period
            FROM written_series s JOIN written_image_sets USING (datastore_id, image_set_id);
        CREATE OR REPLACE TEMP TABLE header_rows AS
            SELECT {version}, {of_header} FROM kept_headers
            SEMI JOIN shown_versions USING ({version});
    """)
    without = f"FROM shown_versions ANTI JOIN header_rows USING ({version})"
    wanted = con.sql(f"SELECT image_set_id, version {without}").to_arrow_table()
    for stored in files.read_headers(root, paths, wanted) if len(wanted) else ():
        typed = values.treat(columns.read(stored.to_pylist()))
        for name in _VERSION:
            typed = typed.append_column(name, stored[name])
        con.register("read_headers", typed)
        con.execute(f"INSERT INTO header_rows SELECT {version}, {of_header} FROM read_headers")
        con.unregister("read_headers")
    both = f"header_rows JOIN shown_versions USING ({version})"
    rows = f"SELECT {', '.join(names)}, period FROM {both}"
    writer.write_rows(con, TABLE, rows, periods)
    con.execute("DROP TABLE shown_versions; DROP TABLE header_rows")
