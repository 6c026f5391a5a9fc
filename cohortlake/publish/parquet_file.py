"""One published Parquet file: how it is laid out, written and replaced row by row.

See `writer` for which files there are. A file and the new rows for it are in the same order. So new
rows go between the rows that stay, and Arrow copies these. For a small file a query of DuckDB takes
longer than reading and writing it.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.flatten import schema_with_pandas_dtypes
from cohortlake.publish.publication import intact
from cohortlake.publish.publication.marker import PublishedFile
from cohortlake.storage.root import Root

_BUFFER_BYTES = 1024 * 1024  # Arrow writes some bytes at a time, each with a call into Python
# A row group is written from memory, and each thread has one. A table may have 200 columns.
ROW_GROUP_ROWS, _ROW_GROUP_VALUES = 32_768, 5_000_000
_COMPARED_ROWS = 100_000
_FEW_ROWS = 2000
_ROWS_OF_A_SLICE = 400  # runs that are shorter on average are copied row by row


def write(
    root: Root, path: str, columns: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]
) -> PublishedFile:
    """Write a file.

    Args:
        root: The lake.
        path: The file, below the root.
        columns: Its columns.
        batches: Its rows, in order.
    """
    most = min(ROW_GROUP_ROWS, _ROW_GROUP_VALUES // len(columns))
    groups = _row_groups((batch.select(columns.names) for batch in batches), most)
    none = pa.Table.from_batches([], columns)
    group, rows = next(groups, none), 0
    with root.writing(path) as stream:
        hashed = _Hashed(stream)
        layout = _layout(columns, len(group))
        with (
            pa.BufferedOutputStream(pa.PythonFile(hashed, mode="w"), _BUFFER_BYTES) as buffered,
            pq.ParquetWriter(buffered, _in_file(columns), **layout) as file,
        ):
            while len(group):
                file.write_table(group, row_group_size=len(group))
                rows += len(group)
                del group  # it is not in memory while the next one is read
                group = next(groups, none)
    return PublishedFile(rows, hashed.size_bytes, hashed.sha256)


class Entities:
    """Some studies or patients of some data stores, as they are published.

    Args:
        rows: One row for each: datastore_id, and StudyInstanceUID or patient_key. It may be null.
    """

    def __init__(self, rows: pa.Table) -> None:
        _, self.id_column = rows.column_names
        self._ids = {
            store: rows.filter(pc.equal(rows["datastore_id"], store))[self.id_column]
            for store in pc.unique(rows["datastore_id"]).to_pylist()
        }

    def are_of(self, rows: pa.Table) -> np.ndarray:
        """Return for each row whether it belongs to one of them."""
        found = np.zeros(len(rows), np.bool_)
        for store, ids in self._ids.items():
            is_listed = pc.is_in(rows[self.id_column], value_set=ids)
            found |= pc.and_(is_listed, pc.equal(rows["datastore_id"], store)).to_numpy()
        return found


def replace_rows(
    root: Root,
    path: str,
    written: PublishedFile,
    columns: pa.Schema,
    order: Sequence[str],
    entities: Entities,
    new_rows: Iterable[pa.Table],
    reader: pafs.FileSystem | None = None,
) -> PublishedFile | None:
    """Write a file again, in which the rows of some studies or patients are replaced.

    One row group is in memory at a time.

    Args:
        root: The lake.
        path: The file, below the root.
        written: What was written there.
        columns: Its columns.
        order: The columns that its rows are sorted by.
        entities: Whose rows are replaced.
        new_rows: Their new rows, in order.
        reader: What reads the file on S3. See `Files.reader`.

    Returns:
        What is there now; None if the new rows are the former ones, and the file was left as it is.

    Raises:
        DamagedFile: The file does not hold what was written, so its rows cannot be kept.
    """
    with _checked(root, path, written, reader) as file:
        compared = _Compared()
        rows = _replaced(file, columns, order, entities, new_rows, compared)
        try:
            return write(root, path, columns, rows)
        except _NothingReplaced:
            return None


class _NothingReplaced(Exception):
    """The new rows are the former ones."""


class _Compared:
    """Compares the former rows of a file with the new ones, if they are not many."""

    def __init__(self) -> None:
        self._former, self._new = list[pa.Table](), list[pa.Table]()
        self._are_few = True

    def add(self, *, former: pa.Table | None = None, new: pa.Table | None = None) -> None:
        """Add rows, in order."""
        self._former += [] if former is None else [former]
        self._new += [] if new is None else [new]
        self._are_few &= sum(map(len, (*self._former, *self._new))) <= _COMPARED_ROWS
        if not self._are_few:
            self._former, self._new = [], []

    def are_same(self) -> bool:
        """Return whether they are known to be the same."""
        if not (self._former and self._new):
            return self._are_few and not (self._former or self._new)
        return bool(pa.concat_tables(self._former).equals(pa.concat_tables(self._new)))


def _replaced(
    file: pq.ParquetFile,
    columns: pa.Schema,
    order: Sequence[str],
    entities: Entities,
    new_rows: Iterable[pa.Table],
    compared: _Compared,
) -> Iterator[pa.Table]:
    """Yield the rows of a file in order, some of them replaced.

    Raises:
        _NothingReplaced: If all rows are the same as before.
    """
    new = _NewRows(new_rows, columns, compared)
    if not len(new.pending) and not _has_any(file, entities):
        raise _NothingReplaced
    for number in range(file.num_row_groups):
        # No row group is kept in memory while the next one is read.
        yield from _merged(_read(file, number, columns), order, entities, new, compared)
    while len(new.pending):
        yield new.pending
        new.load()
    if compared.are_same():
        raise _NothingReplaced


def _read(file: pq.ParquetFile, number: int, columns: pa.Schema) -> pa.Table:
    has_others = file.num_row_groups > 1  # with threads, more of a small file is in memory
    rows = file.read_row_group(number, columns.names, use_threads=has_others)
    return rows.replace_schema_metadata(None)


def _merged(
    kept: pa.Table,
    order: Sequence[str],
    entities: Entities,
    new: _NewRows,
    compared: _Compared,
) -> Iterator[pa.Table]:
    """Yield the rows of a row group that stay, and the new rows between them, in order."""
    is_replaced = entities.are_of(kept)
    if is_replaced.any():
        compared.add(former=kept.filter(pa.array(is_replaced)))
    places = np.flatnonzero(~is_replaced)
    while len(places) and len(new.pending):
        both = pa.concat_tables([kept, new.pending])
        all_places = np.concatenate([places, np.arange(len(kept), len(both))])
        keys = both.select(order).take(all_places)
        sorted_ = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in order])
        merged = all_places[sorted_.to_numpy()]
        # What comes after the last row of one side waits for the next rows of that side.
        is_new = merged >= len(kept)
        until = 1 + min(np.flatnonzero(is_new)[-1], np.flatnonzero(~is_new)[-1])
        piece, rest = _taken(both, merged[:until]), merged[until:]
        del both
        if len(rest) and rest[0] < len(kept):
            places = rest
            new.load()
        else:
            places = rest[:0]
            new.pending = _taken(new.pending, rest - len(kept))
            kept = new.none  # it is not in memory while the next rows are written
            if not len(rest):
                new.load()
        yield piece
        del piece
    if len(places):
        kept = _taken(kept, places)
        yield kept


def _has_any(file: pq.ParquetFile, entities: Entities) -> bool:
    """Return whether a file has a row of some studies or patients. Reads no other column."""
    names = ("datastore_id", entities.id_column)
    groups = (file.read_row_group(group, names) for group in range(file.num_row_groups))
    return any(entities.are_of(group).any() for group in groups)


class _NewRows:
    """The new rows of a file, some at a time.

    Args:
        tables: The rows, in order.
        columns: Their columns.
        compared: Gets them.
    """

    def __init__(self, tables: Iterable[pa.Table], columns: pa.Schema, compared: _Compared) -> None:
        self._tables, self._columns, self._compared = iter(tables), columns, compared
        self.none = pa.Table.from_batches([], columns)
        self.pending: pa.Table
        self.load()

    def load(self) -> None:
        """Load the next rows that wait for their place; none after the last ones."""
        rows = next(filter(len, self._tables), self.none).select(self._columns.names)
        self.pending = rows.replace_schema_metadata(None)
        if len(self.pending):
            self._compared.add(new=self.pending)


def _taken(rows: pa.Table, places: np.ndarray) -> pa.Table:
    """Return the rows at some places. Runs of adjacent rows are copied as a whole."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(places) != 1) + 1]).astype(np.int64)
    if len(starts) * _ROWS_OF_A_SLICE > len(places):
        # To take from several chunks at once takes longer than to join them first.
        columns = [column.combine_chunks().take(pa.array(places)) for column in rows.columns]
        return pa.Table.from_arrays(columns, schema=rows.schema)
    ends = np.append(starts[1:], len(places))
    runs = zip(places[starts].tolist(), (ends - starts).tolist(), strict=True)
    return pa.concat_tables([rows.slice(*run) for run in runs]).combine_chunks()


