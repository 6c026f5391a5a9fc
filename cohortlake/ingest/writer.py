"""Writing the rows of a search: each range of the search into the increments of its partitions.

A range is what one worker pages; it may reach over several partitions. Its rows come in ascending
order, so a partition is complete as soon as a row of a later one has come. Rows are written row
group by row group. A search that finds nothing new writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import Arrival, Axis, Range, Window
from cohortlake.history import refiled
from cohortlake.history.current_states import microseconds
from cohortlake.history.known_states import KnownStates
from cohortlake.increments.writer import IncrementWriter, write_empty
from cohortlake.ingest import partitions
from cohortlake.ingest.partition_search import PartitionSearch, SearchResult, SearchRun
from cohortlake.storage.root import Root

# Of all open increments together. The increment with the most bytes is written first.
_BUFFERED_BYTES = 16_000_000
_NO_STATES = pa.Table.from_batches([], schema.arrow_schema(schema.STATE))


class SearchWriter:
    """Writes the rows of all ranges of a search. Always `close` it.

    Args:
        run: Where to write.
        wanted: The searches, in the order of their windows.
    """

    def __init__(self, run: SearchRun, wanted: Sequence[PartitionSearch]) -> None:
        self._run = run
        self._wanted = wanted
        self._known = _known_states(run.root, wanted)
        self._open: dict[Range, RangeWriter] = {}
        self._being_written: frozenset[Range] = frozenset()

    def write(self, batch: Sequence[Arrival]) -> Iterator[tuple[PartitionSearch, SearchResult]]:
        """Write a batch of arrivals; yield the parts of partitions that are complete."""
        arrivals: dict[Range, list[Arrival]] = {}
        for arrival in batch:
            arrivals.setdefault(arrival.part, []).append(arrival)
        self._being_written = frozenset(arrivals)
        for part in arrivals:
            if part not in self._open:
                self._open[part] = RangeWriter(self._run, part, self._wanted, self._known)
        counts = {part: _count_rows(group) for part, group in arrivals.items()}
        states = _NO_STATES
        if any(counts.values()):
            states = self._states([a for group in arrivals.values() for a in group])
        for part, group in arrivals.items():
            writer = self._open[part]
            yield from writer.write(group, states[: counts[part]])
            states = states[counts[part] :]
            if group[-1].page is None:
                yield from writer.finish(part.end)
                del self._open[part]
        self._flush_the_largest()
        self._being_written = frozenset()

    def flush_partial(self) -> Iterator[tuple[PartitionSearch, SearchResult]]:
        """Write what has come of ranges that will not be completed.

        A partial sweep proves nothing and is discarded. So is a range that was interrupted while
        its rows were added, because it is unknown which of them were.
        """
        for part, writer in self._open.items():
            if not writer.is_sweep and part not in self._being_written:
                yield from writer.finish(min(writer.position, part.end))

    def close(self) -> None:
        """Delete what was not finished."""
        for writer in self._open.values():
            writer.close()

    def _states(self, arrivals: Sequence[Arrival]) -> pa.Table:
        pages = [arrival.page for arrival in arrivals if arrival.page]
        states = flatten_pages([page.body for page in pages], self._run.store.datastore_id)
        is_new = [head.image_set_id not in page.skip for page in pages for head in page.heads]
        is_erased = self._run.erased.mask(states)
        states = states.append_column("is_new", pa.array(is_new, pa.bool_()))
        return states.append_column("is_erased", is_erased)

    def _flush_the_largest(self) -> None:
        by_size = sorted(self._open.values(), key=lambda writer: writer.buffered_bytes)
        buffered = sum(writer.buffered_bytes for writer in by_size)
        while buffered > _BUFFERED_BYTES:
            largest = by_size.pop()
            buffered -= largest.buffered_bytes
            largest.flush()


class RangeWriter:
    """Writes one range: an increment for each partition that it reaches into, one after another.

    Attributes:
        position: All rows before this instant have been added.
    """

    def __init__(
        self,
        run: SearchRun,
        part: Range,
        wanted: Iterable[PartitionSearch],
        known: Mapping[Axis, KnownStates],
    ) -> None:
        self._run = run
        self._part = part
        self._known = known[part.window.axis]
        window = part.window
        self._due = deque(
            search
            for search in wanted
            if search.window.axis is window.axis
            and search.window.start < window.end
            and search.window.end > window.start
        )
        self._pages = 0
        self.position = window.start
        self._partition = self._next_partition()

    @property
    def is_sweep(self) -> bool:
        """Whether its partitions are swept."""
        return self._due[0].is_sweep

    @property
    def buffered_bytes(self) -> int:
        """Bytes of rows that are in memory."""
        return self._partition.increment.buffered_bytes

    def write(
        self, arrivals: Sequence[Arrival], states: pa.Table
    ) -> Iterator[tuple[PartitionSearch, SearchResult]]:
        """Write pages, given with their rows; yield the partitions that are complete."""
        self._partition.count(arrivals)
        sizes = [len(arrival.page.heads) for arrival in arrivals if arrival.page]
        rows = self._own_rows(sizes, states) if len(states) else states
        self._pages += len(sizes)
        while len(rows):
            count = _rows_before(rows, self._due[0].window)
            self._partition.write(rows[:count])
            rows = rows[count:]
            if len(rows):
                yield self._finish_partition(self._due[0].window.end)
        self.position = max([self.position, *(a.position for a in arrivals if a.position)])

    def finish(self, end: datetime) -> Iterator[tuple[PartitionSearch, SearchResult]]:
        """Finish the remaining partitions, up to where the range ends."""
        finished_to = self._partition.start
        while self._due and finished_to < end:
            finished_to = min(end, self._due[0].window.end)
            yield self._finish_partition(finished_to)

    def flush(self) -> None:
        """Write the rows in memory as a row group."""
        self._partition.increment.flush()

    def close(self) -> None:
        """Delete what was not finished."""
        self._partition.increment.close()

    def _own_rows(self, sizes: Sequence[int], states: pa.Table) -> pa.Table:
        numbers = np.repeat(np.arange(self._pages, self._pages + len(sizes)), sizes)
        states = states.append_column("page", pa.array(numbers, pa.int32()))
        own = states["is_new"]
        if self._part.window.axis is Axis.STUDY_DATE:
            # A row without a study date belongs to `undated`. See `_rows_before` for the time axes.
            own = pc.and_(own, partitions.is_dated(states))
        return states.filter(own).drop_columns("is_new")

    def _finish_partition(self, end: datetime) -> tuple[PartitionSearch, SearchResult]:
        search, result = self._due[0], self._partition.finish(end)
        if end == search.window.end:
            self._due.popleft()
        if self._due:
            self._partition = self._next_partition()
        return search, result

    def _next_partition(self) -> PartitionWriter:
        search = self._due[0]
        start = max(search.window.start, self._part.window.start)
        search = replace(search, window=replace(search.window, start=start))
        return PartitionWriter(self._run, search, self._known)


class PartitionWriter:
    """Writes what a range brings of one partition, and counts what it cost.

    Attributes:
        increment: The increment.
    """

    def __init__(self, run: SearchRun, search: PartitionSearch, known: KnownStates) -> None:
        self.increment = IncrementWriter(run.root, search.record(run))
        self._run = run
        self._known = known
        self._search = search
        self._pages = self._requests = self._throttles = 0
        self._has_new_rows = False
        self._is_counted = True
        self._erased_rows = 0
        self._refiled: set[str] = set()
        self._ids: set[str] = set()
        self._began = monotonic()

    @property
    def start(self) -> datetime:
        """First instant of its window."""
        return self._search.window.start

    def count(self, arrivals: Iterable[Arrival]) -> None:
        """Add pages and requests to its cost."""
        for arrival in arrivals:
            self._pages += arrival.page is not None
            self._requests += arrival.requests
            self._throttles += arrival.throttles

    def write(self, states: pa.Table) -> None:
        """Add rows of the range that belong to the partition."""
        states = self._without_erased(states)
        states = self._swept(states) if self._search.is_sweep else states
        if len(states):
            self._has_new_rows = self._has_new_rows or bool(self._known.lacks(states).any())
            self.increment.add(states)

    def finish(self, end: datetime) -> SearchResult:
        """Write the increment if it has new rows, or if the search must be recorded.

        Args:
            end: First instant after its window, which may have been cut meanwhile.
        """
        summary = self.increment.summary(
            end=end,
            pages=self._pages,
            requests=self._requests,
            throttles=self._throttles,
            seconds=monotonic() - self._began,
        )
        record = replace(summary, erased_rows=self._erased_rows, counted=self._is_counted)
        must_record = self._search.must_record(self._run)
        if self._refiled:  # before the file shows that this window was searched
            refiled.close(self._run.root, self._search.record(self._run), self._refiled)
        if self._has_new_rows:
            record = self.increment.commit(record)
        else:
            self.increment.close()
            if must_record:
                write_empty(self._run.root, record)
        is_written = self._has_new_rows or must_record
        return SearchResult((record,), is_written, frozenset(self._ids))

    def _without_erased(self, states: pa.Table) -> pa.Table:
        if not pc.any(states["is_erased"]).as_py():  # the usual case: filtering would copy
            return states.drop_columns("is_erased")
        erased = states.filter(states["is_erased"])
        own = erased.filter(self._search.belongs(erased)) if self._search.belongs else erased
        self._erased_rows += len(own)
        # The next search closes what changed after this one began, as in `_swept`.
        self._refiled.update(erased.filter(self._is_before_run(erased))["image_set_id"].to_pylist())
        return states.filter(pc.invert(states["is_erased"])).drop_columns("is_erased")

    def _swept(self, states: pa.Table) -> pa.Table:
        belongs = self._search.belongs(states) if self._search.belongs else None
        own = states.filter(belongs) if belongs is not None else states
        self._ids.update(own["image_set_id"].to_pylist())
        if belongs is not None:
            states = states.filter(pc.or_(belongs, pa.array(self._known.lacks(states))))
        # Rows that changed after the sweep began are left to the next search. The service does not
        # return their earlier states, so the counts of this sweep are not what the lake holds.
        is_all_before = pc.all(self._is_before_run(own), min_count=0).as_py()
        self._is_counted = self._is_counted and bool(is_all_before)
        return states.filter(self._is_before_run(states))

    def _is_before_run(self, states: pa.Table) -> pa.ChunkedArray:
        now = pa.scalar(self._run.store.now, schema.INSTANT)
        return pc.fill_null(pc.less(states["updated_at"], now), fill_value=True)


def _count_rows(arrivals: Iterable[Arrival]) -> int:
    return sum(len(arrival.page.heads) for arrival in arrivals if arrival.page)


def _known_states(root: Root, wanted: Iterable[PartitionSearch]) -> dict[Axis, KnownStates]:
    """Return the known states for the axes of some searches."""
    windows: dict[Axis, list[Window]] = {}
    for search in wanted:
        windows.setdefault(search.window.axis, []).append(search.window)
    return {
        axis: KnownStates(
            root,
            _column_of(axis),
            min(window.start for window in own),
            max(window.end for window in own),
        )
        for axis, own in windows.items()
    }


def _column_of(axis: Axis) -> str:
    """Return the column in whose order the rows of an axis come."""
    return "StudyDate" if axis is Axis.STUDY_DATE else axis.value


def _rows_before(states: pa.Table, window: Window) -> int:
    """Count how many of some ascending rows lie before the end of a window.

    A row without an instant, or out of order, is assigned to the partition of the row before it,
    rather than dropped.
    """
    values = states[_column_of(window.axis)].cast(pa.timestamp("us")).cast(pa.int64())
    instants = values.fill_null(0).to_numpy()
    ascending = np.maximum.accumulate(instants) if len(instants) else instants
    return int(np.searchsorted(ascending, microseconds(window.end)))
