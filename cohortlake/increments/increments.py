"""Increments: what one search found, one immutable Parquet file per window and run.

A file's footer is its record: window, run, counts and hash. So the files alone tell what
was searched, and everything else in the lake can be rebuilt from them. A file has its
name only when its search reached the last token; a search that failed leaves nothing. Only
an erasure writes one anew, without the rows of a patient, and a release that has other columns.
Applying them is `history.image_sets`'.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.flatten import invalid_values, read_again
from cohortlake.storage import damage
from cohortlake.storage.location import Draft
from cohortlake.storage.root import Root

FOUND = schema.arrow_schema(schema.FOUND)
NOTHING = FOUND.empty_table()
ABSENT = schema.arrow_schema(schema.ABSENCE)
GONE = schema.arrow_schema(schema.ABSENCE[:-2])
"""What a search gives of it; the run's two columns are added by `with_run`."""
UNREAD = schema.arrow_schema(schema.UNREAD)

ABSENCE_AXIS, UNREAD_AXIS, VERSIONS_AXIS = "absence", "unread", "versions"
STATELESS_AXES = (ABSENCE_AXIS, UNREAD_AXIS)
"""Their increments name image sets, and hold no states."""

_WHOSE = ("datastore_id", "image_set_id", "PatientID", "PatientID_raw")
"""The columns that tell whose a row is."""

_ROW_GROUP_ROWS = 25_000  # of a range with no others beside it; see lake.extract for many
_FOOTER_KEY = "cohortlake"
DAMAGED = ".damaged"
"""What the name of a damaged increment ends with once it was set aside."""
_HASHES = 2**63
# Ids, instants and hashes hardly repeat; a dictionary of them costs more than it saves.
_DICTIONARY = [
    column.name
    for column in schema.FOUND
    if column.type != schema.INSTANT
    and column.vr not in ("UI", "PN")
    and column.name not in ("image_set_id", "state_key", "PatientID", "AccessionNumber")
]


Theirs = Callable[[pa.Table], pa.Array]
"""Which of some rows, of findings or of absences, are somebody's."""


@dataclass(frozen=True)
class Record:
    """What an increment says of itself; the columns of `schema.COVERAGE`."""

    datastore_id: str
    axis: str
    partition: str
    start: datetime
    end: datetime
    searched_at: datetime
    run_id: str
    duration_seconds: float = 0.0
    complete: bool = True
    pages: int = 0
    rows: int = 0
    kept_rows: int = 0
    requests: int = 0
    throttles: int = 0
    content_hash: int = 0
    missing: int | None = None
    invalid_values: dict[str, int] = field(default_factory=dict)
    erased_rows: int = 0
    counted: bool = True

    @property
    def path(self) -> str:
        """Where the increment lies below the root."""
        # A run may search a day in several parts, which differ in where they start.
        name = f"{self.run_id}-{self.start:%Y%m%dT%H%M%S%f}.parquet"
        return "/".join(("increments", self.datastore_id, self.axis, self.partition, name))

    def to_footer(self) -> bytes:
        """Return the record as the footer's JSON."""
        items = {"format": schema.FORMAT_VERSION} | asdict(self)
        return json.dumps(items, default=datetime.isoformat).encode()

    @classmethod
    def from_footer(cls, text: bytes) -> Record:
        """Read a record back."""
        items = json.loads(text)
        del items["format"]
        for name in ("start", "end", "searched_at"):
            items[name] = datetime.fromisoformat(items[name])
        return cls(**items)


