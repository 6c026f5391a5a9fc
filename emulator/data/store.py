"""The state: every version of every image set, in SQLite, in memory or in a file.

It holds the tables and their indexes, and adds versions, makes them searchable and deletes them.
See `service.search` for the SQL of a search, and `records` for a record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from emulator.data.frames import Frame
from emulator.data.records import Record
from emulator.datetimes import UNSORTABLE
from emulator.wire import not_found

_TABLES = """
CREATE TABLE IF NOT EXISTS datastores (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT, created_ms INTEGER
);
CREATE TABLE IF NOT EXISTS image_sets (
    datastore INTEGER NOT NULL, image_set_id TEXT NOT NULL, version INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, study_key INTEGER NOT NULL,
    patient_id TEXT, accession_number TEXT, study_id TEXT, study_uid TEXT, series_uid TEXT,
    is_primary INTEGER, instances INTEGER NOT NULL, summary BLOB NOT NULL,
    current INTEGER NOT NULL, searchable INTEGER NOT NULL, deleted_ms INTEGER, due_ms INTEGER
);
CREATE TABLE IF NOT EXISTS documents (
    datastore INTEGER, image_set_id TEXT, version INTEGER, document BLOB,
    PRIMARY KEY (datastore, image_set_id, version)
);
CREATE TABLE IF NOT EXISTS frames (
    datastore INTEGER, image_set_id TEXT, id TEXT, size INTEGER, path TEXT, number INTEGER,
    PRIMARY KEY (datastore, image_set_id, id)
) WITHOUT ROWID;
"""
# The sort indexes contain only searchable rows, so that keyset paging never reads any other row.
_INDEXES = {
    "by_version": "UNIQUE INDEX {} (datastore, image_set_id, version)",
    "by_updated": "INDEX {} (datastore, updated_ms, image_set_id) WHERE searchable = 1",
    "by_created": "INDEX {} (datastore, created_ms, image_set_id) WHERE searchable = 1",
    "by_study_key": "INDEX {} (datastore, study_key, image_set_id) WHERE searchable = 1",
    "by_patient": "INDEX {} (datastore, patient_id)",
    "by_accession": "INDEX {} (datastore, accession_number)",
    "by_study_id": "INDEX {} (datastore, study_id)",
    "by_study": "INDEX {} (datastore, study_uid)",
    "by_series": "INDEX {} (datastore, series_uid)",
    "by_due": "INDEX {} (due_ms) WHERE due_ms IS NOT NULL",
}
# Files of earlier releases have one document for each image set, from its first version.
_OLDER_DOCUMENTS = """
ALTER TABLE documents RENAME TO older_documents;
{tables}
INSERT INTO documents SELECT datastore, image_set_id, 1, document FROM older_documents;
DROP TABLE older_documents;
"""
_COLUMNS = ", ".join(Record._fields)
_INSERT = f"INSERT INTO image_sets VALUES ({', '.join('?' * len(Record._fields))})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM image_sets "  # noqa: S608 - the columns of Record
# Every statement names its index. Otherwise SQLite may use an index only for the data store.
_BY_VERSION = "INDEXED BY by_version WHERE datastore = ? AND "
_BY_STUDY = "INDEXED BY by_study WHERE datastore = ? AND "
_BY_ROWID = "NOT INDEXED WHERE datastore = ? AND "


Document = tuple[int, str, int, bytes]
"""A metadata document: data store number, image set, first version that has it, gzip JSON."""


class Datastore(NamedTuple):
    """One data store: its number in the tables, and its properties for GetDatastore."""

    number: int
    id: str
    name: str
    created_ms: int


class Store:
    """All image sets of all data stores.

    Args:
        path: The file for the state; `None` keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        # One thread opens and fills the connection, and the server's thread uses it.
        self._db = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None, check_same_thread=False
        )
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(documents)")}
        older = columns and "version" not in columns
        self._db.executescript(_OLDER_DOCUMENTS.format(tables=_TABLES) if older else _TABLES)
        self._create_indexes()
        self._next_due = self._earliest_due()

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    def datastores(self) -> list[Datastore]:
        """Returns all data stores, in order of creation."""
        return [Datastore(*row) for row in self._db.execute("SELECT * FROM datastores")]

    def datastore(self, datastore_id: str) -> Datastore:
        """Returns the data store with an id.

        Raises:
            ServiceError: `ResourceNotFoundException` if there is none.
        """
        row = self._one("SELECT * FROM datastores WHERE id = ?", datastore_id)
        if row is None:
            raise not_found(f"Data store {datastore_id}")
        return Datastore(*row)

    def add_datastore(self, datastore_id: str, name: str, created_ms: int) -> Datastore:
        """Adds an empty data store."""
        values = (datastore_id, name, created_ms)
        insert = "INSERT INTO datastores (id, name, created_ms) VALUES (?, ?, ?)"
        return Datastore(self._db.execute(insert, values).lastrowid or 0, *values)

    def load(self, records: Iterable[Record]) -> int:
        """Adds many records at once and returns their number. Builds the indexes at the end.

        Raises:
            ValueError: If a version of an image set occurs twice. Then nothing is loaded.
        """
        with self.transaction():
            for name in _INDEXES:
                self._db.execute(f"DROP INDEX {name}")
            loaded = self._db.executemany(_INSERT, records).rowcount
            try:
                self._create_indexes()
            except sqlite3.IntegrityError:
                raise ValueError(
                    "an image set occurs twice in the files; remove one of the two"
                ) from None
        return loaded

    def put(self, records: Sequence[Record], now_ms: int, lag_ms: int) -> None:
        """Adds new versions or deletion marks in one transaction.

        Args:
            records: The new state of their image sets.
            now_ms: The simulated time.
            lag_ms: The time during which a search still finds the previous state.
        """
        due = now_ms + lag_ms
        with self.transaction():
            for record in records:
                key = (record.datastore, record.image_set_id)
                self._db.execute(
                    "UPDATE image_sets SET current = 0, due_ms = min(due_ms, ?)"
                    " WHERE datastore = ? AND image_set_id = ?",
                    (due, *key),
                )
                self._db.execute(_INSERT, record._replace(searchable=0, due_ms=due))
        self._next_due = due if self._next_due is None else min(due, self._next_due)
        self.settle(now_ms)

    def settle(self, now_ms: int) -> None:
        """Makes every change searchable whose index lag has passed."""
        if self._next_due is None or self._next_due > now_ms:
            return
        due = self._db.execute(
            "SELECT rowid, datastore, image_set_id, deleted_ms IS NULL FROM image_sets"
            " WHERE due_ms IS NOT NULL AND due_ms <= ? ORDER BY due_ms, rowid",
            (now_ms,),
        ).fetchall()
        with self.transaction():
            for rowid, datastore, image_set_id, searchable in due:
                self._db.execute(
                    "UPDATE image_sets SET searchable = 0 WHERE datastore = ? AND image_set_id = ?",
                    (datastore, image_set_id),
                )
                self._db.execute(
                    "UPDATE image_sets SET searchable = ?, due_ms = NULL WHERE rowid = ?",
                    (searchable, rowid),
                )
        self._next_due = self._earliest_due()

    def replace(self, record: Record) -> None:
        """Replaces the summary of an existing version."""
        self._db.execute(
            "UPDATE image_sets SET summary = ?"
            " WHERE datastore = ? AND image_set_id = ? AND version = ?",
            (record.summary, record.datastore, record.image_set_id, record.version),
        )

    def versions(
        self, datastore: Datastore, image_set_id: str, *, below: int | None = None, limit: int = -1
    ) -> list[Record]:
        """Returns the versions of an image set, newest first. A deletion mark is the newest."""
        before = 2**62 if below is None else below
        return self._records(
            _BY_VERSION + "image_set_id = ? AND version < ? ORDER BY version DESC LIMIT ?",
            datastore.number, image_set_id, before, limit,
        )  # fmt: skip

    def current(self, datastore: Datastore, image_set_id: str) -> Record:
        """Returns the newest version of an image set that is not deleted.

        Raises:
            ServiceError: `ResourceNotFoundException` if there is none.
        """
        newest = self.versions(datastore, image_set_id, limit=1)
        if not newest or newest[0].deleted_ms is not None:
            raise not_found(f"Image set {image_set_id}")
        return newest[0]

    def of_study(self, datastore: Datastore, study_uid: str | None) -> list[Record]:
        """Returns the current image sets of a study, ordered by id."""
        return self._records(
            _BY_STUDY + "study_uid = ? AND current = 1 ORDER BY image_set_id",
            datastore.number, study_uid,
        )  # fmt: skip

    def has_primary(self, datastore: Datastore, series_uid: str | None) -> bool:
        """Returns whether a series already has its primary image set."""
        return self._one(
            "SELECT 1 FROM image_sets INDEXED BY by_series"
            " WHERE datastore = ? AND series_uid = ? AND current = 1 AND is_primary = 1",
            datastore.number, series_uid,
        ) is not None  # fmt: skip

    def primary(self, datastore: Datastore, series_uid: str) -> Record | None:
        """Returns the primary image set of a series, if there is one."""
        found = self._records(
            "INDEXED BY by_series WHERE datastore = ? AND series_uid = ?"
            " AND current = 1 AND is_primary = 1 LIMIT 1",
            datastore.number, series_uid,
        )  # fmt: skip
        return found[0] if found else None

    def current_count(self, datastore: Datastore) -> int:
        """Returns the number of current image sets in a data store."""
        row = self._one(
            "SELECT count(*) FROM image_sets WHERE datastore = ? AND current = 1", datastore.number
        )
        return int(row[0]) if row else 0

    def row_count(self) -> int:
        """Returns the number of rows, versions and deletion marks together."""
        return int(self._one("SELECT ifnull(max(rowid), 0) FROM image_sets")[0])

    def pick(self, datastore: Datastore, fraction: float) -> Record | None:
        """Returns a current image set at about this fraction (0 to 1) of all rows, if any."""
        for lowest in (int(fraction * self.row_count()), 0):
            found = self._records(
                _BY_ROWID + "rowid >= ? AND current = 1 ORDER BY rowid LIMIT 1",
                datastore.number, lowest,
            )  # fmt: skip
            if found:
                return found[0]
        return None

    def truth(self, datastore: Datastore, after: str = "", limit: int = 1000) -> list[Record]:
        """Returns the current image sets in order of their ids, from the first after `after`."""
        return self._records(
            _BY_VERSION + "image_set_id > ? AND current = 1 ORDER BY image_set_id LIMIT ?",
            datastore.number, after, limit,
        )  # fmt: skip

    def newest_ms(self) -> int:
        """Returns the latest `updatedAt` of all image sets, or `UNSORTABLE` if there is none."""
        latest = "SELECT max(updated_ms) FROM image_sets WHERE datastore = ? AND searchable = 1"
        rows = [self._one(latest, datastore.number) for datastore in self.datastores()]
        return max((row[0] for row in rows if row and row[0] is not None), default=UNSORTABLE)

    def add_documents(self, documents: Iterable[Document]) -> None:
        """Stores metadata documents. A document holds until a later version has its own."""
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", documents)

    def document(self, record: Record) -> bytes | None:
        """Returns the stored metadata document of a version, if it has one."""
        row = self._one(
            "SELECT document FROM documents WHERE datastore = ? AND image_set_id = ?"
            " AND version <= ? ORDER BY version DESC LIMIT 1",
            record.datastore, record.image_set_id, record.version,
        )  # fmt: skip
        return row[0] if row else None

    def add_frames(self, frames: Iterable[tuple[int, str, Frame]]) -> None:
        """Stores image frames, each with its data store number and image set."""
        with self.transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (datastore, image_set_id, one.id, one.size, one.path, one.number)
                    for datastore, image_set_id, one in frames
                ),
            )

    def frame(self, record: Record, frame_id: str) -> Frame | None:
        """Returns a stored image frame of an image set, if there is one."""
        row = self._one(
            "SELECT id, size, path, number FROM frames"
            " WHERE datastore = ? AND image_set_id = ? AND id = ?",
            record.datastore, record.image_set_id, frame_id,
        )  # fmt: skip
        return Frame(*row) if row else None

    def frames(self, record: Record) -> list[Frame]:
        """Returns the stored image frames of an image set."""
        rows = self._db.execute(
            "SELECT id, size, path, number FROM frames WHERE datastore = ? AND image_set_id = ?",
            (record.datastore, record.image_set_id),
        )
        return [Frame(*row) for row in rows]

    def query(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """Runs one SQL statement and returns its rows."""
        return self._db.execute(sql, parameters).fetchall()

    def _records(self, where: str, *parameters: object) -> list[Record]:
        return [Record(*row) for row in self._db.execute(_SELECT + where, parameters)]

    def _one(self, sql: str, *parameters: object) -> Any:
        return self._db.execute(sql, parameters).fetchone()

    def _earliest_due(self) -> int | None:
        row = self._one("SELECT min(due_ms) FROM image_sets WHERE due_ms IS NOT NULL")
        return row[0] if row else None

    def _create_indexes(self) -> None:
        for name, index in _INDEXES.items():
            statement = index.format(f"IF NOT EXISTS {name} ON image_sets")
            self._db.execute(f"CREATE {statement}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Runs the block as one transaction. Blocks may be nested."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
