"""Publishing: plain Parquet that any reader lists and reads, each row once.

Writes only what changed since the last time. The privacy policy is applied here and nowhere
earlier. How far a change reaches is `lake.touched`'s, what a table holds `lake.marts`', and
where it lies `lake.writer`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import MissingKey
from cohortlake.lake import engine, image_sets, marts, normalised, patients, snapshots, touched
from cohortlake.lake.root import Root
from cohortlake.lake.snapshots import Snapshot
from cohortlake.lake.touched import Touched
from cohortlake.lake.writer import Writer
from cohortlake.privacy import keyed_hashes, new_key

KEY_PATH = "keys/patient-key"
MARKER_PATH = "published/_published.json"
_ANEW_PATH = "published/_anew"


@dataclass(frozen=True)
class Publication:
    """What stands in `published/`.

    Attributes:
        image_sets_version: Version of the memory that it shows.
        policy: The privacy policy that was applied.
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


def publish(root: Root, policy: str) -> Publication | None:
    """Bring `published/` up to date.

    Args:
        root: The lake.
        policy: `safe`, `limited` or `identified`. Another than before publishes all anew.

    Returns:
        What stands there now, or None where nothing was ever applied.

    Raises:
        MissingKey: The lake was published before, and its key is gone.
    """
    before = seen = read_marker(root)
    while True:
        publication = _publish_since(root, policy, before)
        if publication is None:
            return before
        latest = read_marker(root)
        if latest == seen:
            snapshots.record(root, publication.snapshot())
            # Last of all: a run that dies before it leaves its months due.
            root.write(MARKER_PATH, publication.to_marker())
            root.delete(_ANEW_PATH)
            return publication
        # Another run published meanwhile, and may have put its older files over ours.
        seen = latest


def _publish_since(root: Root, policy: str, before: Publication | None) -> Publication | None:
    """Write what changed since a publication; return None where nothing did."""
    version = image_sets.version(root)
    since = None
    if before and (before.policy, before.format) == (policy, schema.FORMAT_VERSION):
        since = None if root.exists(_ANEW_PATH) else before.image_sets_version
    if version is None or since == version:
        return None
    if before and since is None:
        # A run that dies midway leaves files of this policy, and the marker of another.
        have_all_published_anew(root)
    key = lake_key(root, may_create=before is None)
    writer = Writer(root, policy, before.files if before else {})
    with engine.connection() as con:
        image_sets.register(con, root, version)
        is_whole = not image_sets.register_appended(con, root, since, version)
        what = touched.find(con, is_whole=is_whole)
        people = touched.people(what.months, is_whole=is_whole)
        hashes = _hashes(con, key, "PatientID", people)
        patients.write(con, writer, hashes, is_whole=is_whole)
        _write_months(con, writer, key, what)
        observed_since, observed_until = image_sets.observed(con)
    if is_whole:
        writer.remove_unwritten()
    return Publication(
        version,
        policy,
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
    return Publication(**json.loads(root.read(MARKER_PATH))) if root.exists(MARKER_PATH) else None


def _write_months(
    con: duckdb.DuckDBPyConnection, writer: Writer, key: bytes, what: Touched
) -> None:
    for months in touched.batches(con, what.months):
        touched.load_batch(con, months)
        con.register("people", _hashes(con, key, "PatientID", "batch"))
        con.register("orders", _hashes(con, key, "AccessionNumber", "batch"))
        con.register("sexes", normalised.sexes(con, "batch"))
        con.register("body_parts", normalised.body_parts(con, "batch"))
        con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS {marts.keyed('batch')}")
        con.execute("CREATE OR REPLACE TEMP VIEW present AS FROM rows WHERE ended_by IS NULL")
        con.execute("DROP TABLE batch")
        writer.write_months(con, "image_sets", "present", months & what.changed)
        writer.write_months(con, "series", f"({marts.SERIES})", months & what.affected)
        writer.write_months(con, "studies", f"({marts.STUDIES})", months)
        writer.write_months(con, "history", "rows", months & what.affected)
    con.execute("DROP TABLE IF EXISTS rows")


_HASHED = {"PatientID": "patient_key", "AccessionNumber": "accession_key"}


def _hashes(con: duckdb.DuckDBPyConnection, key: bytes, column: str, source: str) -> pa.Table:
    """Return the ids in a column of a relation, with their keyed hashes."""
    distinct = con.sql(
        f"SELECT DISTINCT datastore_id, {column} FROM {source} WHERE trim({column}) <> ''"
    ).to_arrow_table()
    ids = zip(*(distinct[name].to_pylist() for name in distinct.column_names), strict=True)
    hashes = pa.array(keyed_hashes(key, column, ids), pa.string())
    return distinct.append_column(_HASHED[column], hashes)


def lake_key(root: Root, *, may_create: bool) -> bytes:
    """Return the key that the lake's hashes are made with.

    Raises:
        MissingKey: There is none, and none may be made.
    """
    if root.exists(KEY_PATH):
        return root.read(KEY_PATH)
    if not may_create:
        raise MissingKey(
            f"{root.uri_of(KEY_PATH)} is gone, and patient_key was made with it; restore it "
            "from a backup (a new key would give every patient another hash)"
        )
    root.create(KEY_PATH, new_key())
    return root.read(KEY_PATH)  # perhaps the one of a run that was faster
