"""The rows of periods that are not complete yet: they wait for the batch that completes them.

A shifted year is made of two years of the version history, and a large month of several batches. If
a batch has rows of an unfinished period, they are kept in sorted files, until the last batch of the
period. Then the files are merged: any number of rows is sorted in bounded memory. DuckDB runs out
of memory if it sorts all rows of a large year at once. See `periods` for the batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.storage import locks

# A merge has some rows of each file in memory.
_BATCH_ROWS = 256
_MERGED_ROWS = 65_536

RowsOfPeriods = Iterable[tuple[str, Iterable[pa.RecordBatch]]]
"""The rows of each period, in the order of the table. Each is read before the next one."""


class CarriedRows:
    """Keeps rows of each table until their period is complete.

    A context manager: at its end, no file is left.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[Path]] = {}
        self._count = 0
        self._files = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> CarriedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def complete(
        self, table: str, order: Sequence[str], rows: RowsOfPeriods, complete: Collection[str]
    ) -> RowsOfPeriods:
        """Yield the rows of the periods that a batch completes, and keep those of the others.

        Args:
            table: The published table.
            order: The columns that its rows are sorted by.
            rows: Its rows in the batch.
            complete: The periods that the batch completes.
        """
        for period, batches in rows:
            if period in complete and (table, period) not in self._parts:
                yield period, batches
            else:
                self._keep(table, period, batches)
        for period in sorted(complete):
            if parts := self._parts.pop((table, period), None):
                yield period, self._merged(parts, order)

    def _keep(self, table: str, period: str, batches: Iterable[pa.RecordBatch]) -> None:
        if self._folder is None:
            # They may be PHI: the folder is private, and the next run deletes it after a kill.
            self._folder = self._files.enter_context(locks.temporary_folder())
        self._count += 1
        path = self._folder / f"{self._count}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with ExitStack() as opened:
            writer = None
            for batch in batches:
                if writer is None:
                    stream = opened.enter_context(pa.OSFile(str(path), "wb"))
                    writer = pa.ipc.new_stream(stream, batch.schema, options=options)
                    opened.enter_context(writer)
                for start in range(0, len(batch), _BATCH_ROWS):
                    writer.write_batch(batch.slice(start, _BATCH_ROWS))
        self._parts.setdefault((table, period), []).append(path)

    def _merged(self, paths: Sequence[Path], order: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with ExitStack() as opened:
            streams = [opened.enter_context(pa.OSFile(str(path))) for path in paths]
            yield from merged([pa.ipc.open_stream(stream) for stream in streams], order)
        for path in paths:
            path.unlink()


def merged(
    parts: Sequence[Iterable[pa.RecordBatch]], order: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Merge rows that are sorted by the same columns. Some batches of each part are in memory.

    Args:
        parts: The rows of each part, in order.
        order: The columns that they are sorted by. Nulls are the last ones.
    """
    waiting = [_Waiting(part, max(_BATCH_ROWS, _MERGED_ROWS // len(parts))) for part in parts]
    while waiting:
        rows = pa.concat_tables([each.rows for each in waiting]).combine_chunks()
        sorted_ = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in order])
        places = sorted_.to_numpy()
        ends = np.cumsum([len(each.rows) for each in waiting])
        # The rows after the last known row of a part wait for its next rows.
        is_last = np.zeros(len(rows), np.bool_)
        is_last[[end - 1 for end, each in zip(ends, waiting, strict=True) if each.has_more]] = True
        lasts = np.flatnonzero(is_last[places])
        ready = places[: lasts[0] + 1] if len(lasts) else places
        yield from rows.take(pa.array(ready)).to_batches()
        owners = np.searchsorted(ends, ready, side="right")
        taken = np.bincount(owners, minlength=len(waiting)).tolist()
        del rows
        for each, count in zip(waiting, taken, strict=True):
            each.drop(count)
        waiting = [each for each in waiting if len(each.rows)]


class _Waiting:
    """The next rows of a part.

    Args:
        part: The batches of the part.
        least_rows: How many rows it gives at once at least, except for the last ones.

    Attributes:
        rows: Some rows; none after the last ones.
    """

    def __init__(self, part: Iterable[pa.RecordBatch], least_rows: int) -> None:
        self._batches, self._least_rows = iter(part), least_rows
        self._next: pa.RecordBatch | None = next(self._batches)
        self.rows = pa.Table.from_batches([], self._next.schema)
        self.drop(0)

    @property
    def has_more(self) -> bool:
        """Whether there are rows after these."""
        return self._next is not None

    def drop(self, count: int) -> None:
        """Drop the first rows, and read some more if few are left."""
        self.rows = self.rows.slice(count)
        read, rows = [self.rows], len(self.rows)
        while self._next is not None and rows < self._least_rows:
            read.append(pa.Table.from_batches([self._next]))
            rows += len(self._next)
            self._next = next(self._batches, None)
        self.rows = pa.concat_tables(read)
