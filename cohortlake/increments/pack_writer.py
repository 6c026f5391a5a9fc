"""Writing a packed file in bounded memory: increment by increment, row group by row group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pyarrow as pa

from cohortlake.increments import packed
from cohortlake.increments.packed import Member
from cohortlake.increments.record import FOOTER_KEY, Record
from cohortlake.increments.writer import ROW_GROUP_ROWS, parquet_writer
from cohortlake.storage.root import Root


class PackWriter:
    """Writes a packed file. Call `commit` to keep it, and always `close`.

    Args:
        root: The lake.
        path: The file.
        columns: The columns of its rows.
        unless: See `Files.draft`.
    """

    def __init__(
        self, root: Root, path: str, columns: pa.Schema, unless: Callable[[], bool] | None = None
    ) -> None:
        self._root = root
        self._draft = root.draft(path, unless)
        with root.explained():
            self._writer = parquet_writer(self._draft.stream, columns)
        self._buffer = [pa.Table.from_batches([], columns)]
        self._buffered_rows = 0
        self._rows = 0
        self._members: list[Member] = []

    def add(self, rows: pa.Table) -> None:
        """Add rows of the next increment."""
        self._buffer.append(rows)
        self._buffered_rows += len(rows)
        self._rows += len(rows)
        if self._buffered_rows >= ROW_GROUP_ROWS:
            self._flush()

    def finish_increment(self, record: Record) -> None:
        """End an increment. It has the rows that were added since the one before it."""
        self._members.append(Member(record, self._rows))
        self._rows = 0

    def commit(self) -> None:
        """Give the file its name."""
        self._flush()
        with self._root.explained():
            self._writer.add_key_value_metadata({FOOTER_KEY: packed.to_footer(self._members)})
            self._writer.close()
            self._draft.keep()

    def close(self) -> None:
        """Delete what was not committed."""
        with contextlib.suppress(OSError):  # a full disk: the footer cannot be written
            self._writer.close()
        self._draft.discard()

    def _flush(self) -> None:
        if self._buffered_rows:
            with self._root.explained():
                self._writer.write_table(pa.concat_tables(self._buffer).combine_chunks())
        self._buffer, self._buffered_rows = self._buffer[:1], 0
