"""The metadata document of an image set, read part by part, whatever its size.

GetImageSetMetadata returns gzip JSON: Patient, Study, Series by UID and Instances by UID, each with
its attributes under `DICOM`. A document has 20 KB to hundreds of megabytes. A small one is decoded
at once, and each instance only when it is its turn. A large one is parsed as it comes, so that one
instance is in memory.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from cohortlake.errors import ServiceError
from cohortlake.healthimaging.page import BrokenAnswer

_CUT = "GetImageSetMetadata kept answering with cut documents"
_OTHER = "GetImageSetMetadata answered with no metadata document"
_DEPTH_OF_INSTANCES = 5  # Study, Series, UID, Instances, UID
_SMALL_BYTES = 8 * 1024 * 1024
"""Documents up to this size, unzipped, are decoded at once: this takes a tenth of the time."""
_CHUNK_BYTES = 256 * 1024
_GZIP = 31  # zlib's number for gzip with the largest window


class Blob(Protocol):
    """What gives the bytes of a document as they come, such as botocore's StreamingBody."""

    def read(self, amount: int, /) -> bytes:
        """Return that many bytes or fewer; none at the end."""


class NotMetadata(ServiceError):
    """A complete document is no image set metadata.

    Fix: Report the image set to AWS; asking again does not help.
    """


class Frame(msgspec.Struct, rename={"frame_id": "ID", "size_bytes": "FrameSizeInBytes"}):
    """A frame of an instance: the id for GetImageFrame, and the size of what that returns."""

    frame_id: str
    size_bytes: int | None = None


class Instance(
    msgspec.Struct,
    rename={
        "attributes": "DICOM",
        "vrs": "DICOMVRs",
        "frames": "ImageFrames",
        "transfer_syntax_uid": "StoredTransferSyntaxUID",
    },
):
    """An instance.

    Attributes:
        attributes: DICOM keyword, or tag of a private attribute -> value, as sent.
        vrs: The same names -> value representation, where the service says it.
        frames: Its frames.
        transfer_syntax_uid: How its pixels were encoded when it was imported.
    """

    attributes: dict[str, Any] | None = None
    vrs: dict[str, Any] | None = None
    frames: list[Frame] | None = None
    transfer_syntax_uid: str | None = None


@dataclass(frozen=True)
class Level:
    """The attributes of the patient, the study or a series.

    Attributes:
        name: Patient, Study or Series.
        uid: The series' UID, which its part of the document lies under; else empty.
        attributes: DICOM keyword -> value, as sent.
    """

    name: str
    uid: str
    attributes: dict[str, Any]

    @property
    def with_uid(self) -> dict[str, Any]:
        """The attributes of a series, its UID included."""
        uid = self.attributes.get("SeriesInstanceUID") or self.uid
        return {**self.attributes, "SeriesInstanceUID": uid}


@dataclass(frozen=True)
class ImageSetId:
    """The image set that the document says it is of."""

    image_set_id: str


@dataclass(frozen=True)
class InstancePart:
    """An instance, and its UID, which its part of the document lies under."""

    uid: str
    instance: Instance


@dataclass(frozen=True)
class End:
    """The end of the document, and its size as sent."""

    size_bytes: int


Part = ImageSetId | Level | InstancePart | End


class _Level(msgspec.Struct):
    attributes: dict[str, Any] | None = msgspec.field(name="DICOM", default=None)


class _Series(_Level):
    instances: dict[str, msgspec.Raw] | None = msgspec.field(name="Instances", default=None)


class _Study(_Level):
    series: dict[str, _Series] | None = msgspec.field(name="Series", default=None)


class _Document(msgspec.Struct):
    patient: _Level = msgspec.field(name="Patient")
    study: _Study = msgspec.field(name="Study")
    image_set_id: str | None = msgspec.field(name="ImageSetID", default=None)


_decode = msgspec.json.Decoder(_Document).decode
_decode_instance = msgspec.json.Decoder(Instance).decode


def read(blob: Blob) -> Iterator[Part]:
    """Yield the parts of a document.

    Args:
        blob: The document as sent, gzip JSON.

    Raises:
        BrokenAnswer: It is cut: no whole gzip document.
        NotMetadata: It is whole, and not of the form of a metadata document.
    """
    text = _Unzipped(blob)
    try:
        start = text.read(_SMALL_BYTES)
        yield from _small(start) if len(start) < _SMALL_BYTES else _large(start, text)
        yield End(text.size_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError):  # ValidationError is one of the first
        raise NotMetadata(_OTHER) from None


