"""Fetches the headers that are due: reads their documents in parallel, and writes what came.

See `choice` for what is due.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
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
from cohortlake.ingest.headers.choice import HeaderChoice, find_due
from cohortlake.ingest.partition_search import SearchRun
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.privacy.guarded_rewrite import Unless, beside_erasures

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
_BYTES_OF_FRAME = 200  # in memory
_OTHER_IMAGE_SET = "document of another image set"


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
            for due in find_due(run.root, run.store.datastore_id, choice):
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
    is_archived = state["storage_tier"] == schema.ARCHIVE
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
