"""An older version of an image set, as the summary that SearchImageSets would have given.

ListImageSetVersions gives its number and instants. GetImageSetMetadata gives its DICOM attributes,
as gzip JSON on three levels. Only these are decoded: the part about each instance may have
megabytes. See `ingest.older_versions` for which versions are
asked for, and `flatten.values` for how a value becomes typed.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from cohortlake import schema
from cohortlake.errors import ServiceError
from cohortlake.healthimaging.page import BrokenAnswer

# PS3.5 section 6.2: an optional sign and digits, 12 bytes at most, padded with spaces.
_IS = re.compile(r" *([+-]?[0-9]{1,12}) *")


class NotMetadata(ServiceError):
    """A complete document is no image set metadata.

    Fix: Report the image set to AWS; asking again does not help.
    """


@dataclass(frozen=True)
class Version:
    """One version of an image set, as ListImageSetVersions describes it.

    Attributes:
        image_set_id: The image set.
        number: Which version.
        is_deleted: Whether the service says that it was deleted.
        created_at: When the image set was created.
        updated_at: When this version came to be. The service leaves it out of a first version,
            which came to be when the image set did.
        is_primary: Whether the image set was the primary one of its series.
    """

    image_set_id: str
    number: int
    is_deleted: bool
    created_at: datetime | None
    updated_at: datetime | None
    is_primary: bool | None

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any]) -> Version:
        """Read an item of `imageSetPropertiesList`."""
        number, created_at = int(properties["versionId"]), properties.get("createdAt")
        return cls(
            image_set_id=properties["imageSetId"],
            number=number,
            is_deleted=properties["imageSetState"] == "DELETED",
            created_at=created_at,
            updated_at=properties.get("updatedAt", created_at if number == 1 else None),
            is_primary=properties.get("isPrimary"),
        )

    def summary(self, dicom_tags: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as an item of `imageSetsMetadataSummaries`, without tier and last access."""
        return {
            "imageSetId": self.image_set_id,
            "version": self.number,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "isPrimary": self.is_primary,
            "DICOMTags": dict(dicom_tags),
        }


class _Level(msgspec.Struct):
    attributes: dict[str, Any] | None = msgspec.field(name="DICOM", default=None)


class _Study(_Level):
    series: dict[str, _Level] | None = msgspec.field(name="Series", default=None)


class _Document(msgspec.Struct):
    patient: _Level = msgspec.field(name="Patient")
    study: _Study = msgspec.field(name="Study")


_decode = msgspec.json.Decoder(_Document).decode


def tags(body: bytes) -> dict[str, Any]:
    """Return what a metadata document says of the sixteen tags, named as in a summary.

    Absent and null attributes are left out. What no schema column can hold is passed on as it
    came, for `flatten` to keep and count.

    Args:
        body: The document as sent, gzip JSON.

    Raises:
        BrokenAnswer: It is cut: no whole gzip document.
        NotMetadata: It is whole, and not of the form of a metadata document.
    """
    try:
        document = _decode(_unzipped(body))
    except msgspec.DecodeError:  # ValidationError is one
        raise NotMetadata("GetImageSetMetadata answered with no metadata document") from None
    attributes = {
        **(document.patient.attributes or {}),
        **(document.study.attributes or {}),
        **_agreed(document.study.series or {}),
    }
    values = {c.wire: _as_in_summary(c, attributes.get(c.name)) for c in schema.DICOM_TAGS}
    return {member: value for member, value in values.items() if value is not None}


def _unzipped(body: bytes) -> bytes:
    try:
        text = gzip.decompress(body)
    except (EOFError, OSError, zlib.error):
        text = b""
    if not text:  # of no bytes at all, no bytes come
        raise BrokenAnswer("GetImageSetMetadata kept answering with cut documents")
    return text


def _agreed(series: Mapping[str, _Level]) -> dict[str, Any]:
    """Return the attributes that are equal in all series of a document.

    An image set has one series. If there are several, a summary could name only one of them, and
    which one is not documented. Null is better than the value of another series.
    """
    first, *others = [_with_uid(uid, s.attributes or {}) for uid, s in series.items()] or [{}]
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _with_uid(uid: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a series' attributes; its UID is the key that it lies under."""
    return {**attributes, "SeriesInstanceUID": attributes.get("SeriesInstanceUID") or uid}


def _as_in_summary(column: schema.Column, value: Any) -> Any:
    """Return a value as SearchImageSets sends it: numbers as numbers, no empty texts."""
    if column.vr == "IS" and isinstance(value, str):
        number = _IS.fullmatch(value)
        return int(number[1]) if number else value.strip(" ") or None
    return None if value == "" else value
