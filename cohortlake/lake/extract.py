"""Search windows become increments.

Pages are flattened in batches as they arrive and streamed to the file, so memory does not
grow with the window. A tick that finds nothing new writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import CohortlakeError
from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import (
    EPOCH,
    Datastore,
    HealthImaging,
    Meter,
    Page,
    Range,
    Ranges,
    Window,
    search_range,
)
from cohortlake.lake.image_sets import Known
from cohortlake.lake.increments import Increment, Record, write_empty
from cohortlake.lake.root import Root

_DAY = timedelta(days=1)
_NO_ROWS = schema.arrow_schema(schema.FOUND[:-2]).empty_table()
_PAGES_PER_BATCH = 64

Keep = Callable[[pa.Table], pa.Array]


@dataclass(frozen=True)
class Search:
    """A window to search for a partition.

    Attributes:
        store: The data store, with the instant at which the search began.
        partition: The UTC day or the study month.
        window: What to search.
        keep: Which of the rows found belong to the partition; those in the window by
            default.
    """

    store: Datastore
    partition: str
    window: Window
    keep: Keep | None = None

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

    def existed(self, states: pa.Table) -> pa.Array:
        """Return which rows were there when the search began; the next one finds the others."""
        now = pa.scalar(self.store.now, states["updated_at"].type)
        return pc.fill_null(pc.less(states["updated_at"], now), True)

    def closes(self, settle: timedelta) -> bool:
        """Return whether it proves its day to the end, so that the day is not due again."""
        day_end = datetime.combine(date.fromisoformat(self.partition), time(), UTC) + _DAY
        return self.window.end == day_end and self.store.now - settle >= day_end


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
    return Found(records, is_written)


@dataclass(frozen=True)
class Extractor:
    """What all searches of a run share.

    Attributes:
        root: The lake.
        service: The client.
        known: What the memory knows; a search that adds nothing to it keeps no rows.
        run_id: The run's id, which names the files.
    """

    root: Root
    service: HealthImaging
    known: Known
    run_id: str

    def whole(self, search: Search) -> Found:
        """Search a window to its last token; keep what is new, and always a record.

        Raises:
            ServiceError: The search did not reach its end; nothing was written.
            RootNotUsable: The increment could not be written.
        """
        ids, part = set[str](), Range(search.window)
        with _Part(self, search, _Account()) as writing:
            for states in self._pages(search.store, part, writing.account):
                keep = search.keep(states) if search.keep else search.window.mask(states)
                kept = states.filter(keep)
                writing.add(kept.filter(search.existed(kept)))
                ids.update(kept["image_set_id"].to_pylist())
            found = writing.finish(search.window.end, must_record=True)
            return replace(found, image_set_ids=frozenset(ids))

    def days(
        self, searches: Sequence[Search], ranges: Ranges, settle: timedelta
    ) -> Generator[tuple[str, Found]]:
        """Work on shared ranges until none is left, and yield each part of a day as it lands.

        The service gives rows in ascending order, so a day is done as soon as a row of a
        later one has come; days that share pages cost one request, not one each.

        Args:
            searches: The days, in order.
            ranges: What is to be paged; all workers of a run take from the same.
            settle: How long the search index may lag.

        Raises:
            ServiceError: A range did not reach its end. What landed stays.
            RootNotUsable: An increment could not be written.
        """
        while (part := ranges.take()) is not None:
            try:
                yield from self._days_of(searches, part, ranges, settle)
            except BaseException:
                ranges.stop()
                raise
            finally:
                ranges.done(part)

    def _days_of(
        self, searches: Sequence[Search], part: Range, ranges: Ranges, settle: timedelta
    ) -> Generator[tuple[str, Found]]:
        account = _Account()
        pages = self._pages(searches[0].store, part, account, ranges.paged)
        rest, start = _NO_ROWS, part.window.start
        for search in searches:
            if search.window.end <= start or search.window.start >= part.end:
                continue
            own = replace(
                search, window=replace(search.window, start=max(start, search.window.start))
            )
            with _Part(self, own, account) as writing:
                while True:
                    count = _rows_before(rest, own.window.end)
                    writing.add(rest[:count])
                    rest = rest[count:]
                    if len(rest) or (more := next(pages, None)) is None:
                        break
                    bounds = replace(part.window, end=part.end)
                    rest = more.filter(bounds.mask(more))
                end = min(own.window.end, part.end)
                yield own.partition, writing.finish(end, must_record=search.closes(settle))

    def _pages(
        self,
        store: Datastore,
        part: Range,
        account: _Account,
        paged: Callable[[], None] = lambda: None,
    ) -> Iterator[pa.Table]:
        """Yield the rows of a range, some pages at a time, with the column `page`."""
        found = search_range(self.service, store.datastore_id, part, account.meter)
        for batch in _batches(found, paged):
            yield _states(batch, account.pages, store.datastore_id)
            account.pages += len(batch)


class _Account:
    """What a search has sent and read so far."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.pages = 0


class _Part:
    """One partition of a search: its increment, and its share of what the search cost."""

    def __init__(self, run: Extractor, search: Search, account: _Account) -> None:
        self._run = run
        self._increment = Increment(run.root, search.record(run.run_id))
        self.account = account
        self._before = (account.pages, account.meter.requests, account.meter.throttles)
        self._began = monotonic()

    def add(self, states: pa.Table) -> None:
        """Add rows."""
        if len(states):
            self._increment.add(states)

    def finish(self, end: datetime, *, must_record: bool) -> Found:
        """Write the increment if there is news or a record is due.

        Args:
            end: Where it ends after all; it may have given the rest of its window away.
            must_record: Whether a record is due.
        """
        account = self.account
        now = (account.pages, account.meter.requests, account.meter.throttles)
        pages, requests, throttles = (b - a for a, b in zip(self._before, now, strict=True))
        record = self._increment.summary(
            end=end,
            pages=pages,
            requests=requests,
            throttles=throttles,
            seconds=monotonic() - self._began,
        )
        news = self._run.known.lacks(self._increment.state_keys())
        if news:
            record = self._increment.keep(record)
        elif must_record:
            write_empty(self._run.root, record)
        return Found((record,), news or must_record)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._increment.close()


def _rows_before(states: pa.Table, end: datetime) -> int:
    """Return how many of some ascending rows lie before an instant.

    A row without an instant stays with the one before it, and so would one out of order:
    better in a neighbouring day's file than lost.
    """
    instants = states["updated_at"].cast(pa.int64()).fill_null(0).to_numpy()
    ascending = np.maximum.accumulate(instants) if len(instants) else instants
    return int(np.searchsorted(ascending, (end - EPOCH) // timedelta(microseconds=1)))


def _batches(pages: Iterator[Page], paged: Callable[[], None]) -> Iterator[list[Page]]:
    batch: list[Page] = []
    try:
        for page in pages:
            paged()
            batch.append(page)
            if len(batch) == _PAGES_PER_BATCH:
                yield batch
                batch = []
    except CohortlakeError:
        if batch:  # what had come before may complete some days
            yield batch
        raise
    if batch:
        yield batch


def _states(batch: list[Page], first_page: int, datastore_id: str) -> pa.Table:
    states = flatten_pages([page.body for page in batch], datastore_id)
    numbers = [first_page + i for i, page in enumerate(batch) for _ in page.heads]
    states = states.append_column("page", pa.array(numbers, pa.int32()))
    if any(page.skip for page in batch):
        new = [head.image_set_id not in page.skip for page in batch for head in page.heads]
        states = states.filter(pa.array(new))
    return states