class Increment:
    """An increment being written, in bounded memory: row groups as pages arrive.

    `close` it in the end; without `keep` nothing remains.

    Attributes:
        buffered_bytes: How much of it is in memory.

    Args:
        root: The lake.
        record: Whom, what and when; the counts are filled in here.
    """

    def __init__(self, root: Root, record: Record) -> None:
        self._root = root
        self._record = record
        self._open: tuple[Draft, pq.ParquetWriter] | None = None  # once there is a row group
        self._buffer: list[pa.Table] = [NOTHING]
        self._buffered_rows = 0
        self.buffered_bytes = 0
        self._rows = self._content_hash = 0
        self._invalid: dict[str, int] = {}

    def add(self, states: pa.Table) -> None:
        """Add rows of `schema.STATE` with the column `page`."""
        for name, count in invalid_values(states).items():
            self._invalid[name] = self._invalid.get(name, 0) + count
        self._rows += len(states)
        hashed = content_hash(states["state_key"].to_numpy())
        self._content_hash = (self._content_hash + hashed) % _HASHES
        self._buffer.append(with_run(states, self._record))
        self._buffered_rows += len(states)
        self.buffered_bytes += states.nbytes
        if self._buffered_rows >= _ROW_GROUP_ROWS:
            self.flush()

    def summary(
        self, *, end: datetime, pages: int, requests: int, throttles: int, seconds: float
    ) -> Record:
        """Return its record, as one that holds no rows.

        Args:
            end: First instant after what was searched.
            pages: Pages read.
            requests: Requests sent, retries included.
            throttles: Requests the service threw back.
            seconds: How long it took.
        """
        return replace(
            self._record,
            end=end,
            rows=self._rows,
            content_hash=self._content_hash,
            invalid_values=self._invalid,
            pages=pages,
            requests=requests,
            throttles=throttles,
            duration_seconds=round(seconds, 3),
        )

    def keep(self, summary: Record) -> Record:
        """Name the file, with all its rows, and return its record."""
        record = replace(summary, kept_rows=summary.rows)
        if self._open is None:
            write_table(self._root, record, pa.concat_tables(self._buffer))
            return record
        if self._buffered_rows:
            self.flush()
        draft, writer = self._open
        with self._root.explained():
            writer.add_key_value_metadata({_FOOTER_KEY: record.to_footer()})
            writer.close()
            draft.keep()
        return record

    def close(self) -> None:
        """Let go of it; what was not finished leaves nothing behind."""
        if self._open is not None:
            draft, writer = self._open
            with contextlib.suppress(OSError):  # on a full disk nothing can be written at all
                writer.close()
            draft.discard()

    def flush(self) -> None:
        """Write what is in memory as a row group."""
        with self._root.explained():
            if self._open is None:
                draft = self._root.draft(self._record.path)
                self._open = draft, _writer(draft.stream, FOUND)
            self._open[1].write_table(pa.concat_tables(self._buffer).combine_chunks())
        self._buffer, self._buffered_rows, self.buffered_bytes = [NOTHING], 0, 0


def write_empty(root: Root, record: Record) -> None:
    """Write an increment without rows: what it found was known, or there was nothing."""
    write_table(root, record, NOTHING)


def write_table(root: Root, record: Record, rows: pa.Table) -> None:
    """Write a small increment in one go."""
    with root.writing(record.path) as stream, _writer(stream, rows.schema) as writer:
        if len(rows):
            writer.write_table(rows)
        writer.add_key_value_metadata({_FOOTER_KEY: record.to_footer()})


def count(root: Root, path: str, is_theirs: Theirs) -> int:
    """Return how many rows of an increment are somebody's."""
    pieces = _pieces(root, path, _WHOSE)
    return sum(pc.sum(is_theirs(rows)).as_py() or 0 for rows in pieces)


def ids(root: Root, path: str, is_theirs: Theirs) -> set[str]:
    """Return the image sets of an increment's rows that are somebody's."""
    pieces = _pieces(root, path, _WHOSE)
    return {i for rows in pieces for i in rows["image_set_id"].filter(is_theirs(rows)).to_pylist()}


def remove(root: Root, path: str, is_theirs: Theirs) -> None:
    """Write an increment anew without somebody's rows, and with a record of what is left."""
    record = read_record(root, path)
    if record.axis in STATELESS_AXES:
        left = pa.concat_tables(list(_others(root, path, is_theirs)))
        write_table(root, replace(record, rows=len(left), kept_rows=len(left)), left)
        return
    _write_anew(root, record, _others(root, path, is_theirs))


def bring_over(root: Root, paths: Iterable[str]) -> None:
    """Write increments of an older format anew, with the columns of this one.

    No row is lost, and what was sent can still be had back from each.
    """
    for path in paths:
        if axis_of(path) in STATELESS_AXES:
            continue
        footer = _footer(root, path)
        if json.loads(footer)["format"] == schema.FORMAT_VERSION:
            continue
        record = Record.from_footer(footer)
        if record.kept_rows:
            pieces = (read_again(rows) for rows in _pieces(root, path) if len(rows))
            _write_anew(root, record, pieces)
        else:
            write_empty(root, record)