def _small(text: bytes) -> Iterator[Part]:
    if not text:  # of no bytes at all, no bytes come
        raise BrokenAnswer(_CUT)
    document = _decode(text)
    if document.image_set_id is not None:
        yield ImageSetId(document.image_set_id)
    yield Level("Patient", "", document.patient.attributes or {})
    yield Level("Study", "", document.study.attributes or {})
    for uid, series in (document.study.series or {}).items():
        yield Level("Series", uid, series.attributes or {})
        for instance_uid, instance in (series.instances or {}).items():
            yield InstancePart(instance_uid, _decode_instance(instance))


def _large(start: bytes, rest: _Unzipped) -> Iterator[Part]:
    import ijson

    levels = set[str]()
    try:
        for part in _parts(ijson.basic_parse(_Joined(start, rest), use_float=True)):
            if isinstance(part, Level):
                levels.add(part.name)
            yield part
    except ijson.JSONError:
        raise NotMetadata(_OTHER) from None
    if not {"Patient", "Study"} <= levels:
        raise NotMetadata(_OTHER)


def _parts(events: Iterator[tuple[str, Any]]) -> Iterator[Part]:
    """Yield the parts of a document from the events of its parser."""
    path: list[str] = []
    for event, value in events:
        if event == "map_key":
            path[-1] = value
        elif event == "end_map":
            path.pop()
        elif convert := _converter(path):
            yield convert(_built(event, value, events))
        elif event == "start_map" and len(path) < _DEPTH_OF_INSTANCES:
            path.append("")
        else:
            _skip(event, events)


def _converter(path: Sequence[str]) -> Callable[[Any], Part] | None:
    """Return what makes a part of the value under a path, or None if the value is no part."""
    match path:
        case ["ImageSetID"]:
            return lambda value: ImageSetId(msgspec.convert(value, str))
        case ["Patient" | "Study" as name, "DICOM"]:
            return lambda value: Level(name, "", _attributes(value))
        case ["Study", "Series", uid, "DICOM"]:
            return lambda value: Level("Series", uid, _attributes(value))
        case ["Study", "Series", _, "Instances", uid]:
            return lambda value: InstancePart(uid, msgspec.convert(value, Instance))
    return None


def _attributes(value: Any) -> dict[str, Any]:
    return msgspec.convert({} if value is None else value, dict[str, Any])


def _built(event: str, value: Any, events: Iterator[tuple[str, Any]]) -> Any:
    """Return the value that begins with an event, and consume its other events."""
    from ijson.common import ObjectBuilder

    builder = ObjectBuilder()
    builder.event(event, value)
    for inner, inner_value in _inside(event, events):
        builder.event(inner, inner_value)
    return builder.value


def _skip(event: str, events: Iterator[tuple[str, Any]]) -> None:
    for _ in _inside(event, events):
        pass


def _inside(event: str, events: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the other events of the value that begins with an event."""
    depth = _depth(event)
    while depth:
        inner, value = next(events)
        depth += _depth(inner)
        yield inner, value


def _depth(event: str) -> int:
    return event.startswith("start_") - event.startswith("end_")


class _Unzipped:
    """The text of a gzip document, as it comes.

    Attributes:
        size_bytes: How many bytes of the document were read.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._zip = zlib.decompressobj(_GZIP)
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        """Return that many bytes, or fewer at the end.

        Raises:
            BrokenAnswer: The document is cut, or no gzip.
        """
        parts: list[bytes] = []
        while size and not self._zip.eof:
            parts.append(self._next(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def _next(self, most: int) -> bytes:
        packed = self._zip.unconsumed_tail
        if not packed:
            packed = self._blob.read(_CHUNK_BYTES)
            self.size_bytes += len(packed)
        if not packed:
            raise BrokenAnswer(_CUT)
        try:
            return self._zip.decompress(packed, min(most, _CHUNK_BYTES))
        except zlib.error:
            raise BrokenAnswer(_CUT) from None


class _Joined:
    """What was read of a text already, and the rest of it."""

    def __init__(self, start: bytes, rest: _Unzipped) -> None:
        self._start = io.BytesIO(start)
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, or fewer at the end."""
        if size == 0:  # ijson asks for nothing, to see whether it gets bytes
            return b""
        return self._start.read(size) or self._rest.read(size if size > 0 else _CHUNK_BYTES)
