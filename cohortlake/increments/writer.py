"""Writing an increment in bounded memory: row group by row group, as pages arrive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.flatten import invalid_values
from cohortlake.increments import written
from cohortlake.increments.kinds import FOUND_SCHEMA, with_run_columns
from cohortlake.increments.record import FOOTER_KEY, HASH_MODULUS, Record, content_hash
from cohortlake.storage.root import Root

_NO_ROWS = pa.Table.from_batches([], FOUND_SCHEMA)  # `empty_table()` imports pandas
# For a single open increment. See `ingest.writer` for the limit over all open ones.
ROW_GROUP_ROWS = 25_000
# Ids, instants and hashes hardly repeat: a dictionary of them costs more than it saves.
_DICTIONARY = [
    column.name
    for column in schema.FOUND
    if column.type != schema.INSTANT
    and column.vr not in ("UI", "PN")
    and column.name not in ("image_set_id", "state_key", "PatientID", "AccessionNumber")
]


@dataclass
class Counts:
    """What a record says of the rows of an increment. See `schema.COVERAGE` for the meanings."""

    rows: int = 0
    content_hash: int = 0
    invalid_values: dict[str, int] = field(default_factory=dict)

    def add(self, states: pa.Table) -> None:
        """Count some rows."""
        for name, count in invalid_values(states).items():
            self.invalid_values[name] = self.invalid_values.get(name, 0) + count
        self.rows += len(states)
        added = content_hash(states["state_key"].to_numpy())
        self.content_hash = (self.content_hash + added) % HASH_MODULUS


class IncrementWriter:
    """Writes one increment. Call `commit` to keep the file, and always `close`.

    Without `commit` no file remains.

    Attributes:
        buffered_bytes: Bytes of rows that are in memory and not written yet.

    Args:
        root: The lake.
        record: What is searched. The writer fills in the counts.
        unless: See `Files.draft`.
    """

    def __init__(
        self, root: Root, record: Record, unless: Callable[[], bool] | None = None
    ) -> None:
        self._root = root
        self._record = record
        self._unless = unless
        self._open: tuple[Any, pq.ParquetWriter] | None = None  # after the first row group
        self._buffer: list[pa.Table] = [_NO_ROWS]
        self._buffered_rows = 0
        self.buffered_bytes = 0
        self._counts = Counts()

    def add(self, states: pa.Table) -> None:
        """Add rows of `schema.STATE` with the column `page`."""
        self._counts.add(states)
        self._buffer.append(with_run_columns(states, self._record))
        self._buffered_rows += len(states)
        self.buffered_bytes += states.nbytes
        if self._buffered_rows >= ROW_GROUP_ROWS:
            self.flush()

    def summary(
        self, *, end: datetime, pages: int, requests: int, throttles: int, seconds: float
    ) -> Record:
        """Return the record of a search that keeps no rows.

        Args:
            end: First instant after what was searched.
            pages: Pages read.
            requests: Requests sent, retries included.
            throttles: Requests that the service throttled.
            seconds: Duration of the search.
        """
        return replace(
            self._record,
            end=end,
            rows=self._counts.rows,
            content_hash=self._counts.content_hash,
            invalid_values=self._counts.invalid_values,
            pages=pages,
            requests=requests,
            throttles=throttles,
            duration_seconds=round(seconds, 3),
        )

    def commit(self, summary: Record) -> Record:
        """Give the file its name, with all rows that were added; return its record."""
        record = replace(summary, kept_rows=summary.rows)
        if self._open is None:
            write_table(self._root, record, pa.concat_tables(self._buffer), self._unless)
            return record
        if self._buffered_rows:
            self.flush()
        draft, writer = self._open
        with self._root.explained():
            writer.add_key_value_metadata({FOOTER_KEY: record.to_footer()})
            writer.close()
            draft.keep()
        written.remember(self._root, record)
        return record

    def close(self) -> None:
        """Delete what was not committed."""
        if self._open is not None:
            draft, writer = self._open
            with contextlib.suppress(OSError):  # a full disk: the footer cannot be written
                writer.close()
            draft.discard()

    def flush(self) -> None:
        """Write the rows in memory as a row group."""
        with self._root.explained():
            if self._open is None:
                draft = self._root.draft(self._record.path, self._unless)
                self._open = draft, parquet_writer(draft.stream, FOUND_SCHEMA)
            self._open[1].write_table(pa.concat_tables(self._buffer).combine_chunks())
        self._buffer, self._buffered_rows, self.buffered_bytes = [_NO_ROWS], 0, 0


def write_empty(root: Root, record: Record) -> None:
    """Write an increment without rows: the search found nothing, or nothing new."""
    write_table(root, record, _NO_ROWS)


def write_table(
    root: Root, record: Record, rows: pa.Table, unless: Callable[[], bool] | None = None
) -> None:
    """Write a small increment at once. See `Files.draft` for `unless`."""
    with (
        root.writing(record.path, unless) as stream,
        parquet_writer(stream, rows.schema) as writer,
    ):
        if len(rows):
            writer.write_table(rows)
        writer.add_key_value_metadata({FOOTER_KEY: record.to_footer()})
    written.remember(root, record)


def parquet_writer(stream: Any, columns: pa.Schema) -> pq.ParquetWriter:
    """Begin a Parquet file with the settings of all increments."""
    dictionary = [name for name in columns.names if name in _DICTIONARY]
    return pq.ParquetWriter(
        stream,
        columns,
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary,
        # Increments are read whole, and a writer would hold the statistics of all row groups.
        write_statistics=False,
    )
