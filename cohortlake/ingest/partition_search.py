"""What a run searches, partition by partition, and what each search brings."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from cohortlake.healthimaging import Datastore, HealthImaging, Window
from cohortlake.increments.record import Record
from cohortlake.increments.writer import write_empty
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.stop import Stop
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class SearchRun:
    """One run over one data store: what all its searches share.

    Attributes:
        root: The lake.
        service: The client.
        store: The data store, with the instant at which the run began.
        erased: Shows which rows belong to erased patients. They are dropped before writing.
        run_id: Id of the run, part of the file names.
        settle: How long the search index may lag.
        workers: Requests in flight at once.
        stop: Ends the searches early.
        trusts_search: Whether two searches without an image set prove it deleted, where
            GetImageSet is denied.
    """

    root: Root
    service: HealthImaging
    store: Datastore
    erased: ErasedPatients
    run_id: str
    settle: timedelta
    workers: int = 1
    stop: Stop | None = None
    trusts_search: bool = False


@dataclass(frozen=True)
class PartitionSearch:
    """A window to search for one partition.

    Attributes:
        partition: The UTC day or the study month.
        window: What to search.
        belongs: Returns which rows of a sweep's window belong to the partition; by default all.
            Of the other rows, the sweep keeps those that the lake does not know.
        is_sweep: Whether the result is compared with what the lake holds. Then the ids are kept,
            and the record is written after the comparison.
    """

    partition: str
    window: Window
    belongs: Callable[[pa.Table], pa.Array] | None = None
    is_sweep: bool = False

    def record(self, run: SearchRun) -> Record:
        """Return the record of this search, without counts."""
        return Record(
            datastore_id=run.store.datastore_id,
            axis=self.window.axis.value,
            partition=self.partition,
            start=self.window.start,
            end=self.window.end,
            searched_at=run.store.now,
            run_id=run.run_id,
        )

    def must_record(self, run: SearchRun) -> bool:
        """Return whether the search is recorded even if it finds nothing new.

        A closed window is: otherwise it would stay due. A sweep is recorded after the comparison,
        see `ingest.sweep`.
        """
        return not self.is_sweep and self.window.end <= run.store.now - run.settle


@dataclass(frozen=True)
class SearchResult:
    """What the search of a partition brought.

    Attributes:
        records: One record for each part of the search.
        is_written: Whether the records are in the lake. A search without new rows may write none.
        image_set_ids: The ids that a sweep found; empty for other searches.
    """

    records: tuple[Record, ...] = ()
    is_written: bool = False
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
        """Requests that the service throttled."""
        return sum(record.throttles for record in self.records)


def merge_results(root: Root, parts: Sequence[SearchResult]) -> SearchResult:
    """Merge the results of a partition's parts, once all of them are written.

    If any part has new rows, record the empty parts too, so that coverage has no gap.
    """
    records = tuple(record for part in parts for record in part.records)
    is_written = any(part.is_written for part in parts)
    for part in parts:
        if is_written and not part.is_written:
            for record in part.records:
                write_empty(root, record)
    ids = frozenset[str]().union(*(part.image_set_ids for part in parts))
    return SearchResult(records, is_written, ids)


def new_run_id(now: datetime) -> str:
    """Return a unique id that sorts by time."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
