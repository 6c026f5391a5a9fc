"""Publishing: plain Parquet that any reader lists and reads, each row once.

Writes only what changed since the last time. The privacy policy is applied here and nowhere
earlier. How far a change reaches is `lake.touched`'s, what a table holds `lake.marts`', where it
lies `lake.writer`'s, what says that it stands there `lake.publication`'s, and what tells other
tools of it `lake.catalogue`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import duckdb

from cohortlake import schema
from cohortlake.lake import (
    catalogue,
    engine,
    image_sets,
    intact,
    marts,
    normalised,
    patients,
    snapshots,
    touched,
)
from cohortlake.lake.keys import IN_LAKE, patient_key
from cohortlake.lake.periods import Periods
from cohortlake.lake.publication import MARKER_PATH, Publication, read_marker
from cohortlake.lake.root import Root
from cohortlake.lake.touched import Touched
from cohortlake.lake.writer import Writer
from cohortlake.privacy import Policy
from cohortlake.privacy.keys import create_macros
from cohortlake.privacy.treat import prepare, rows_sql

_ANEW_PATH = "published/_anew"


def publish(
    root: Root, policy: Policy, key_source: str = IN_LAKE, *, verify: bool = False
) -> Publication | None:
    """Bring `published/` up to date.

    What the marker names and is not there as it was written is written again.

    Args:
        root: The lake.
        policy: The privacy policy. Another than before publishes all anew.
        key_source: Where the key of the hashes is, see `lake.keys`.
        verify: Whether to compare the content of all files too, which reads them; else their
            sizes are compared.

    Returns:
        What stands there now, or None where nothing was ever applied.

    Raises:
        MissingKey: The lake was published before, and its key is gone.
        WrongKey: It was published with another one.
    """
    before = seen = read_marker(root)
    while True:
        publication = _publish_since(root, policy, key_source, before, verify=verify)
        if publication is None:
            if before:
                catalogue.bring_up_to_date(root, before, policy)  # the folder may have been moved
            return before
        latest = read_marker(root)
        if latest == seen:
            catalogue.bring_up_to_date(root, publication, policy)
            snapshots.record(root, publication.snapshot())
            # After all new files: a run that dies before it leaves its months due. Before any is
            # removed: a reader of the marker finds every file that it names, or reads it again.
            root.write(MARKER_PATH, publication.to_marker())
            _remove(root, publication.removed)
            root.delete(_ANEW_PATH)
            return publication
        # Another run published meanwhile, and may have put its older files over ours.
        seen = latest


def _publish_since(
    root: Root, policy: Policy, key_source: str, before: Publication | None, *, verify: bool
) -> Publication | None:
    """Write what changed since a publication, or was altered; return None where nothing was."""
    version = image_sets.version(root)
    sizes = intact.sizes(root) if before else {}
    altered = intact.altered(root, before, sizes, verify=verify) if before else {}
    since = None
    if before and (before.policy_digest, before.format) == (policy.digest, schema.FORMAT_VERSION):
        # Of `patients` only those who changed are counted anew: the file must hold the others.
        is_anew = root.exists(_ANEW_PATH) or any(map(_is_of_patients, altered))
        since = None if is_anew else before.image_sets_version
    is_up_to_date = since == version and before and before.policy == policy.name
    if version is None or (is_up_to_date and not altered):
        return None
    if since is None:
        # A run that dies midway leaves files that its successor has to replace or remove.
        have_all_published_anew(root)
    key = patient_key(root, key_source, may_create=before is None)
    writer = Writer(root, policy, intact.with_sizes(before.files, sizes) if before else {})
    again = frozenset(period for path in altered if (period := _period(path)))
    with engine.connection() as con:
        create_macros(con, key)
        prepare(con, policy)
        image_sets.register(con, root, version)
        is_whole = not image_sets.register_appended(con, root, since, version)
        periods = Periods.of(con, policy)
        again = frozenset[str]() if is_whole else again
        what = touched.find(con, periods, is_whole=is_whole, again=again)
        people = _people(con, touched.people(what.read, is_whole=is_whole)).to_arrow_table()
        patients.write(con, writer, policy, people, is_whole=is_whole)
        _write_periods(con, writer, policy, periods, what, again)
        observed_since, observed_until = image_sets.observed(con)
    removed = set(writer.unwritten() if is_whole else ())
    files = {path: rows for path, rows in sorted(writer.files.items()) if path not in removed}
    return Publication(
        version,
        policy.name,
        policy.digest,
        policy.widened,
        policy.tables,
        schema.FORMAT_VERSION,
        datetime.now(UTC).isoformat(timespec="seconds"),
        files,
        observed_since,
        observed_until,
        tuple(writer.written),
        tuple(sorted(removed)),
    )


def _remove(root: Root, paths: Iterable[str]) -> None:
    """Delete files of earlier publications that this one does not name."""
    latest = read_marker(root)
    # On S3 another run may have published meanwhile, and have written one of them again.
    for path in paths:
        if latest is None or path not in latest.files:
            root.delete(path)


def have_all_published_anew(root: Root) -> None:
    """Have the next publication write every file, and delete all others."""
    root.write(_ANEW_PATH, b"")


def _is_of_patients(path: str) -> bool:
    return path.startswith(f"published/{patients.TABLE}/")


def _period(path: str) -> str:
    """Return the period of a published file; nothing where its table has none."""
    return path.split("/")[-2].partition("=")[2]


def _write_periods(
    con: duckdb.DuckDBPyConnection,
    writer: Writer,
    policy: Policy,
    periods: Periods,
    what: Touched,
    again: frozenset[str],
) -> None:
    changed = periods.of_months(what.changed) | again
    affected = periods.of_months(what.affected) | again
    for batch in periods.batches(periods.of_months(what.months) | again):
        touched.load_batch(con, periods.months(batch))
        con.register("people", _people(con, "batch").to_arrow_table())
        con.register("orders", _orders(con, "batch").to_arrow_table())
        con.register("sexes", normalised.sexes(con, "batch"))
        con.register("body_parts", normalised.body_parts(con, "batch"))
        rows = rows_sql(marts.keyed("batch"), con.table("batch").columns, policy)
        con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS {rows}")
        con.execute("CREATE OR REPLACE TEMP VIEW present AS FROM rows WHERE ended_by IS NULL")
        con.execute("DROP TABLE batch")
        writer.write_periods(con, "image_sets", "present", batch & changed)
        writer.write_periods(con, "series", f"({marts.SERIES})", batch & affected)
        writer.write_periods(con, "studies", f"({marts.STUDIES})", batch)
        writer.write_periods(con, "history", "rows", batch & affected)
    con.execute("DROP TABLE IF EXISTS rows")


def _people(con: duckdb.DuckDBPyConnection, source: str) -> duckdb.DuckDBPyRelation:
    """Return the patients of a relation, with the key and the shift of each."""
    return con.sql(f"""
        SELECT *, keyed_hash('PatientID', datastore_id, PatientID) AS patient_key,
               shift_days(datastore_id, PatientID) AS shift_days
        FROM (SELECT DISTINCT datastore_id, PatientID FROM {source} WHERE trim(PatientID) <> '')
    """)


def _orders(con: duckdb.DuckDBPyConnection, source: str) -> duckdb.DuckDBPyRelation:
    """Return the accession numbers of a relation, with the key of each."""
    return con.sql(f"""
        SELECT *, keyed_hash('AccessionNumber', datastore_id, AccessionNumber) AS accession_key
        FROM (
            SELECT DISTINCT datastore_id, AccessionNumber FROM {source}
            WHERE trim(AccessionNumber) <> ''
        )
    """)
