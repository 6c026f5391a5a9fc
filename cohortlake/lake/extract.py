"""One search window becomes one increment.

Pages are flattened in batches as they arrive and streamed to the file, so memory does not
grow with the window. A tick that finds nothing new writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import Datastore, HealthImaging, Meter, Page, Window, search_window
from cohortlake.lake import image_sets
from cohortlake.lake.increments import Increment, Record
from cohortlake.lake.root import Root

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


@dataclass(frozen=True)
class Found:
    """What a search brought.

    Attributes:
        record: Its record, or None where nothing was written.
        image_set_ids: The ids found, where asked for.
        rows: Rows found.
        requests: Requests sent.
        throttles: Requests thrown back.
    """

    record: Record | None
    image_set_ids: frozenset[str]
    rows: int
    requests: int
    throttles: int


def extract(
    root: Root,
    service: HealthImaging,
    search: Search,
    run_id: str,
    *,
    must_record: bool,
    collect_ids: bool = False,
) -> Found:
    """Search a window to its last token, and keep what is new in an increment.

    Args:
        root: The lake.
        service: The client.
        search: What to search.
        run_id: The run's id, which names the file.
        must_record: Whether to write an increment without rows where nothing is new: a
            window that closes must be on the ledger.
        collect_ids: Whether to return the ids found; a sweep compares them.

    Raises:
        ServiceError: The search did not reach its end; nothing was written.
        RootNotUsable: The increment could not be written.
    """
    began = time.monotonic()
    meter, ids, pages = Meter(), set[str](), 0
    with Increment(root, search.record(run_id)) as increment:
        found = search_window(service, search.store.datastore_id, search.window, meter)
        for batch in _batches(found):
            states = _states(batch, pages, search)
            pages += len(batch)
            increment.add(states)
            if collect_ids:
                ids.update(states["image_set_id"].to_pylist())
        keys = increment.state_keys()
        news = image_sets.has_news(root, keys)
        record = None
        if news or must_record:
            seconds = time.monotonic() - began
            record = increment.finish(keep_rows=news, pages=pages, meter=meter, seconds=seconds)
    return Found(record, frozenset(ids), len(keys), meter.requests, meter.throttles)


def closes(search: Search, settle: timedelta) -> bool:
    """Return whether a search proves its day to the end, so that it need not be due again."""
    midnight = search.window.end.replace(hour=0, minute=0, second=0, microsecond=0)
    return search.window.end == midnight and search.store.now - settle >= search.window.end


def _batches(pages: Iterator[Page]) -> Iterator[list[Page]]:
    batch: list[Page] = []
    for page in pages:
        batch.append(page)
        if len(batch) == _PAGES_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _states(batch: list[Page], first_page: int, search: Search) -> pa.Table:
    states = flatten_pages([page.body for page in batch], search.store.datastore_id)
    numbers = [first_page + i for i, page in enumerate(batch) for _ in page.heads]
    states = states.append_column("page", pa.array(numbers, pa.int32()))
    keep = search.keep(states) if search.keep else search.window.mask(states)
    skip = {(first_page + i, known) for i, page in enumerate(batch) for known in page.skip}
    if skip:
        ids = states["image_set_id"].to_pylist()
        new = pa.array([pair not in skip for pair in zip(numbers, ids, strict=True)])
        keep = pc.and_(keep, new)
    return states.filter(keep)
