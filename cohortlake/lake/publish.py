"""Publishing: plain Parquet that any reader lists and reads, each row once.

Writes only the partitions that changed since the last time: one file per study month
under a constant name, replaced whole. The privacy policy is applied here and nowhere
earlier. What a table holds is `lake.marts`'.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.errors import MissingKey
from cohortlake.lake import engine, image_sets, marts
from cohortlake.lake.root import Root
from cohortlake.privacy import keyed_hashes, new_key, visible

KEY_PATH = "keys/patient-key"
MARKER_PATH = "published/_published.json"
_WHOLE = ""


@dataclass(frozen=True)
class Publication:
    """What stands in `published/`.

    Attributes:
        image_sets_version: Version of the memory that it shows.
        policy: The privacy policy that was applied.
        format: Layout of the files.
        published_at: When, on this machine's clock, UTC.
        files: Path below the root -> rows.
        written: Paths this run wrote.
        removed: Paths this run deleted.
    """

    image_sets_version: int
    policy: str
    format: int
    published_at: str
    files: dict[str, int]
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return sum(self.files[path] for path in self.paths(table))

    def paths(self, table: str) -> list[str]:
        """Return the paths of a table's files."""
        return [path for path in self.files if path.startswith(f"published/{table}/")]

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
            # Last of all: a run that dies before it leaves its months due.
            root.write(MARKER_PATH, publication.to_marker())
            return publication
        # Another run published meanwhile, and may have put its older files over ours.
        seen = latest


def _publish_since(root: Root, policy: str, before: Publication | None) -> Publication | None:
    """Write what changed since a publication; return None where nothing did."""
    version = image_sets.version(root)
    since = None
    if before and (before.policy, before.format) == (policy, schema.FORMAT_VERSION):
        since = before.image_sets_version
    if version is None or since == version:
        return None
    key = lake_key(root, may_create=before is None)
    with engine.connection() as con:
        image_sets.register(con, root, version)
        months = image_sets.changed_months(con, root, since, version)
        writer = _Writer(root, policy, before.files if before else {})
        _write_tables(con, writer, key, months)
    if since is None:
        writer.remove_unwritten()
    return writer.publication(version)


def read_marker(root: Root) -> Publication | None:
    """Return what stands in `published/`, or None where nothing was published."""
    return Publication(**json.loads(root.read(MARKER_PATH))) if root.exists(MARKER_PATH) else None


def _write_tables(
    con: duckdb.DuckDBPyConnection, writer: _Writer, key: bytes, months: set[str]
) -> None:
    con.register("changed", pa.table({"study_month": pa.array(sorted(months), pa.string())}))
    for relation in ("current", "history"):
        touched = f"SELECT * FROM {relation} SEMI JOIN changed USING (study_month)"
        _keyed_rows(con, key, touched)
        table = "image_sets" if relation == "current" else relation
        writer.write_months(con, table, "FROM rows", months)
    affected = _affected_months(con)
    _keyed_rows(con, key, _STUDIES_OF_AFFECTED_MONTHS)
    for table, query in (("series", marts.SERIES), ("studies", marts.STUDIES)):
        in_them = f"FROM ({query}) SEMI JOIN affected USING (study_month)"
        writer.write_months(con, table, in_them, affected)
    _keyed_rows(con, key, "SELECT * FROM current")
    writer.write_whole(con, "patients", marts.PATIENTS)


def _keyed_rows(con: duckdb.DuckDBPyConnection, key: bytes, query: str) -> None:
    """Make the table `rows`: the query's, with keys and age."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE unkeyed AS {query}")
    for relation, column, hashed in (
        ("people", "PatientID", "patient_key"),
        ("orders", "AccessionNumber", "accession_key"),
    ):
        distinct = con.sql(
            f"SELECT DISTINCT datastore_id, {column} FROM unkeyed WHERE trim({column}) <> ''"
        ).to_arrow_table()
        ids = zip(*(distinct[name].to_pylist() for name in distinct.column_names), strict=True)
        hashes = pa.array(keyed_hashes(key, column, ids), pa.string())
        con.register(relation, distinct.append_column(hashed, hashes))
    con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS {marts.keyed('unkeyed')}")
    con.execute("DROP TABLE unkeyed")


# A study whose image sets disagree on its date has one month, and may have had another.
_AFFECTED = """
CREATE OR REPLACE TEMP TABLE affected AS
SELECT DISTINCT study_month FROM versions SEMI JOIN (
    SELECT DISTINCT datastore_id, StudyInstanceUID FROM versions
    SEMI JOIN changed USING (study_month) WHERE StudyInstanceUID IS NOT NULL
) USING (datastore_id, StudyInstanceUID)
UNION SELECT study_month FROM changed
"""

_STUDIES_OF_AFFECTED_MONTHS = """
SELECT * FROM current WHERE study_month IN (FROM affected) OR (
    datastore_id, StudyInstanceUID) IN (
        SELECT (datastore_id, StudyInstanceUID) FROM current SEMI JOIN affected USING (study_month)
    )
