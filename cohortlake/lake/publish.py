"""Publishing: plain Parquet that any reader lists and reads, each row once.

Writes only what changed since the last time. The privacy policy is applied here and nowhere
earlier. How far a change reaches is `lake.touched`'s, what a table holds `lake.marts`', where it
lies `lake.writer`'s, and what tells other tools of it `lake.catalogue`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from cohortlake import schema
from cohortlake.lake import (
    catalogue,
    engine,
    image_sets,
    marts,
    normalised,
    patients,
    snapshots,
    touched,
)
from cohortlake.lake.keys import IN_LAKE, patient_key
from cohortlake.lake.periods import Periods
from cohortlake.lake.root import Root
from cohortlake.lake.snapshots import Snapshot
from cohortlake.lake.touched import Touched
from cohortlake.lake.writer import Writer
from cohortlake.privacy import Policy
from cohortlake.privacy.keys import create_macros
from cohortlake.privacy.treat import prepare, rows_sql
from cohortlake.schema import Column

MARKER_PATH = "published/_published.json"
_ANEW_PATH = "published/_anew"


@dataclass(frozen=True)
class Publication:
    """What stands in `published/`.

    Attributes:
        image_sets_version: Version of the memory that it shows.
        policy: The name of the privacy policy that was applied.
        policy_digest: A number for all that this policy does.
        widened: What it shows more of than the built-in one that it extends.
        columns: Table -> the columns that it shows.
        format: Layout of the files.
        published_at: When, on this machine's clock, UTC.
        files: Path below the root -> rows.
        observed_since: When the first search began of which it knows, on the service's clock; None
            where nothing was ever found.
        observed_until: When the last one did that taught it something.
        written: Paths this run wrote.
        removed: Paths this run deleted.
    """

    image_sets_version: int
    policy: str
    policy_digest: str
    widened: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    format: int
    published_at: str
    files: dict[str, int]
    observed_since: str | None = None
    observed_until: str | None = None
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return sum(self.files[path] for path in self.paths(table))

    def paths(self, table: str) -> list[str]:
        """Return the paths of a table's files."""
        return [path for path in self.files if path.startswith(f"published/{table}/")]

    def shown(self, table: str) -> tuple[Column, ...]:
        """Return the columns of a table that the policy shows.

        Raises:
            UnknownTable: There is no such table.
        """
        by_name = {form.name: form for c in schema.published(table) for form in schema.forms(c)}
        return tuple(by_name[name] for name in self.columns[table])

    def snapshot(self) -> Snapshot:
        """Return what the record keeps of it."""
        rows = {table: self.rows(table) for table in schema.PUBLISHED}
        return Snapshot(
            self.published_at, self.image_sets_version, self.policy, self.observed_until, rows
        )

    def to_marker(self) -> bytes:
        """Return what the marker file says: all but what this run did."""
        done = ("written", "removed")
        items = {name: value for name, value in vars(self).items() if name not in done}
        return json.dumps(items, indent=1).encode()


def publish(root: Root, policy: Policy, key_source: str = IN_LAKE) -> Publication | None:
    """Bring `published/` up to date.

    Args:
        root: The lake.
        policy: The privacy policy. Another than before publishes all anew.
        key_source: Where the key of the hashes is, see `lake.keys`.

    Returns:
        What stands there now, or None where nothing was ever applied.

    Raises:
        MissingKey: The lake was published before, and its key is gone.
        WrongKey: It was published with another one.
    """
    before = seen = read_marker(root)
    while True:
        publication = _publish_since(root, policy, key_source, before)
        if publication is None:
            if before:
                catalogue.bring_up_to_date(root, before, policy)  # the folder may have been moved
            return before
        latest = read_marker(root)
        if latest == seen:
            catalogue.bring_up_to_date(root, publication, policy)
            snapshots.record(root, publication.snapshot())
            # Last of all: a run that dies before it leaves its months due.
            root.write(MARKER_PATH, publication.to_marker())
            root.delete(_ANEW_PATH)
            return publication
        # Another run published meanwhile, and may have put its older files over ours.
        seen = latest


def _publish_since(
    root: Root, policy: Policy, key_source: str, before: Publication | None
) -> Publication | None:
    """Write what changed since a publication; return None where nothing did."""
    version = image_sets.version(root)
    since = None
    if before and (before.policy_digest, before.format) == (policy.digest, schema.FORMAT_VERSION):
        since = None if root.exists(_ANEW_PATH) else before.image_sets_version
    if version is None or (since == version and before and before.policy == policy.name):
        return None
    if before and since is None:
        # A run that dies midway leaves files of this policy, and the marker of another.
        have_all_published_anew(root)
    key = patient_key(root, key_source, may_create=before is None)
    writer = Writer(root, policy, before.files if before else {})
    with engine.connection() as con:
        create_macros(con, key)
        prepare(con, policy)
        image_sets.register(con, root, version)
        is_whole = not image_sets.register_appended(con, root, since, version)
        periods = Periods.of(con, policy)
        what = touched.find(con, periods, is_whole=is_whole)
        people = _people(con, touched.people(what.read, is_whole=is_whole)).to_arrow_table()
        patients.write(con, writer, policy, people, is_whole=is_whole)
        _write_periods(con, writer, policy, periods, what)
        observed_since, observed_until = image_sets.observed(con)
    if is_whole:
        writer.remove_unwritten()
    return Publication(
        version,
        policy.name,
        policy.digest,
        policy.widened,
        policy.tables,
        schema.FORMAT_VERSION,
        datetime.now(UTC).isoformat(timespec="seconds"),
        dict(sorted(writer.files.items())),
        observed_since,
        observed_until,
        tuple(writer.written),
        tuple(writer.removed),
    )


def have_all_published_anew(root: Root) -> None:
    """Have the next publication write every file, and delete all others."""
    root.write(_ANEW_PATH, b"")


def read_marker(root: Root) -> Publication | None:
    """Return what stands in `published/`, or None where nothing was published."""
    return _from_json(root.read(MARKER_PATH)) if root.exists(MARKER_PATH) else None


def _from_json(content: bytes) -> Publication:
    said = json.loads(content)
    # Of an older format: it is published anew before anybody reads it.
    said = {"policy_digest": "", "widened": (), "columns": {}} | said
    columns = {table: tuple(names) for table, names in said["columns"].items()}
    return Publication(**said | {"widened": tuple(said["widened"]), "columns": columns})


def _write_periods(
    con: duckdb.DuckDBPyConnection, writer: Writer, policy: Policy, periods: Periods, what: Touched
) -> None:
    changed, affected = periods.of_months(what.changed), periods.of_months(what.affected)
    for batch in periods.batches(what.months):
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
