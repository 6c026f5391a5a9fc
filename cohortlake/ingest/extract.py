"""Search windows become increments.

Pages of all workers come in one stream, are flattened together some megabytes at a time,
and go to the increments of their ranges row group by row group: memory grows neither with
the window nor with the number of workers. A tick that finds nothing new writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import ServiceError, Stopped
from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import (
    EPOCH,
    Arrival,
    Axis,
    Datastore,
    HealthImaging,
    Range,
    Window,
    WindowSearch,
)
from cohortlake.history import refiled
from cohortlake.history.image_sets import KnownStates
from cohortlake.increments.record import Record
from cohortlake.increments.writer import IncrementWriter, write_empty
from cohortlake.ingest import partitions
from cohortlake.privacy.erasures import Erased
from cohortlake.storage.root import Root

# 40 KB a page: sixty pages are decoded three times as fast as sixty times one.
_BATCH_BYTES = 2_500_000
# Of all open increments together; the one with the most is written first.
_BUFFERED_BYTES = 16_000_000

Keep = Callable[[pa.Table], pa.Array]


@dataclass(frozen=True)
class Search:
    """A window to search for a partition.

    Attributes:
        store: The data store, with the instant at which the search began.
        partition: The UTC day or the study month.
        window: What to search.
        keep: Which of the rows in a sweep's window belong to the partition; all by default.
            Of the others, those that the lake does not know are kept too.
        is_sweep: Whether what it finds is compared with what the lake holds: then the ids
            are kept, and the record is written by whoever compares.
    """

    store: Datastore
    partition: str
    window: Window
    keep: Keep | None = None
    is_sweep: bool = False

    def record(self, run_id: str) -> Record:
        """Return the record of a run of it, still without counts."""
        return Record(
            datastore_id=self.store.datastore_id,
            axis=self.window.axis.value,
            partition=self.partition,
            start=self.window.start,
            end=self.window.end,
            searched_at=self.store.now,
            run_id=run_id,
        )

    def must_record(self, settle: timedelta) -> bool:
        """Return whether it goes on the ledger even if it finds nothing new.

        A search of what lies behind does: otherwise it would stay due. So does a sweep, once
        it was compared with what the lake holds (`ingest.sweep`).
        """
        return not self.is_sweep and self.window.end <= self.store.now - settle


@dataclass(frozen=True)
class Found:
    """What a search brought.

    Attributes:
        records: What it says of itself, by part.
        is_written: Whether they are in the lake; a search without news may leave nothing.
        image_set_ids: The ids found, where a sweep asked for them.
    """

    records: tuple[Record, ...]
    is_written: bool
    image_set_ids: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """Rows found."""
        return sum(record.rows for record in self.records)

    @property
    def requests(self) -> int:
        """Requests sent, retries included."""
        return sum(record.requests for record in self.records)

    @property
    def throttles(self) -> int:
        """Requests the service threw back."""
        return sum(record.throttles for record in self.records)


def joined(root: Root, parts: Sequence[Found]) -> Found:
    """Join the parts of a partition, once all have landed.

    Where one of them has news, those without go on the ledger too, or it would show a gap.
    """
    records = tuple(record for part in parts for record in part.records)
    is_written = any(part.is_written for part in parts)
    for part in parts:
        if is_written and not part.is_written:
            for record in part.records:
                write_empty(root, record)
    ids = frozenset[str]().union(*(part.image_set_ids for part in parts))
    return Found(records, is_written, ids)


@dataclass(frozen=True)
class Extractor:
    """What all searches of a run share.

    Attributes:
        root: The lake.
        service: The client, for what is asked beside the search.
        known: What the memory knows; a search that adds nothing to it keeps no rows.
        erased: Whose rows are dropped before anything is written.
        run_id: The run's id, which names the files.
        settle: How long the search index may lag.
        trusts_search: Whether an image set is gone that two searches did not find, where
            GetImageSet is denied.
    """

    root: Root
    service: HealthImaging
    known: KnownStates
    erased: Erased
    run_id: str
    settle: timedelta
    trusts_search: bool = False

    def land(
        self, search: WindowSearch, wanted: Sequence[Search]
    ) -> Iterator[tuple[Search, Found]]:
        """Write what a search brings, and yield each part of a partition as it lands.

        Args:
            search: Pages the windows of `wanted`, of which those that follow one another may
                be joined: days that share pages cost one request, not one each.
            wanted: The partitions to find, in order.

        Raises:
            ServiceError: The search did not reach its end. What landed stays, and all that
                had come by then lands. So it does where the search is stopped or interrupted.
            Stopped: Somebody asked to end.
            RootNotUsable: An increment could not be written.
        """
        with closing(_Landings(self, wanted)) as landings, closing(search.arrivals()) as arrivals:
            try:
                for batch in _batches(arrivals):
                    yield from landings.take(batch)
            except BaseException as error:
                if _leaves_what_came_usable(error):
                    yield from landings.rescue()
                raise


def _leaves_what_came_usable(error: BaseException) -> bool:
    """Return whether an error says that a search ended early, and nothing of what it brought.

    Interrupts are no `Exception`: KeyboardInterrupt, and that of Dagster.
    """
    if isinstance(error, Exception):
        return isinstance(error, (ServiceError, Stopped))
    return not isinstance(error, GeneratorExit)


class _Landings:
    """The ranges that are on their way into the lake."""

    def __init__(self, run: Extractor, wanted: Sequence[Search]) -> None:
        self._run = run
        self._wanted = wanted
        self._open: dict[Range, _Landing] = {}
        self._being_added: frozenset[Range] = frozenset()

    def take(self, batch: Sequence[Arrival]) -> Iterator[tuple[Search, Found]]:
        """Take in what has come, and yield what has landed by it."""
        arrivals: dict[Range, list[Arrival]] = {}
        for arrival in batch:
            arrivals.setdefault(arrival.part, []).append(arrival)
        self._being_added = frozenset(arrivals)
        for part in arrivals:
            if part not in self._open:
                self._open[part] = _Landing(self._run, part, self._wanted)
        states = self._states([a for group in arrivals.values() for a in group])
        for part, group in arrivals.items():
            landing = self._open[part]
            count = sum(len(a.page.heads) for a in group if a.page)
            yield from landing.add(group, states[:count])
            states = states[count:]
            if group[-1].page is None:
                yield from landing.finish(part.end)
                del self._open[part]
        self._flush_the_largest()
        self._being_added = frozenset()

    def rescue(self) -> Iterator[tuple[Search, Found]]:
        """Land what has come of ranges that will not be done.

        Part of a sweep proves nothing, and is left out. So is a range where an interrupt came while
        its rows were added: nobody knows which of them were.
        """
        for part, landing in self._open.items():
            if not landing.is_sweep and part not in self._being_added:
                yield from landing.finish(min(landing.position, part.end))

    def close(self) -> None:
        """Let go of what did not land."""
        for landing in self._open.values():
            landing.close()

    def _states(self, arrivals: Sequence[Arrival]) -> pa.Table:
        pages = [arrival.page for arrival in arrivals if arrival.page]
        datastore_id = self._wanted[0].store.datastore_id
        states = flatten_pages([page.body for page in pages], datastore_id)
        is_new = [head.image_set_id not in page.skip for page in pages for head in page.heads]
        is_erased = self._run.erased.among(states)
        states = states.append_column("is_new", pa.array(is_new, pa.bool_()))
        return states.append_column("is_erased", is_erased)

    def _flush_the_largest(self) -> None:
        open_ones = sorted(self._open.values(), key=lambda landing: landing.buffered_bytes)
        buffered = sum(landing.buffered_bytes for landing in open_ones)
        while buffered > _BUFFERED_BYTES:
            largest = open_ones.pop()
            buffered -= largest.buffered_bytes
            largest.flush()


class _Landing:
    """A range on its way: an increment for each partition it reaches into, one by one.

    Attributes:
        position: All rows before it have been added.

    Rows come in ascending order, so a partition is done as soon as a row of a later one has
    come.
    """

    def __init__(self, run: Extractor, part: Range, wanted: Iterable[Search]) -> None:
        self._run = run
        self._part = part
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
        self._piece = self._next_piece()

    @property
    def is_sweep(self) -> bool:
        """Whether its partitions are swept."""
        return self._due[0].is_sweep

    @property
    def buffered_bytes(self) -> int:
        """How much of it is in memory."""
        return self._piece.increment.buffered_bytes

    def add(self, arrivals: Sequence[Arrival], states: pa.Table) -> Iterator[tuple[Search, Found]]:
        """Add pages, given with their rows, and yield the partitions that are done with them."""
        for arrival in arrivals:
            self._piece.cost += _Cost(
                int(arrival.page is not None), arrival.requests, arrival.throttles
            )
        rows = self._own(arrivals, states)
        while True:
            count = _rows_before(rows, self._due[0].window)
            self._piece.add(rows[:count])
            rows = rows[count:]
            if not len(rows):
                break
            yield self._landed(self._due[0].window.end)
        self.position = max([self.position, *(a.position for a in arrivals if a.position)])

    def finish(self, end: datetime) -> Iterator[tuple[Search, Found]]:
        """Land the rest, up to where the range ends after all."""
        landed_to = self._piece.start
        while self._due and landed_to < end:
            landed_to = min(end, self._due[0].window.end)
            yield self._landed(landed_to)

    def flush(self) -> None:
        """Write what is in memory as a row group."""
        self._piece.increment.flush()

    def close(self) -> None:
        """Let go of what did not land."""
        self._piece.increment.close()

    def _own(self, arrivals: Sequence[Arrival], states: pa.Table) -> pa.Table:
        sizes = [len(arrival.page.heads) for arrival in arrivals if arrival.page]
        numbers = np.repeat(np.arange(self._pages, self._pages + len(sizes)), sizes)
        self._pages += len(sizes)
        states = states.append_column("page", pa.array(numbers, pa.int32()))
        own = states["is_new"]
        if self._part.window.axis is Axis.STUDY_DATE:
            # A row without a study date is none of a date's; on a time axis, better of its
            # neighbour's than lost.
            own = pc.and_(own, partitions.is_dated(states))
        return states.filter(own).drop_columns("is_new")

    def _landed(self, end: datetime) -> tuple[Search, Found]:
        piece, search = self._piece, self._due[0]
        found = piece.finish(end)
        if end == search.window.end:
            self._due.popleft()
        if self._due:
            self._piece = self._next_piece()
        return search, found

    def _next_piece(self) -> _Piece:
        search = self._due[0]
        start = max(search.window.start, self._part.window.start)
        return _Piece(self._run, replace(search, window=replace(search.window, start=start)))


@dataclass(frozen=True)
class _Cost:
    pages: int = 0
    requests: int = 0
    throttles: int = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(
            self.pages + other.pages,
            self.requests + other.requests,
            self.throttles + other.throttles,
        )


class _Piece:
    """What a range brings of one partition: its increment, its news and its cost."""

    def __init__(self, run: Extractor, search: Search) -> None:
        self.increment = IncrementWriter(run.root, search.record(run.run_id))
        self.cost = _Cost()
        self._run = run
        self._search = search
        self._has_news = False
        self._is_counted = True
        self._erased_rows = 0
        self._refiled: set[str] = set()
        self._ids: set[str] = set()
        self._began = monotonic()

    @property
    def start(self) -> datetime:
        """Where it starts."""
        return self._search.window.start

    def add(self, states: pa.Table) -> None:
        """Add rows of the range."""
        states = self._without_erased(states)
        states = self._swept(states) if self._search.is_sweep else states
        if len(states):
            self._has_news = self._has_news or bool(self._unknown(states).any())
            self.increment.add(states)

    def _without_erased(self, states: pa.Table) -> pa.Table:
        if not pc.any(states["is_erased"]).as_py():  # nearly always: nothing is copied then
            return states.drop_columns("is_erased")
        erased = states.filter(states["is_erased"])
        own = erased.filter(self._search.keep(erased)) if self._search.keep else erased
        self._erased_rows += len(own)
        # What changed after this search began is the next one's, as below.
        now = pa.scalar(self._search.store.now, schema.INSTANT)
        self._refiled.update(erased.filter(_is_before(erased, now))["image_set_id"].to_pylist())
        return states.filter(pc.invert(states["is_erased"])).drop_columns("is_erased")

    def _swept(self, states: pa.Table) -> pa.Table:
        own = self._search.keep(states) if self._search.keep else None
        mine = states.filter(own) if own is not None else states
        self._ids.update(mine["image_set_id"].to_pylist())
        if own is not None:
            states = states.filter(pc.or_(own, pa.array(self._unknown(states))))
        # What changed since the sweep began is left to the next search. The state before it is not
        # found any more, so the counts of this sweep are not what the lake holds.
        now = pa.scalar(self._search.store.now, schema.INSTANT)
        self._is_counted = self._is_counted and _all(_is_before(mine, now))
        return states.filter(_is_before(states, now))

    def _unknown(self, states: pa.Table) -> np.ndarray:
        return self._run.known.lacks(states["state_key"].to_numpy())

    def finish(self, end: datetime) -> Found:
        """Write the increment if there is news or a record is due.

        Args:
            end: Where it ends after all; the range may have been cut meanwhile.
        """
        summary = self.increment.summary(
            end=end, **vars(self.cost), seconds=monotonic() - self._began
        )
        record = replace(summary, erased_rows=self._erased_rows, counted=self._is_counted)
        must_record = self._search.must_record(self._run.settle)
        if self._refiled:  # before the file says that this window was searched
            refiled.close(self._run.root, self._search.record(self._run.run_id), self._refiled)
        if self._has_news:
            record = self.increment.commit(record)
        else:
            self.increment.close()
            if must_record:
                write_empty(self._run.root, record)
        return Found((record,), self._has_news or must_record, frozenset(self._ids))


def _all(values: pa.ChunkedArray) -> bool:
    return bool(pc.all(values, min_count=0).as_py())


def _is_before(states: pa.Table, now: pa.Scalar) -> pa.ChunkedArray:
    return pc.fill_null(pc.less(states["updated_at"], now), fill_value=True)


def _rows_before(states: pa.Table, window: Window) -> int:
    """Return how many of some ascending rows lie before the end of a window.

    A row without an instant stays with the one before it, and so would one out of order:
    better in a neighbouring partition's file than lost.
    """
    column = "StudyDate" if window.axis is Axis.STUDY_DATE else window.axis.value
    instants = states[column].cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0).to_numpy()
    ascending = np.maximum.accumulate(instants) if len(instants) else instants
    return int(np.searchsorted(ascending, (window.end - EPOCH) // timedelta(microseconds=1)))


def _batches(arrivals: Iterator[Arrival]) -> Iterator[list[Arrival]]:
    batch: list[Arrival] = []
    size = 0
    try:
        for arrival in arrivals:
            batch.append(arrival)
            size += len(arrival.page.body) if arrival.page else 0
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    except BaseException as error:
        if batch and _leaves_what_came_usable(error):
            yield batch
        raise
    if batch:
        yield batch
