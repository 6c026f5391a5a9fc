"""Sweeps: all of a study-date partition is searched, to see which image sets were deleted.

The service stops returning an image set once it is deleted. An image set that the lake holds in a
partition, and that a complete sweep of it did not find, may also have moved to another partition.
So each one is confirmed by a second call before the lake closes it, see `ingest.absences`. A sweep
that fails before its last token proves nothing and closes nothing. Nor does a sweep that misses
so many image sets that somebody should look first.

The sweep of `undated` reads all image sets by creation. It also finds those that moved between
study months while these were swept, and keeps what the lake does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import DeletionsRefused
from cohortlake.failures import Failures
from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window
from cohortlake.increments.writer import write_empty
from cohortlake.ingest import partitions
from cohortlake.ingest.absences import confirm_absences, write_absences
from cohortlake.ingest.extract import search_partitions
from cohortlake.ingest.held_index import HeldIndex
from cohortlake.ingest.partition_search import PartitionSearch, SearchResult, SearchRun
from cohortlake.ingest.progress import Progress
from cohortlake.storage.root import Root

_ALWAYS_ACCEPTED = 10  # deletions, whatever share of the partition they are


@dataclass(frozen=True)
class SweepResult:
    """What the sweep of a partition brought.

    Attributes:
        search: What it found.
        missing: Image sets that the lake holds and the sweep did not find.
        absent: Those of them that are confirmed deleted, and closed.
        refused: Those that are confirmed deleted and not closed, because they are too many.
        unconfirmed: Those that a second search did not find either, and that are not closed,
            because GetImageSet is denied.
    """

    search: SearchResult
    missing: int
    absent: int
    refused: int = 0
    unconfirmed: int = 0


def sweep_partitions(
    run: SearchRun, keys: Iterable[str], largest_share: float, progress: Progress | None = None
) -> Iterator[tuple[str, SweepResult]]:
    """Sweep partitions; yield each with its result once what it misses is confirmed.

    Args:
        run: The client, and where to write.
        keys: Study months (YYYY-MM), and `undated`.
        largest_share: Largest share of a partition that may be closed.
        progress: Gets how far the search has come.

    Raises:
        ServiceError: The search did not reach its end, or an image set could not be confirmed.
        WindowError: A key is not a month.
    """
    wanted = [sweep_of(run.store, key) for key in sorted(keys)]
    held = HeldIndex(run.root, run.store, [search.partition for search in wanted])
    for search, found in search_partitions(run, wanted, progress):
        yield search.partition, close_missing(run, held, search, found, largest_share)


def sweep_datastores(
    datastores: Iterable[str],
    run_of: Callable[[str], SearchRun],
    keys_of: Callable[[Datastore], Iterable[str]],
    largest_share: float,
    progress: Progress | None = None,
) -> Iterator[tuple[str, str, SweepResult]]:
    """Sweep partitions of several data stores; yield data store, partition and result of each.

    Args:
        datastores: The data stores.
        run_of: Begins the run over a data store.
        keys_of: Returns the partitions to sweep of a data store.
        largest_share: Largest share of a partition that may be closed.
        progress: Gets how far the searches have come.

    Raises:
        ServiceError: The search of a data store did not reach its end. What was written stays.
        DeletionsRefused: In some partitions too much was deleted. The others were closed.
        SeveralFailed: Several of these.
    """
    refused: dict[str, dict[str, int]] = {}
    failures = Failures()
    for datastore_id in datastores:
        with failures.of(datastore_id):
            run = run_of(datastore_id)
            for key, swept in sweep_partitions(run, keys_of(run.store), largest_share, progress):
                if swept.refused:
                    refused.setdefault(datastore_id, {})[key] = swept.refused
                yield datastore_id, key, swept
    if refused:
        failures.add(DeletionsRefused(refused))
    failures.raise_all()


def sweep_of(store: Datastore, partition: str) -> PartitionSearch:
    """Return the search that sweeps a study month, or `undated`.

    Raises:
        WindowError: The partition is not a month.
    """
    if partition == schema.UNDATED:
        # No study date finds these, so all image sets are read by creation.
        window = Window(Axis.CREATED_AT, EPOCH, store.now)
        belongs = partial(partitions.in_no_month, store)
        return PartitionSearch(partition, window, belongs, is_sweep=True)
    return PartitionSearch(partition, partitions.month_window(partition), is_sweep=True)


def close_missing(
    run: SearchRun,
    held: HeldIndex,
    search: PartitionSearch,
    found: SearchResult,
    largest_share: float,
) -> SweepResult:
    """Close the image sets of a partition that a complete sweep did not find.

    Args:
        run: The client, and where to write.
        held: The image sets that the lake held before.
        search: The sweep.
        found: All that it found.
        largest_share: Largest share of the partition that may be closed.

    Raises:
        ServiceError: An image set could not be confirmed.
    """
    rows = held.in_partition(search.partition)
    is_missing = [i not in found.image_set_ids for i in rows["image_set_id"].to_pylist()]
    missing = rows.filter(pa.array(is_missing, pa.bool_())).to_pylist()
    confirmation = confirm_absences(run, missing)
    gone, unconfirmed = confirmation.gone, len(confirmation.unconfirmed)
    refused = len(gone) if len(gone) > max(_ALWAYS_ACCEPTED, largest_share * len(rows)) else 0
    left_open = refused + unconfirmed
    write_absences(run, search, missing, {} if refused else gone, left_open)
    found = _recorded(run.root, found, left_open)
    return SweepResult(found, len(missing), len(gone) - refused, refused, unconfirmed)


def _recorded(root: Root, found: SearchResult, left_open: int) -> SearchResult:
    """Record a sweep that found nothing new, after it was compared with what the lake holds."""
    if found.is_written:
        return found
    records = tuple(replace(record, missing=left_open) for record in found.records)
    for record in records:
        write_empty(root, record)
    return replace(found, records=records, is_written=True)
