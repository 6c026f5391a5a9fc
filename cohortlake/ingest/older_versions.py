"""Versions that no search saw: which are missing, and the increments that bring them.

A search shows the newest version of an image set, so one that was superseded between two ticks
was never seen. The service still has it. What it says of an older version is an observation made
now: the time line puts it where it belongs (`history.timeline`), and it never was what was known.

What the service does not give is written down too, so that nothing is asked for twice.
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
    Datastore,
    HealthImaging,
    Meter,
    NotMetadata,
    Version,
)
from cohortlake.history import image_sets
from cohortlake.increments import kinds, writer
from cohortlake.increments.record import Record
from cohortlake.increments.writer import IncrementWriter
from cohortlake.ingest.extract import Extractor
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_PARTITION = "versions"
_CALLS_AT_ONCE = 8  # the buckets pace them
_IMAGE_SETS_AT_ONCE = 200  # what a run that is killed may have to ask for again

# Final: the answer will be the same at any later time.
_REASONS: dict[type[ServiceError], str] = {
    NoSuchDatastore: "not found",  # ResourceNotFoundException does not say what of it
    RequestRefused: "refused",
    NotMetadata: "no metadata document",
}
# Not final, and no reason to give up the other image sets.
_LATER = (BrokenAnswer, ImageSetBusy, TokenRefused)


@dataclass(frozen=True)
class Filled:
    """What asking for older versions brought.

    Attributes:
        image_sets: Image sets asked for.
        documents: Metadata documents read.
        archived: Image sets of which one was read although they were in the archive tier when
            the lake first saw their newest version. Reading moves them to the frequent tier.
        versions: Versions that the lake gained.
        unavailable: Versions that the service does not give; they are not asked for again.
        postponed: Image sets that could not be read whole; the next time asks for the rest.
        requests: Requests sent, retries included.
        throttles: Requests the service threw back.
    """

    image_sets: int = 0
    documents: int = 0
    archived: int = 0
    versions: int = 0
    unavailable: int = 0
    postponed: int = 0
    requests: int = 0
    throttles: int = 0

    def __add__(self, other: Filled) -> Filled:
        return Filled(*(a + b for a, b in zip(_counts(self), _counts(other), strict=True)))


def _counts(filled: Filled) -> tuple[int, ...]:
    return tuple(vars(filled).values())


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
    """Return the image sets of which versions are missing that were not asked for yet.

    Those that are gone are left out. Of one that came back only versions after its return count:
    in which of its lives an older one was, no call tells.

    Args:
        root: The lake.
        datastore_id: The data store.

    Returns:
        One row for each, with the columns of `Gap`: there may be a million.
    """
    with engine.connection() as con:
        image_sets.register(con, root)
        unread = root.files(f"increments/{datastore_id}/{kinds.UNREAD_AXIS}", ".parquet")
        engine.register(con, "unread", root, unread, kinds.UNREAD_SCHEMA)
        return con.sql(_GAPS, params={"id": datastore_id}).to_arrow_table()


_GAPS = """
WITH jumped AS (
    SELECT DISTINCT image_set_id FROM current WHERE datastore_id = $id AND version > 1
), asked AS (
    SELECT image_set_id, max(below_version) AS below_version FROM unread GROUP BY image_set_id
), gone AS (
    SELECT image_set_id, max(observed_at) AS gone_at FROM closures
    WHERE datastore_id = $id AND change = 'deleted' GROUP BY image_set_id
), spans AS (
    SELECT image_set_id, list(DISTINCT version) AS seen, max(version) AS newest,
           greatest(max(below_version), CASE WHEN max(gone_at) IS NULL THEN 1 ELSE min(version) END
           ) AS lowest,
           coalesce(arg_max(storage_tier, version) = 'ARCHIVE_INSTANT_ACCESS', false) AS is_archived
    FROM versions SEMI JOIN jumped USING (image_set_id)
    LEFT JOIN asked USING (image_set_id) LEFT JOIN gone USING (image_set_id)
    WHERE datastore_id = $id AND version IS NOT NULL AND (gone_at IS NULL OR observed_at > gone_at)
    GROUP BY image_set_id
)
SELECT image_set_id, lowest, newest, seen, is_archived FROM spans
WHERE newest - lowest > len(list_filter(seen, lambda v: v >= lowest AND v < newest))
ORDER BY image_set_id
"""


def fill(run: Extractor, store: Datastore) -> Iterator[Filled]:
    """Ask for the versions that are missing, and yield what came as it lands.

    Args:
        run: The client, and where to write.
        store: The data store. What is read counts as seen at its `now`: it was there by then.

    Raises:
        AccessDenied: A right is missing; the message names it. What landed stays.
        ServiceError: The service kept failing. What landed stays.
        RootNotUsable: An increment could not be written.
    """
    missing = gaps(run.root, store.datastore_id)
    for number, start in enumerate(range(0, len(missing), _IMAGE_SETS_AT_ONCE)):
        # A file is named by its run and where its window starts, and all these start alike.
        part = replace(run, run_id=f"{run.run_id}-{number:04}")
        rows = missing.slice(start, _IMAGE_SETS_AT_ONCE).to_pylist()
        yield _filled(part, store, [Gap(**row) for row in rows])


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
        """How many versions are not to be had."""
        return 0 if self.is_postponed else self.gap.size - len(self.summaries)

    def counts(self) -> Filled:
        """Return it counted."""
        return Filled(
            image_sets=1,
            documents=self.documents,
            archived=int(self.gap.is_archived and self.documents > 0),
            versions=len(self.summaries),
            unavailable=self.unavailable,
            postponed=int(self.is_postponed),
            requests=self.meter.requests,
            throttles=self.meter.throttles,
        )


def _filled(run: Extractor, store: Datastore, missing: Sequence[Gap]) -> Filled:
    began = monotonic()
    readings: list[_Reading] = []
    read = partial(_read, run.service, store.datastore_id)
    try:
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            for reading in pool.map(read, missing):
                readings.append(reading)
    except (ServiceError, Stopped):
        _land(run, store, readings, monotonic() - began)
        raise
    return _land(run, store, readings, monotonic() - began)


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
    """Return why a version is not worth a call, or None where it is."""
    if version.is_deleted:
        return "deleted"
    # Without an instant it has no place among the others.
    return None if version.updated_at else "without updatedAt"


def _read_version(
    service: HealthImaging, datastore_id: str, version: Version, reading: _Reading
) -> str | None:
    """Read a version; return why that is impossible, or None."""
    try:
        tags = service.tags_of(datastore_id, version.image_set_id, version.number, reading.meter)
    except tuple(_REASONS) as error:
        reading.documents += isinstance(error, NotMetadata)
        return _REASONS[type(error)]
    reading.documents += 1
    reading.summaries.append(version.summary(tags))
    return None


def _land(run: Extractor, store: Datastore, readings: Sequence[_Reading], seconds: float) -> Filled:
    states = _not_erased(run, store, readings)
    counts = sum((reading.counts() for reading in readings), Filled())
    record = Record(
        datastore_id=store.datastore_id,
        axis=kinds.VERSIONS_AXIS,
        partition=_PARTITION,
        start=EPOCH,
        end=store.now,
        searched_at=store.now,
        run_id=run.run_id,
    )
    if len(states):
        increment = IncrementWriter(run.root, record)
        increment.add(states.append_column("page", pa.nulls(len(states), pa.int32())))
        increment.commit(
            increment.summary(
                end=store.now,
                pages=0,
                requests=counts.requests,
                throttles=counts.throttles,
                seconds=seconds,
            )
        )
    # After the versions: of a run that dies in between nothing counts as asked for.
    unread = [_unread(store, reading) for reading in readings if reading.unavailable]
    if unread:
        about = replace(record, axis=kinds.UNREAD_AXIS, rows=len(unread), kept_rows=len(unread))
        rows = pa.Table.from_pylist(unread, kinds.UNREAD_WITHOUT_RUN)
        writer.write_table(run.root, about, kinds.with_run_columns(rows, about))
    return counts


def _not_erased(run: Extractor, store: Datastore, readings: Sequence[_Reading]) -> pa.Table:
    """Return the states that were read; those of erased patients count as not to be had."""
    read = [(reading, summary) for reading in readings for summary in reading.summaries]
    states = flatten_summaries([summary for _, summary in read], store.datastore_id)
    is_erased = run.erased.among(states)
    for (reading, summary), erased in zip(read, is_erased.to_pylist(), strict=True):
        if erased:
            reading.summaries.remove(summary)
            reading.why[str(summary["version"])] = "erased"
    return states.filter(pc.invert(is_erased))


def _unread(store: Datastore, reading: _Reading) -> dict[str, Any]:
    return {
        "datastore_id": store.datastore_id,
        "image_set_id": reading.gap.image_set_id,
        "below_version": reading.gap.newest,
        "why": json.dumps(reading.why),
    }
