"""The state of a lake: complete up to when, and what is published. Read without the service."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.admin.reconciliation_check import Reconciliation, reconciliation_check
from cohortlake.healthimaging import EPOCH
from cohortlake.history import coverage, image_sets
from cohortlake.history.coverage import CoverageInterval
from cohortlake.privacy import erasures
from cohortlake.publish.publication.marker import read_marker
from cohortlake.schema import PUBLISHED
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class DatastoreStatus:
    """How complete one data store is.

    Attributes:
        datastore_id: Its id.
        complete_until: Nothing is missing before this instant; the epoch if nothing is proven.
        gaps: Intervals that were not searched although later ones were.
        stopped_at: Where the last search stopped before its end; None if it reached its end.
        last_search_at: When the last recorded search began.
        last_sweep_at: When the last sweep by study date began.
        windows: Number of recorded searches.
    """

    datastore_id: str
    complete_until: datetime
    gaps: tuple[CoverageInterval, ...]
    stopped_at: datetime | None
    last_search_at: datetime | None
    last_sweep_at: datetime | None
    windows: int

    def reaches(self, instant: datetime | None) -> bool:
        """Return whether coverage has no gap, and reaches an instant if one is given."""
        is_whole = self.windows > 0 and not self.gaps and self.stopped_at is None
        return is_whole and (instant is None or self.complete_until >= instant)


@dataclass(frozen=True)
class Status:
    """The state of a lake.

    Attributes:
        datastores: One for each data store.
        pending: Number of increments that are not applied yet.
        image_sets_version: Version of the version history, or None where there is none.
        published_version: The version `published/` shows, or None.
        policy: The policy of `published/`, or None.
        rows: Published table -> rows.
        agreement: How the version history compares with the last sweeps.
        erasures: Number of patients who were erased.
        erasures_under_way: Number of those whose erasure did not reach its end. Repeat the command.
    """

    datastores: tuple[DatastoreStatus, ...]
    pending: int
    image_sets_version: int | None
    published_version: int | None
    policy: str | None
    rows: dict[str, int]
    agreement: Reconciliation
    erasures: int
    erasures_under_way: int


def status(root: Root, datastore_ids: tuple[str, ...], settle: timedelta) -> Status:
    """Read the state of a lake.

    Args:
        root: The lake.
        datastore_ids: Ids; by default those in the coverage.
        settle: How long the search index may lag.
    """
    marker, erased = read_marker(root), erasures.read(root)
    return Status(
        datastores=datastores(root, datastore_ids, settle),
        pending=len(coverage.pending(root)),
        image_sets_version=image_sets.version(root),
        published_version=marker.image_sets_version if marker else None,
        policy=marker.policy if marker else None,
        rows={table: marker.rows(table) if marker else 0 for table in PUBLISHED},
        agreement=reconciliation_check(root),
        erasures=len(erased),
        erasures_under_way=sum(erasure.erased_at is None for erasure in erased),
    )


def datastores(
    root: Root, datastore_ids: tuple[str, ...], settle: timedelta
) -> tuple[DatastoreStatus, ...]:
    """Read from the coverage how complete each data store is. See `status` for the arguments."""
    searched = coverage.read(root, [*coverage.INTERVAL_COLUMNS, "partition"])
    ids = datastore_ids or tuple(sorted(searched["datastore_id"].unique().to_pylist()))
    return tuple(_datastore(searched, datastore_id, settle) for datastore_id in ids)


def _datastore(searched: pa.Table, datastore_id: str, settle: timedelta) -> DatastoreStatus:
    own = searched.filter(pc.equal(searched["datastore_id"], datastore_id))
    proven = coverage.covered_intervals(own, datastore_id, settle)
    until = coverage.complete_until(proven)
    origin = CoverageInterval(EPOCH, EPOCH)
    gaps = tuple(
        CoverageInterval(before.end, after.start)
        for before, after in itertools.pairwise([origin, *proven])
        if before.end < after.start
    )
    by_axis = {
        axis: pc.max(own.filter(pc.equal(own["axis"], axis))["searched_at"]).as_py()
        for axis in ("updated_at", "study_date")
    }
    return DatastoreStatus(
        datastore_id,
        until,
        gaps,
        coverage.stopped_at(own, proven, settle),
        by_axis["updated_at"],
        by_axis["study_date"],
        len(own),
    )
