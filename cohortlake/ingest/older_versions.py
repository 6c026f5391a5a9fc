"""Versions that no search saw: find which are missing, and read them from the service.

A search returns the newest version of an image set. A version that was superseded between two
ticks was never seen, but the service still has it. Reading it is an observation made now.
See `history.timeline` for its place among the other versions.

Versions that the service does not give are recorded too, so that nothing is asked for twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import (
    ImageSetBusy,
    NoSuchDatastore,
    RequestRefused,
    ServiceError,
    Stopped,
    TokenRefused,
)
from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import (
    EPOCH,
    BrokenAnswer,
    HealthImaging,
    Meter,
    NotMetadata,
    Version,
    summary_tags,
)
from cohortlake.history import image_sets
from cohortlake.increments import files, kinds, writer
from cohortlake.increments.record import Record
from cohortlake.increments.writer import IncrementWriter
from cohortlake.ingest.partition_search import SearchRun
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_PARTITION = "versions"
_CALLS_AT_ONCE = 8  # the client limits the request rate
_IMAGE_SETS_AT_ONCE = 200  # at most these are asked for again after a kill

# Final: a later call would get the same answer.
_REASONS: dict[type[ServiceError], str] = {
    NoSuchDatastore: "not found",  # ResourceNotFoundException does not say what was not found
    RequestRefused: "refused",
    NotMetadata: "no metadata document",
}
# Not final. The other image sets are read anyway.
_LATER = (BrokenAnswer, ImageSetBusy, TokenRefused)


@dataclass(frozen=True)
class VersionsResult:
    """What reading older versions brought.

    Attributes:
        image_sets: Image sets asked for.
        documents: Metadata documents read.
        archived: Image sets that were in the archive tier when the lake first saw their newest
            version, and of which a version was read. Reading moves them to the frequent tier.
        versions: Versions that are new in the lake.
        unavailable: Versions that the service does not give. They are not asked for again.
        postponed: Image sets that could not be read completely. The next run reads the rest.
        requests: Requests sent, retries included.
        throttles: Requests that the service throttled.
    """

    image_sets: int = 0
    documents: int = 0
    archived: int = 0
    versions: int = 0
    unavailable: int = 0
    postponed: int = 0
    requests: int = 0
    throttles: int = 0

    def __add__(self, other: VersionsResult) -> VersionsResult:
        return VersionsResult(*(a + b for a, b in zip(_counts(self), _counts(other), strict=True)))


def _counts(result: VersionsResult) -> tuple[int, ...]:
    return tuple(vars(result).values())


@dataclass(frozen=True)
class Gap:
    """An image set with versions that no search saw.

    Attributes:
        image_set_id: The image set.
        lowest: The first version that may be missing.
        newest: The greatest version seen.
        seen: The versions seen, in any order.
        is_archived: Whether it was in the archive tier when its newest version was first seen.
    """

    image_set_id: str
    lowest: int
    newest: int
    seen: Sequence[int]
    is_archived: bool

    def lacks(self, version: int) -> bool:
        """Return whether a version is missing."""
        return self.lowest <= version < self.newest and version not in self.seen

    @property
    def size(self) -> int:
        """How many versions are missing."""
        seen = sum(self.lowest <= version < self.newest for version in self.seen)
        return self.newest - self.lowest - seen


def gaps(root: Root, datastore_id: str) -> pa.Table:
    """Return the image sets with missing versions that were not asked for yet.

    Deleted image sets are left out. Of an image set that came back, only versions after its
    return count: no call shows to which presence interval an older version belongs.

    Args:
        root: The lake.
        datastore_id: The data store.

    Returns:
        One row for each, with the columns of `Gap`: there may be a million.
    """
    with engine.connection() as con:
        image_sets.register(con, root)
        listed = root.files(f"increments/{datastore_id}/{kinds.UNREAD_AXIS}", ".parquet")
        unread = files.without_copied(root, listed)
        engine.register(con, "unread", root, unread, kinds.UNREAD_SCHEMA)
        return con.sql(_GAPS, params={"id": datastore_id}).to_arrow_table()


_GAPS = f"""
WITH jumped AS (
    SELECT DISTINCT image_set_id FROM current WHERE datastore_id = $id AND version > 1
), asked AS (
    SELECT image_set_id, max(below_version) AS below_version FROM unread GROUP BY image_set_id
), gone AS (
    SELECT image_set_id, max(observed_at) AS gone_at FROM end_events
    WHERE datastore_id = $id AND change = 'deleted' GROUP BY image_set_id
), spans AS (
    SELECT image_set_id, list(DISTINCT version) AS seen, max(version) AS newest,
           greatest(max(below_version), CASE WHEN max(gone_at) IS NULL THEN 1 ELSE min(version) END
           ) AS lowest,
           coalesce(arg_max(storage_tier, version) = '{schema.ARCHIVE}', false) AS is_archived
    FROM versions SEMI JOIN jumped USING (image_set_id)
    LEFT JOIN asked USING (image_set_id) LEFT JOIN gone USING (image_set_id)
    WHERE datastore_id = $id AND version IS NOT NULL AND (gone_at IS NULL OR observed_at > gone_at)
    GROUP BY image_set_id
)
SELECT image_set_id, lowest, newest, seen, is_archived FROM spans
WHERE newest - lowest > len(list_filter(seen, lambda v: v >= lowest AND v < newest))
ORDER BY image_set_id
"""


def fill(run: SearchRun) -> Iterator[VersionsResult]:
    """Read the missing versions; yield what came each time some of it is written.

    Args:
        run: The client, and where to write. What is read counts as seen when the run began.

    Raises:
        AccessDenied: A right is missing. The message names it. What was written stays.
        ServiceError: The service kept failing. What was written stays.
        RootNotUsable: An increment could not be written.
    """
    missing = gaps(run.root, run.store.datastore_id)
    for number, start in enumerate(range(0, len(missing), _IMAGE_SETS_AT_ONCE)):
        # The run id tells the files apart, because all these windows have the same start.
        part = replace(run, run_id=f"{run.run_id}-{number:04}")
        rows = missing.slice(start, _IMAGE_SETS_AT_ONCE).to_pylist()
        yield _read_all(part, [Gap(**row) for row in rows])


@dataclass
class _Reading:
    """What became of one image set."""

    gap: Gap
    meter: Meter = field(default_factory=Meter)
    documents: int = 0
    summaries: list[dict[str, Any]] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    is_postponed: bool = False

    @property
    def unavailable(self) -> int:
        """How many versions the service does not give."""
        return 0 if self.is_postponed else self.gap.size - len(self.summaries)

    def counts(self) -> VersionsResult:
        """Return its counts."""
        return VersionsResult(
            image_sets=1,
            documents=self.documents,
            archived=int(self.gap.is_archived and self.documents > 0),
            versions=len(self.summaries),
            unavailable=self.unavailable,
            postponed=int(self.is_postponed),
            requests=self.meter.requests,
            throttles=self.meter.throttles,
        )


def _read_all(run: SearchRun, missing: Sequence[Gap]) -> VersionsResult:
    began = monotonic()
    readings: list[_Reading] = []
    read = partial(_read, run.service, run.store.datastore_id)
    try:
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            for reading in pool.map(read, missing):
                readings.append(reading)
    except (ServiceError, Stopped):
        _write(run, readings, monotonic() - began)
        raise
    return _write(run, readings, monotonic() - began)


def _read(service: HealthImaging, datastore_id: str, gap: Gap) -> _Reading:
    reading = _Reading(gap)
    try:
        _read_listed(service, datastore_id, reading)
    except _LATER:
        reading.is_postponed = True
    return reading


def _read_listed(service: HealthImaging, datastore_id: str, reading: _Reading) -> None:
    gap = reading.gap
    try:
        listed = service.versions(datastore_id, gap.image_set_id, reading.meter)
    except tuple(_REASONS) as error:
        reading.why["list"] = _REASONS[type(error)]
        return
    for version in listed:
        if gap.lacks(version.number):
            why = _why_not(version) or _read_version(service, datastore_id, version, reading)
            if why:
                reading.why[str(version.number)] = why


def _why_not(version: Version) -> str | None:
    """Return why a version is not read, or None where it is."""
    if version.is_deleted:
        return "deleted"
    # Without an instant it has no place in the version history.
    return None if version.updated_at else "without updatedAt"


def _read_version(
    service: HealthImaging, datastore_id: str, version: Version, reading: _Reading
) -> str | None:
    """Read a version; return why that is impossible, or None."""
    try:
        tags = service.metadata(
            datastore_id, version.image_set_id, version.number, summary_tags, reading.meter
        )
    except tuple(_REASONS) as error:
        reading.documents += isinstance(error, NotMetadata)
        return _REASONS[type(error)]
    reading.documents += 1
    reading.summaries.append(version.summary(tags))
    return None


def _write(run: SearchRun, readings: Sequence[_Reading], seconds: float) -> VersionsResult:
    states = _not_erased(run, readings)
    counts = sum((reading.counts() for reading in readings), VersionsResult())
    record = Record(
        datastore_id=run.store.datastore_id,
        axis=kinds.VERSIONS_AXIS,
        partition=_PARTITION,
        start=EPOCH,
        end=run.store.now,
        searched_at=run.store.now,
        run_id=run.run_id,
    )
    if len(states):
        increment = IncrementWriter(run.root, record)
        increment.add(states.append_column("page", pa.nulls(len(states), pa.int32())))
        increment.commit(
            increment.summary(
                end=run.store.now,
                pages=0,
                requests=counts.requests,
                throttles=counts.throttles,
                seconds=seconds,
            )
        )
    # After the versions: if the run is killed in between, all of them are asked for again.
    unread = [_unread(run, reading) for reading in readings if reading.unavailable]
    if unread:
        about = replace(record, axis=kinds.UNREAD_AXIS, rows=len(unread), kept_rows=len(unread))
        rows = pa.Table.from_pylist(unread, kinds.UNREAD_WITHOUT_RUN)
        writer.write_table(run.root, about, kinds.with_run_columns(rows, about))
    return counts


def _not_erased(run: SearchRun, readings: Sequence[_Reading]) -> pa.Table:
    """Return the states that were read. States of erased patients count as unavailable."""
    read = [(reading, summary) for reading in readings for summary in reading.summaries]
    states = flatten_summaries([summary for _, summary in read], run.store.datastore_id)
    is_erased = run.erased.mask(states)
    for (reading, summary), erased in zip(read, is_erased.to_pylist(), strict=True):
        if erased:
            reading.summaries.remove(summary)
            reading.why[str(summary["version"])] = "erased"
    return states.filter(pc.invert(is_erased))


def _unread(run: SearchRun, reading: _Reading) -> dict[str, Any]:
    return {
        "datastore_id": run.store.datastore_id,
        "image_set_id": reading.gap.image_set_id,
        "below_version": reading.gap.newest,
        "why": json.dumps(reading.why),
    }
