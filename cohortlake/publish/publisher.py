"""Publishing: plain Parquet that any reader lists and reads, each row once.

Writes only what changed since the last time. The privacy policy is applied here and nowhere
earlier. See `touched` for how far a change reaches, `marts` for what a table holds, `writer` for
where it lies, `publication` for what says that it stands there, and `export.catalogue` for what
tells other tools of it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

import duckdb

from cohortlake import schema
from cohortlake.history import image_sets
from cohortlake.privacy import Policy, fingerprint
from cohortlake.privacy.key_store import IN_LAKE
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.privacy.treatments import prepare, rows_sql
from cohortlake.publish import derived_values, intact, marts, patients, plan, snapshots
from cohortlake.publish.export import catalogue
from cohortlake.publish.marker import (
    Publication,
    PublishedFile,
    read_marker,
    read_marker_with_tag,
    write_marker,
)
from cohortlake.publish.periods import Periods
from cohortlake.publish.plan import Touched
from cohortlake.publish.published_key import key_to_publish_with
from cohortlake.publish.writer import Writer
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_YEAR_ALONE = re.compile(r"=\d{4}/")
"""What folders of a year were called by earlier releases, see `schema.YEAR_FORMAT`."""
_ANEW_PATH = "published/_anew"


def publish(
    root: Root,
    policy: Policy,
    key_source: str = IN_LAKE,
    *,
    verify: bool = False,
    with_new_key: bool = False,
) -> Publication | None:
    """Bring `published/` up to date.

    What the marker names and is not there as it was written is written again.

    Args:
        root: The lake.
        policy: The privacy policy. Another than before publishes all anew.
        key_source: Where the key of the hashes is, see `privacy.key_store`.
        verify: Whether to compare the content of all files too, which reads them; else their
            sizes are compared.
        with_new_key: Whether a rotation of the key asks. Only then may the key be another one
            than that of the files that stand there; all of them must be due.

    Returns:
        What stands there now, or None where nothing was ever applied.

    Raises:
        MissingKey: The lake was published before, and its key is gone.
        WrongKey: It was published with another one.
    """
    before, tag = read_marker_with_tag(root)
    latest = before
    while True:
        version, request = image_sets.version(root), _full_request(root)
        sizes = intact.sizes(root) if before else {}
        altered = intact.altered(root, before, sizes, verify=verify) if before else {}
        # Of `patients` only those who changed are counted anew: the file must hold the others.
        is_anew = request or any(map(_is_of_patients, altered))
        since = None if is_anew else _since(before, policy)
        is_up_to_date = since == version and before and before.policy == policy.name
        if version is None or (is_up_to_date and not altered):
            if before:
                catalogue.bring_up_to_date(root, before, policy)  # the folder may have been moved
            return before
        key = key_to_publish_with(root, key_source, latest, with_new_key=with_new_key)
        if since is None and not request:
            # A run that dies midway leaves files that its successor has to replace or remove.
            request = request_full_publish(root)
        files = intact.with_sizes(before.files, sizes) if before else {}
        again = frozenset(period for path in altered if (period := _period(path)))
        publication = _publish_since(root, policy, key, files, since, version, again)
        catalogue.bring_up_to_date(root, publication, policy)
        snapshots.record(root, publication.snapshot())
        # After all new files: a run that dies before it leaves its months due. Before any is
        # removed: a reader of the marker finds every file that it names, or reads it again.
        if write_marker(root, publication, tag):
            _remove(root, publication.removed)
            if request and request == _full_request(root):  # and nobody asked again meanwhile
                root.delete(_ANEW_PATH)
            return publication
        # Another run published meanwhile, and may have put its older files over ours. What changed
        # since `before` is written again.
        latest, tag = read_marker_with_tag(root)
        if latest is None or _made_by(latest) != _made_by(publication):
            request_full_publish(root)


def _since(before: Publication | None, policy: Policy) -> int | None:
    """Return the version whose files can stay, or None where all are to be written."""
    if before is None or not before.key_fingerprint:
        # Files that do not say which key they were made with may be of two.
        return None
    is_same = (before.policy_digest, before.format) == (policy.digest, schema.FORMAT_VERSION)
    # Of one policy, two releases may publish other columns.
    is_same = is_same and before.columns == policy.tables
    is_same = is_same and not any(map(_YEAR_ALONE.search, before.files))
    return before.image_sets_version if is_same else None


def _made_by(publication: Publication) -> tuple[str, int, str]:
    return publication.policy_digest, publication.format, publication.key_fingerprint


def _publish_since(
    root: Root,
    policy: Policy,
    key: bytes,
    before: dict[str, PublishedFile],
    since: int | None,
    version: int,
    again: frozenset[str],
) -> Publication:
    """Write what changed in the memory from one version to another; all where `since` is None.

    Args:
        root: The lake.
        policy: The privacy policy.
        key: The key of the hashes.
        before: The files that were published.
        since: The version of the memory that they show.
        version: The version to show.
        again: Periods to write again, changed or not.
    """
    writer = Writer(root, policy, before)
    with engine.connection() as con:
        create_macros(con, key)
        prepare(con, policy)
        image_sets.register(con, root, version)
        is_whole = not image_sets.register_appended(con, root, since, version)
        periods = Periods.of(con, policy)
        again = frozenset[str]() if is_whole else again
        what = plan.find(con, periods, is_whole=is_whole, again=again)
        people = _people(con, plan.people(what.read, is_whole=is_whole)).to_arrow_table()
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
        fingerprint(key),
    )


def _remove(root: Root, paths: Iterable[str]) -> None:
    """Delete files of earlier publications that this one does not name."""
    latest = read_marker(root)
    # On S3 another run may have published meanwhile, and have written one of them again.
    for path in paths:
        if latest is None or path not in latest.files:
            root.delete(path)


def request_full_publish(root: Root) -> bytes:
    """Have the next publication write every file, and delete all others.

    Returns:
        What tells this request from others.
    """
    request = uuid.uuid4().hex.encode()
    root.write(_ANEW_PATH, request)
    return request


def _full_request(root: Root) -> bytes | None:
    """Return the request of `request_full_publish` that waits, or None."""
    if not root.exists(_ANEW_PATH):
        return None
    return root.read(_ANEW_PATH) or b"of an older release"


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
        plan.load_batch(con, periods.months(batch))
        con.register("people", _people(con, "batch").to_arrow_table())
        con.register("orders", _orders(con, "batch").to_arrow_table())
        con.register("sexes", derived_values.sexes(con, "batch"))
        con.register("modalities", derived_values.modalities(con, "batch"))
        con.register("body_parts", derived_values.body_parts(con, "batch"))
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
        FROM (SELECT DISTINCT datastore_id, PatientID FROM {source} WHERE PatientID IS NOT NULL)
    """)


def _orders(con: duckdb.DuckDBPyConnection, source: str) -> duckdb.DuckDBPyRelation:
    """Return the accession numbers of a relation, with the key of each."""
    return con.sql(f"""
        SELECT *, keyed_hash('AccessionNumber', datastore_id, AccessionNumber) AS accession_key
        FROM (
            SELECT DISTINCT datastore_id, AccessionNumber FROM {source}
            WHERE AccessionNumber IS NOT NULL
        )
    """)
