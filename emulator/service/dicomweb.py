"""DICOMweb: GetDICOMSeriesMetadata and GetDICOMInstanceFrames.

At AWS they have a host of their own, `dicom-medical-imaging.REGION.amazonaws.com`, and the SDKs do
not know them. Here they have the address of all other operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from emulator.data import metadata
from emulator.data.dicom_json import by_tag
from emulator.data.records import Record
from emulator.data.store import Datastore
from emulator.seeded import identifier
from emulator.service.reading import Reading
from emulator.wire import Answer, Stream, encode, invalid, not_found

Query = Mapping[str, str]
Parameters = dict[str, str]

_SERIES = (
    r"/datastore/(?P<datastore>[0-9a-z]{32})/studies/(?P<study>[0-9.]+)/series/(?P<series>[0-9.]+)"
)
_METADATA = re.compile(rf"{_SERIES}/metadata")
_FRAMES = re.compile(
    rf"{_SERIES}/instances/(?P<instance>[0-9.]+)/frames/(?P<frames>\d+(?:(?:,|%2C)\d+)*)"
)


class DicomWeb:
    """The DICOMweb operations."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.paths: Mapping[
            str, tuple[re.Pattern[str], Callable[[Parameters, Query], Answer | Stream]]
        ] = {
            "GetDICOMSeriesMetadata": (_METADATA, self.series_metadata),
            "GetDICOMInstanceFrames": (_FRAMES, self.instance_frames),
        }

    def route(
        self, method: str, path: str, query: Query
    ) -> tuple[str, Callable[[], Answer | Stream]] | None:
        """Returns the operation of a request line, and what answers it, if there is one."""
        for name, (pattern, handle) in self.paths.items():
            match = pattern.fullmatch(path) if method == "GET" else None
            if match:
                return name, partial(handle, match.groupdict(), query)
        return None

    def series_metadata(self, parameters: Parameters, query: Query) -> Stream:
        """Returns the attributes of each instance of a series, as DICOM JSON."""
        _, record, document = self._series(parameters, query)
        self._reading.access(record)
        return Stream(_listed(document, parameters["series"]), "application/dicom+json")

    def instance_frames(self, parameters: Parameters, query: Query) -> Stream:
        """Returns image frames of an instance, by their numbers, as parts of one answer."""
        _, record, document = self._series(parameters, query)
        instances = document["Study"]["Series"][parameters["series"]]["Instances"]
        instance = instances.get(parameters["instance"])
        if instance is None:
            raise not_found("An instance with this SOPInstanceUID")
        entries = instance.get("ImageFrames") or []
        numbers = [int(text) for text in re.split(",|%2C", parameters["frames"])]
        if len(set(numbers)) < len(numbers):
            raise invalid("A frame number occurs twice")
        if not all(1 <= number <= len(entries) for number in numbers):
            raise not_found("An image frame with this number")
        frames = [self._reading.frame(record, entries[number - 1]["ID"]) for number in numbers]
        boundary = identifier("boundary", record.image_set_id, *numbers)
        syntax = instance.get("StoredTransferSyntaxUID")
        kind = f'multipart/related; type="{frames[0].content_type}"; boundary={boundary}'
        return Stream(_parts(frames, boundary, syntax), kind)

    def _series(
        self, parameters: Parameters, query: Query
    ) -> tuple[Datastore, Record, dict[str, Any]]:
        """Returns the image set that is asked for: the given one, or the primary one of a series.

        Raises:
            ServiceError: `ResourceNotFoundException` if there is none with this study and series.
        """
        store = self._reading.store
        datastore = store.datastore(parameters["datastore"])
        image_set_id = query.get("imageSetId")
        record = (
            store.primary(datastore, parameters["series"])
            if image_set_id is None
            else self._reading.current(datastore, image_set_id)
        )
        if record is None or (record.study_uid, record.series_uid) != (
            parameters["study"],
            parameters["series"],
        ):
            raise not_found("An image set with this study and series")
        self._reading.current(datastore, record.image_set_id)
        text = metadata.text(datastore.id, record, store.document(record))
        document: dict[str, Any] = json.loads(text)
        if parameters["series"] not in document["Study"]["Series"]:
            raise not_found("A series with this SeriesInstanceUID")
        return datastore, record, document


def _listed(document: dict[str, Any], series_uid: str) -> Iterator[bytes]:
    series = document["Study"]["Series"][series_uid]
    above = document["Patient"]["DICOM"] | document["Study"]["DICOM"] | series["DICOM"]
    start = b"["
    for instance in series["Instances"].values():
        attributes = by_tag(above | instance["DICOM"], instance.get("DICOMVRs") or {})
        yield start + encode(attributes)
        start = b","
    yield b"]" if start == b"," else b"[]"


def _parts(frames: list[Stream], boundary: str, syntax: str | None) -> Iterator[bytes]:
    for frame in frames:
        kind = f"{frame.content_type};transfer-syntax={syntax}" if syntax else frame.content_type
        yield f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        yield from frame.pieces
        yield b"\r\n"
    yield f"--{boundary}--".encode()
