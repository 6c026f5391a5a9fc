"""Extract: search partitions, and write what comes as increments.

Pages of all workers arrive in one stream. They are flattened together, some megabytes at a time,
so memory grows neither with the window nor with the number of workers. A partition is yielded when
all of its window is written. See `ingest.writer` for how rows are assigned to increments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta

from cohortlake.errors import ServiceError, Stopped
from cohortlake.healthimaging import Arrival, Window, WindowSearch
from cohortlake.increments.record import Record
from cohortlake.ingest.due import merge_adjacent, without_overlap
from cohortlake.ingest.partition_search import (
    PartitionSearch,
    SearchResult,
    SearchRun,
    merge_results,
)
from cohortlake.ingest.progress import Progress
from cohortlake.ingest.writer import SearchWriter

# A page has 40 KB. Decoding sixty pages at once takes a third of the time of sixty single pages.
_BATCH_BYTES = 2_500_000


def search_days(
    run: SearchRun, windows: Mapping[str, Sequence[Window]], progress: Progress | None = None
) -> Iterator[tuple[str, SearchResult]]:
    """Search days; yield each day with its result as soon as all of it is written.

    Args:
        run: The client, and where to write.
        windows: Day -> windows. A day without windows has an empty result.
        progress: Gets how far the search has come.

    Raises:
        ServiceError: The search did not reach its end. What was written stays.
    """
    for day, own in windows.items():
        if not own:
            yield day, SearchResult()
    wanted = [PartitionSearch(day, window) for day, window in without_overlap(windows)]
    for search, result in search_partitions(run, wanted, progress):
        yield search.partition, result


def search_partitions(
    run: SearchRun, wanted: Sequence[PartitionSearch], progress: Progress | None = None
) -> Iterator[tuple[PartitionSearch, SearchResult]]:
    """Search partitions; yield each with its result as soon as all of it is written.

    Args:
        run: The client, and where to write.
        wanted: The searches, in the order of their windows. Adjacent windows are searched as one,
            so days that share a page cost one request.
        progress: Gets how far the search has come.

    Raises:
        ServiceError: The search did not reach its end. What was written stays.
        Stopped: Somebody asked to end. What had come is written.
        RootNotUsable: An increment could not be written.
    """
    if not wanted:
        return
    windows = merge_adjacent(search.window for search in wanted)
    pages = WindowSearch(run.service, run.store, windows, run.workers, run.stop)
    missing: Counter[str] = Counter()  # microseconds of the partition that are not written yet
    for search in wanted:
        missing[search.partition] += _length(search.window)
    parts: dict[str, list[SearchResult]] = defaultdict(list)
    with (progress or Progress()).watching(pages):
        for search, part in _written_parts(run, pages, wanted):
            key = search.partition
            parts[key].append(part)
            missing[key] -= sum(_length(record) for record in part.records)
            if not missing[key]:
                yield search, merge_results(run.root, parts.pop(key))


def _written_parts(
    run: SearchRun, pages: WindowSearch, wanted: Sequence[PartitionSearch]
) -> Iterator[tuple[PartitionSearch, SearchResult]]:
    """Write what a search brings; yield each part of a partition when it is written."""
    with closing(SearchWriter(run, wanted)) as writer, closing(pages.arrivals()) as arrivals:
        try:
            for batch in _batches(arrivals):
                yield from writer.write(batch)
        except BaseException as error:
            if _leaves_rows_usable(error):
                yield from writer.flush_partial()
            raise


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
        if batch and _leaves_rows_usable(error):
            yield batch
        raise
    if batch:
        yield batch


def _leaves_rows_usable(error: BaseException) -> bool:
    """Return whether an error ended the search early, but says nothing against its rows.

    Interrupts are not an `Exception`: KeyboardInterrupt, and the interrupt of Dagster.
    """
    if isinstance(error, Exception):
        return isinstance(error, (ServiceError, Stopped))
    return not isinstance(error, GeneratorExit)


def _length(interval: Window | Record) -> int:
    return (interval.end - interval.start) // timedelta(microseconds=1)
