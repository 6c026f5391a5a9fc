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

from cohortlake import schema
from cohortlake.errors import CohortlakeError
from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import (
    EPOCH,
    Datastore,
    HealthImaging,
    Meter,
    Page,
    Window,
    search_window,
)
from cohortlake.lake.image_sets import Known
from cohortlake.lake.increments import Increment, Record
from cohortlake.lake.root import Root

_DAY = timedelta(days=1)
_NO_ROWS = schema.arrow_schema(schema.FOUND[:-2]).empty_table()
_PAGES_PER_BATCH = 160

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

    def closes(self, settle: timedelta) -> bool:
        """Return whether it proves its day to the end, so that the day is not due again."""
        day_end = datetime.combine(date.fromisoformat(self.partition), time(), UTC) + _DAY
        return self.window.end == day_end and self.store.now - settle >= day_end


@dataclass(frozen=True)
class Found:
    """What a search brought.

    Attributes:
        record: Its record, or None where nothing was written.
        rows: Rows found.
        requests: Requests sent.
        throttles: Requests thrown back.
        image_set_ids: The ids found, where a sweep asked for them.
    """

    record: Record | None
    rows: int
    requests: int
    throttles: int
    image_set_ids: frozenset[str] = frozenset()


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
        ids = set[str]()
        with _Part(self, search, _Account()) as part:
            for states in self._pages(search, part.account):
                keep = search.keep(states) if search.keep else search.window.mask(states)
                kept = states.filter(keep)
                part.add(kept)
                ids.update(kept["image_set_id"].to_pylist())
            return replace(part.finish(must_record=True), image_set_ids=frozenset(ids))

    def days(self, searches: Sequence[Search], settle: timedelta) -> Generator[tuple[str, Found]]:
        """Search days that follow one another in one go, and yield each as it lands.

        The service gives rows in ascending order, so a day is complete as soon as a row of
        a later one has come; days that share pages cost one request, not one each.

        Args:
            searches: The days, each window's end the next one's start.
            settle: How long the search index may lag.

        Raises:
            ServiceError: The search did not reach its end. Days that landed stay.
            RootNotUsable: An increment could not be written.
        """
        account = _Account()
        stretch = replace(searches[0].window, end=searches[-1].window.end)
        pages = self._pages(replace(searches[0], window=stretch), account)
        rest = _NO_ROWS
        for search in searches:
            with _Part(self, search, account) as part:
                while True:
                    own = _rows_before(rest, search.window.end)
                    part.add(rest[:own])
                    rest = rest[own:]
                    if len(rest) or (more := next(pages, None)) is None:
                        break
                    rest = more.filter(stretch.mask(more))
                yield search.partition, part.finish(must_record=search.closes(settle))

    def _pages(self, search: Search, account: _Account) -> Iterator[pa.Table]:
        """Yield the rows of a search, some pages at a time, with the column `page`."""
        datastore_id = search.store.datastore_id
        found = search_window(self.service, datastore_id, search.window, account.meter)
        for batch in _batches(found):
            yield _states(batch, account.pages, datastore_id)
            account.pages += len(batch)


class _Account:
    """What a search has sent and read so far."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.pages = 0
        self.began = monotonic()


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

    def finish(self, *, must_record: bool) -> Found:
        """Write the increment if there is news or a record is due."""
        account = self.account
        now = (account.pages, account.meter.requests, account.meter.throttles)
        pages, requests, throttles = (b - a for a, b in zip(self._before, now, strict=True))
        keys = self._increment.state_keys()
        news = self._run.known.lacks(keys)
        record = None
        if news or must_record:
            record = self._increment.finish(
                keep_rows=news,
                pages=pages,
                requests=requests,
                throttles=throttles,
                seconds=monotonic() - self._began,
            )
        return Found(record, len(keys), requests, throttles)

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


def _batches(pages: Iterator[Page]) -> Iterator[list[Page]]:
    batch: list[Page] = []
    try:
        for page in pages:
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
