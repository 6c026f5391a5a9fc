"""Fetches the whole headers of image sets: which are due, what that costs, and reading them.

A search gives sixteen tags. The others stand in the metadata document of a version, which costs a
request each. So nothing is fetched that nobody chose, and each version once: it never changes. An
archived image set moves to the frequent tier when its document is read, so it is left alone unless
it is asked for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.bill import Bill
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import (
    ImageSetBusy,
    NoSuchDatastore,
    RequestRefused,
    ServiceError,
    Stopped,
)
from cohortlake.headers import files
from cohortlake.headers.compact import Reader
from cohortlake.healthimaging import BrokenAnswer, Meter, NotMetadata
from cohortlake.healthimaging.client import METADATA_CALLS_AT_ONCE
from cohortlake.history.current_states import CurrentStates, Interval
from cohortlake.ingest.partition_search import SearchRun
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.privacy.guarded_rewrite import Unless, beside_erasures
from cohortlake.storage import engine
from cohortlake.storage.root import Root

ALL_MODALITIES = frozenset(("ALL",))
_GROUP_ROWS = 100_000
_FILE_BYTES = 32 * 1024 * 1024  # of JSON in memory
_FILE_SECONDS = 60.0  # a kill loses no more than this
_SUBMITTED = 4 * METADATA_CALLS_AT_ONCE

_REASONS: dict[type[ServiceError], str] = {
    NoSuchDatastore: "not found",  # ResourceNotFoundException does not say what was not found
    RequestRefused: "refused",
    NotMetadata: "no metadata document",
    BrokenAnswer: "cut",
    ImageSetBusy: "busy",
}
_ARCHIVE = "ARCHIVE_INSTANT_ACCESS"
_BYTES_OF_FRAME = 200  # in memory
_OTHER_IMAGE_SET = "document of another image set"


@dataclass(frozen=True)
class HeaderChoice:
    """Which headers are wanted.

    Attributes:
        modalities: Modalities, in upper case; `ALL_MODALITIES` for all.
        first_month: The first study month, YYYY-MM; empty for no bound. With a bound, image sets
            without a date are left out.
        last_month: The last study month, the same.
        months: The study months; None for no bound.
        image_set_ids: The image sets of a cohort; None for all.
        include_archived: Whether archived image sets are wanted too.
    """

    modalities: frozenset[str] = ALL_MODALITIES
    first_month: str = ""
    last_month: str = ""
    months: frozenset[str] | None = None
    image_set_ids: pa.Array | None = None
    include_archived: bool = False

    def has_month(self, month: str) -> bool:
        """Return whether image sets of a study month are wanted."""
        if self.months is not None and month not in self.months:
            return False
        if month == schema.UNDATED:
            return not (self.first_month or self.last_month)
        return self.first_month <= month <= (self.last_month or month)

    def mask(self, states: pa.Table) -> pa.Array:
        """Return which states are wanted, archived or not."""
        wanted = pa.repeat(pa.scalar(True), len(states))
        if self.modalities != ALL_MODALITIES:
            own = pa.array(sorted(self.modalities), pa.string())
            wanted = pc.and_(wanted, pc.is_in(states["Modality"], value_set=own))
        if self.image_set_ids is not None:
            own = self.image_set_ids
            wanted = pc.and_(wanted, pc.is_in(states["image_set_id"], value_set=own))
        return wanted


@dataclass(frozen=True)
class HeadersEstimate:
    """What fetching headers would cost.

    Attributes:
        wanted: Image sets whose headers are wanted, fetched or not.
        failed: Those of `requests` that were asked for before, and could not be read.
        requests: Headers to fetch, at one request each.
        archived: Archived image sets among those wanted: they would move to the frequent tier, or
            are left alone.
        includes_archived: Whether `requests` includes them.
        tps: Requests per second.
    """

    requests: int
    archived: int
    includes_archived: bool
    tps: float
    wanted: int = 0
    failed: int = 0

    @property
    def hours(self) -> float:
        """How long it takes at the quota."""
        return Bill(self.requests, self.tps).hours

    @property
    def dollars(self) -> float:
        """What the requests cost, in USD."""
        return Bill(self.requests, self.tps).dollars


@dataclass(frozen=True)
class HeadersResult:
    """What fetching headers brought.

    Attributes:
        headers: Headers that were read.
        archived: Image sets of these that were in the archive tier when the lake first saw their
            newest version.
        left_alone: Archived image sets that were not read.
        failed: Reason -> image sets whose header could not be read. The next run asks again.
        erased: Headers of erased patients, which were not kept.
        document_bytes: Size of the documents as sent.
        requests: Requests sent, retries included.
        throttles: Requests that the service throttled.
    """

    headers: int = 0
    archived: int = 0
    left_alone: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    erased: int = 0
    document_bytes: int = 0
    requests: int = 0
    throttles: int = 0

    def __add__(self, other: HeadersResult) -> HeadersResult:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return HeadersResult(*(a + b for a, b in pairs))


@dataclass(frozen=True)
class _Due:
    """Image sets whose headers are due, and counts of some study months.

    Attributes:
        states: The image sets whose headers are due.
        archived: Archived image sets among them.
        left_alone: Archived image sets that are not among them.
        wanted: Image sets whose headers are wanted, fetched or not.
        failed: Image sets that are due because their header could not be read before.
    """

    states: pa.Table
    archived: int
    left_alone: int
    wanted: int
    failed: int


def estimate(
    root: Root, datastores: Iterable[str], choice: HeaderChoice, tps: float
) -> HeadersEstimate:
    """Count what is due, without a request.

    Args:
        root: The lake.
        datastores: The data stores.
        choice: Which headers are wanted.
        tps: Requests per second.
    """
    counts = Counter[str]()
    for datastore_id in datastores:
        for due in _due(root, datastore_id, choice):
            counts["requests"] += len(due.states)
            counts["archived"] += due.archived + due.left_alone
            counts["wanted"] += due.wanted
            counts["failed"] += due.failed
    return HeadersEstimate(
        counts["requests"],
        counts["archived"],
        choice.include_archived,
        tps,
        counts["wanted"],
        counts["failed"],
    )


def fetch(run: SearchRun, choice: HeaderChoice) -> Iterator[HeadersResult]:
    """Read the headers that are due; yield what came each time some of it is written.

    Args:
        run: The client, and where to write. What is read counts as read when the run began.
        choice: Which headers are wanted.

    Raises:
        AccessDenied: A right is missing. The message names it. What was written stays.
        ServiceError: The service kept failing. What had come was written.
        Stopped: Somebody asked to end. What had come was written.
        RootNotUsable: A file could not be written.
    """
    writer = _Writer(run)
    waiting: deque[Future[_Reading]] = deque()
    with ThreadPoolExecutor(METADATA_CALLS_AT_ONCE) as pool:
        try:
            for due in _due(run.root, run.store.datastore_id, choice):
                yield HeadersResult(left_alone=due.left_alone)
                for state in due.states.to_pylist():
                    waiting.append(pool.submit(_read, run, state))
                    if len(waiting) == _SUBMITTED:
                        yield from writer.add(waiting.popleft().result())
            while waiting:
                yield from writer.add(waiting.popleft().result())
        except (ServiceError, Stopped):
            for future in waiting:
                future.cancel()
            writer.write()
            raise
    yield writer.write()


def _due(root: Root, datastore_id: str, choice: HeaderChoice) -> Iterator[_Due]:
    """Yield what is due, some study months at a time."""
    current = CurrentStates(root)
    fetched = files.by_month(root, datastore_id)
    for months in _groups(current.versions_by_month(), choice):
        states = _states(current, datastore_id, months)
        states = states.filter(choice.mask(states))
        wanted = len(states)
        asked = files.read_fetched(root, [p for month in months for p in fetched.get(month, ())])
        is_done, key = asked["failure"].is_null(), ["image_set_id", "version"]
        states = states.join(asked.filter(is_done).select(key), key, join_type="left anti")
        again = asked.filter(pc.invert(is_done)).select(key)
        failed = len(states.join(again, key, join_type="left semi"))
        states = states.sort_by([("study_month", "ascending"), ("image_set_id", "ascending")])
        is_archived = pc.equal(states["storage_tier"], _ARCHIVE).fill_null(fill_value=False)
        archived = pc.sum(is_archived).as_py() or 0
        if choice.include_archived:
            yield _Due(states, archived, 0, wanted, failed)
        else:
            yield _Due(states.filter(pc.invert(is_archived)), 0, archived, wanted, failed)


def _groups(sizes: Mapping[str, int], choice: HeaderChoice) -> Iterator[list[str]]:
    """Yield the wanted study months, as many together as their states fit into memory."""
    months, rows = list[str](), 0
    for month in sorted(filter(choice.has_month, sizes)):
        rows += sizes[month]
        if months and (rows > _GROUP_ROWS or month == schema.UNDATED):
            yield months
            months, rows = [], sizes[month]
        months.append(month)
    if months:
        yield months


def _states(current: CurrentStates, datastore_id: str, months: Sequence[str]) -> pa.Table:
    """Return the current states of some study months."""
    known = current.files("StudyDate")
    if schema.UNDATED in months:
        paths = [file.path for file in known if file.nulls != 0]
    else:
        intervals = [Interval.of_month(month) for month in months]
        paths = [file.path for file in known if any(i.overlaps(file) for i in intervals)]
    where = f"study_month IN {engine.text_list(months)} AND datastore_id = '{datastore_id}'"
    return current.read(", ".join(_STATE_COLUMNS), f"{where} AND version IS NOT NULL", paths)


_STATE_COLUMNS = ("image_set_id", "version", "Modality", "storage_tier", "study_month")


@dataclass
class _Reading:
    """What became of one document."""

    month: str
    image_set_id: str
    version: int
    is_archived: bool
    size_bytes: int = 0
    meter: Meter = field(default_factory=Meter)
    row: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


class _Writer:
    """Writes what was read, a file for each study month, or several if it takes long."""

    def __init__(self, run: SearchRun) -> None:
        self._run = run
        self._readings: list[_Reading] = []
        self._bytes = self._number = 0
        self._written_at = monotonic()

    def add(self, reading: _Reading) -> Iterator[HeadersResult]:
        """Take what became of a document; yield what was written, if anything."""
        is_other_month = self._readings and self._readings[0].month != reading.month
        is_late = monotonic() - self._written_at > _FILE_SECONDS
        if is_other_month or is_late or self._bytes > _FILE_BYTES:
            yield self.write()
        self._readings.append(reading)
        self._bytes += reading.size_bytes

    def write(self) -> HeadersResult:
        """Write what was taken and is not written yet."""
        run, readings = self._run, self._readings
        if not readings:
            return HeadersResult()
        table = pa.Table.from_pylist([self._row(reading) for reading in readings], files.SCHEMA)
        erased = 0

        def attempt(unless: Unless) -> None:
            nonlocal erased
            # Read again: another machine may have begun an erasure since the run began.
            is_erased = _are_erased(ErasedPatients(run.root), table)
            erased = pc.sum(is_erased).as_py() or 0
            if erased < len(table):
                name = f"{run.run_id}-{self._number:04}"
                kept = table.filter(pc.invert(is_erased))
                month = readings[0].month
                files.write(run.root, run.store.datastore_id, month, name, [kept], unless)

        beside_erasures(run.root, attempt)
        self._readings, self._bytes, self._written_at = [], 0, monotonic()
        self._number += 1
        read = [reading for reading in readings if not reading.failure]
        return HeadersResult(
            headers=len(read) - erased,
            archived=sum(reading.is_archived for reading in read),
            failed=Counter(reading.failure for reading in readings if reading.failure),
            erased=erased,
            document_bytes=sum(reading.row["document_bytes"] for reading in read),
            requests=sum(reading.meter.requests for reading in readings),
            throttles=sum(reading.meter.throttles for reading in readings),
        )

    def _row(self, reading: _Reading) -> dict[str, Any]:
        return {
            "datastore_id": self._run.store.datastore_id,
            "image_set_id": reading.image_set_id,
            "version": reading.version,
            **reading.row,
            "failure": reading.failure,
            "fetched_at": self._run.store.now,
            "run_id": self._run.run_id,
        }


def _are_erased(erased: ErasedPatients, rows: pa.Table) -> pa.BooleanArray:
    states = rows.select(["datastore_id", "PatientID"])
    return erased.mask(states.append_column("PatientID_raw", pa.nulls(len(rows), pa.string())))


def _read(run: SearchRun, state: dict[str, Any]) -> _Reading:
    image_set_id, version = state["image_set_id"], state["version"]
    is_archived = state["storage_tier"] == _ARCHIVE
    reading = _Reading(state["study_month"], image_set_id, version, is_archived)
    datastore_id = run.store.datastore_id
    try:
        found = run.service.metadata(datastore_id, image_set_id, version, Reader.of, reading.meter)
    except tuple(_REASONS) as error:
        reading.failure = _REASONS[type(error)]
        return reading
    if found.image_set_id not in (None, image_set_id):
        reading.failure = _OTHER_IMAGE_SET
    else:
        reading.row = row_of(found)
        reading.size_bytes = len(reading.row["header"]) + _BYTES_OF_FRAME * found.frames
    return reading


def row_of(found: Reader) -> dict[str, Any]:
    """Return what a row of `headers/` says of a document."""
    header, volume = found.header(), found.slices.volume()
    patient_id = header.patient.get("PatientID")
    return {
        "PatientID": canonical_text("LO", patient_id) if isinstance(patient_id, str) else None,
        "header": msgspec.json.encode(header).decode(),
        "instances": [
            {
                "SOPInstanceUID": instance.sop_instance_uid,
                "ImageFrames": [
                    {"ID": frame.frame_id, "FrameSizeInBytes": frame.size_bytes}
                    for frame in instance.frames
                ],
            }
            for instance in found.instances
        ],
        "regularly_spaced_3d_volume": volume.is_regular,
        "not_regularly_spaced_because": volume.reason or None,
        "slice_spacing_mm": volume.spacing_mm,
        "document_bytes": found.document_bytes,
    }