@contextmanager
def _checked(
    root: Root, path: str, written: PublishedFile, reader: pafs.FileSystem | None
) -> Iterator[pq.ParquetFile]:
    """Open a published file, if it holds what was written.

    What is wrong in it would look right afterwards, because its hash is written again.
    """
    with intact.checked(root, path, written, reader) as content:
        if content is None:
            raise DamagedFile(path)
        yield pq.ParquetFile(content)


class _Hashed(io.RawIOBase):
    """Writes to a stream, and records the size and the hash of what was written."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written so far, in hex."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Return true: this is a stream to write to."""
        return True

    def write(self, content: Any) -> int:
        """Write some bytes."""
        self._stream.write(content)
        self._hash.update(content)
        self.size_bytes += len(content)
        return len(content)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size_bytes


_in_file = functools.lru_cache(maxsize=8)(schema_with_pandas_dtypes)
"""The same schema for each of the many files of a table."""


def _layout(columns: pa.Schema, group_rows: int) -> dict[str, Any]:
    """Return the layout of a file, from the number of rows in its first row group.

    Columns of ids get bloom filters, with which a reader finds the file that has an id. Ids and
    times get no dictionary, because it would hold each value once more.
    """
    ids = [name for name in columns.names if name in schema.IDS]
    # With few rows, zstd takes longer to begin than to compress. Level 1 suffices, because UIDs and
    # hashes get larger, not smaller, with more effort.
    codec = ("zstd", 1) if group_rows > _FEW_ROWS else ("snappy", None)
    return {
        **dict(zip(("compression", "compression_level"), codec, strict=True)),
        "use_dictionary": [f.name for f in columns if not (f.name in ids or _is_time(f.type))],
        "bloom_filter_options": {name: {"ndv": max(1, group_rows), "fpp": 0.05} for name in ids},
    }


def _is_time(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_) or pa.types.is_time(type_))


def _row_groups(batches: Iterable[pa.RecordBatch | pa.Table], most: int) -> Iterator[pa.Table]:
    """Join batches to row groups of `most` rows; the last may have fewer."""
    held, count = list[pa.Table](), 0
    for batch in batches:
        rows = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        while count + len(rows) >= most:
            more = most - count
            yield pa.concat_tables([*held, rows.slice(0, more)])
            held, count, rows = [], 0, rows.slice(more)
        if len(rows):
            held.append(rows)
            count += len(rows)
        del batch, rows  # they are not in memory while the next ones are read
    if held:
        yield pa.concat_tables(held)