"""


def _affected_months(con: duckdb.DuckDBPyConnection) -> set[str]:
    con.execute(_AFFECTED)
    return {str(month) for (month,) in con.sql("FROM affected").fetchall()}


class _Writer:
    """Writes tables under a policy, and keeps account of the files."""

    def __init__(self, root: Root, policy: str, files: dict[str, int]) -> None:
        self._root, self._policy = root, policy
        self._files = dict(files)
        self._written: list[str] = []
        self._removed: list[str] = []

    def write_months(
        self, con: duckdb.DuckDBPyConnection, table: str, source: str, months: set[str]
    ) -> None:
        """Write one file per month, and delete those of months that hold nothing now."""
        columns = self._columns(table)
        with_month = columns.append(pa.field("study_month", pa.string()))
        query = f"SELECT {', '.join(with_month.names)} {source} ORDER BY {_order(table)}"
        filled = set()
        for month, batches in _by_month(engine.batches(con, query, with_month)):
            self._write(_path(table, month), columns, batches)
            filled.add(month)
        for month in sorted(months - filled):
            self._remove(_path(table, month))

    def write_whole(self, con: duckdb.DuckDBPyConnection, table: str, query: str) -> None:
        """Write a table that has no partitions."""
        columns = self._columns(table)
        ordered = f"SELECT {', '.join(columns.names)} FROM ({query}) ORDER BY patient_key"
        self._write(_path(table, _WHOLE), columns, engine.batches(con, ordered, columns))

    def remove_unwritten(self) -> None:
        """Delete what an earlier publication left and this whole one did not write."""
        for path in self._root.files("published", ".parquet"):
            if path not in self._written:
                self._remove(path)

    def publication(self, version: int) -> Publication:
        """Return the account."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        files = dict(sorted(self._files.items()))
        written, removed = tuple(self._written), tuple(self._removed)
        return Publication(
            version, self._policy, schema.FORMAT_VERSION, now, files, written, removed
        )

    def _columns(self, table: str) -> pa.Schema:
        shown = visible(schema.published(table), self._policy)
        return schema.arrow_schema(column for column in shown if column != schema.STUDY_MONTH)

    def _write(self, path: str, columns: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        rows = 0
        with (
            self._root.writing(path) as stream,
            pq.ParquetWriter(stream, columns, compression="zstd", compression_level=3) as file,
        ):
            for batch in batches:
                file.write_batch(batch.select(columns.names))
                rows += len(batch)
        self._files[path] = rows
        self._written.append(path)

    def _remove(self, path: str) -> None:
        self._files.pop(path, None)
        if self._root.exists(path):
            self._root.delete(path)
            self._removed.append(path)


def _by_month(
    batches: Iterable[pa.RecordBatch],
) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
    """Cut a result that is ordered by study_month into its months, without holding it."""
    for month, group in itertools.groupby(_month_pieces(batches), key=lambda piece: piece[0]):
        yield month, (batch for _, batch in group)


def _month_pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for batch in batches:
        runs = pc.run_end_encode(batch["study_month"])
        start = 0
        for month, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield str(month), batch.slice(start, end - start)
            start = end


def _order(table: str) -> str:
    by = {"studies": "StudyDate, StudyInstanceUID"}
    return "study_month, " + by.get(table, "Modality, StudyDate, image_set_id")


def _path(table: str, month: str) -> str:
    folder = f"published/{table}" + (f"/study_month={month}" if month else "")
    return f"{folder}/{table}.parquet"


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