def _write_anew(root: Root, record: Record, pieces: Iterable[pa.Table]) -> None:
    """Write an increment anew with other rows; those that are gone count as erased."""
    anew = Increment(root, record)
    with contextlib.closing(anew):
        for rows in pieces:
            anew.add(rows.drop_columns(["observed_at", "run_id"]))
        summary = anew.summary(
            end=record.end,
            pages=record.pages,
            requests=record.requests,
            throttles=record.throttles,
            seconds=record.duration_seconds,
        )
        erased = record.erased_rows + record.rows - summary.rows
        anew.keep(replace(summary, erased_rows=erased))


def forget_counts(root: Root, path: str) -> None:
    """Write an increment without rows anew, without what it says of the rows it found."""
    found = read_record(root, path)
    write_empty(root, replace(found, rows=0, content_hash=0, invalid_values={}, counted=False))


def _others(root: Root, path: str, is_theirs: Theirs) -> Iterator[pa.Table]:
    for rows in _pieces(root, path):
        yield rows.filter(pc.invert(is_theirs(rows)))


def _pieces(root: Root, path: str, only: Collection[str] = ()) -> Iterator[pa.Table]:
    """Yield an increment's rows; the first piece has none."""
    with root.open(path) as file, _explained(root, path), pq.ParquetFile(file) as increment:
        columns = increment.schema_arrow
        names = [name for name in columns.names if not only or name in only]
        yield columns.empty_table().select(names)
        for batch in increment.iter_batches(_ROW_GROUP_ROWS, columns=names):
            yield pa.Table.from_batches([batch])


def _explained(root: Root, path: str) -> AbstractContextManager[None]:
    return damage.explained(lambda: [(root, [path])])


def with_run(rows: pa.Table, record: Record) -> pa.Table:
    """Add the columns that every row of an increment shares."""
    observed = pa.repeat(pa.scalar(record.searched_at, schema.INSTANT), len(rows))
    run = pa.repeat(pa.scalar(record.run_id), len(rows))
    return rows.append_column("observed_at", observed).append_column("run_id", run)


def read_record(root: Root, path: str) -> Record:
    """Read the record in an increment's footer."""
    with damage.parsed(path):
        return Record.from_footer(_footer(root, path))


def _footer(root: Root, path: str) -> bytes:
    with root.open(path) as file, _explained(root, path), damage.parsed(path):
        return bytes((pq.read_metadata(file).metadata or {})[_FOOTER_KEY.encode()])


def is_damaged(root: Root, path: str) -> bool:
    """Return whether an increment or its record cannot be read."""
    if damage.first_damaged(root, [path]):
        return True
    try:
        read_record(root, path)
    except DamagedFile:
        return True
    return False


def set_aside(root: Root, path: str) -> None:
    """Give a damaged increment a name by which it is no increment."""
    root.move(path, f"{path}{DAMAGED}")


def those_set_aside(root: Root, datastore_id: str) -> list[str]:
    """Return what was set aside of a data store. Nobody can tell which patients are in it."""
    return root.files(f"increments/{datastore_id}", DAMAGED)


def paths(root: Root) -> list[str]:
    """Return the paths of all increments, sorted."""
    return root.files("increments", ".parquet")


def axis_of(path: str) -> str:
    """Return the axis of the increment at a path."""
    return path.split("/")[2]


def content_hash(state_keys: Iterable[int] | np.ndarray) -> int:
    """Return an order-independent hash of a set of rows: the sum modulo 2^63."""
    total = np.asarray(state_keys, np.int64).astype(np.uint64).sum(dtype=np.uint64)
    return int(total) % _HASHES


def _writer(stream: pa.NativeFile, columns: pa.Schema) -> pq.ParquetWriter:
    dictionary = [name for name in columns.names if name in _DICTIONARY]
    return pq.ParquetWriter(
        stream,
        columns,
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary,
        # Increments are only ever read whole; a writer would keep those of all row groups.
        write_statistics=False,
    )
