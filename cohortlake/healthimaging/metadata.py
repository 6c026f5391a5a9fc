"""An older version of an image set, as the summary that SearchImageSets would have given.

ListImageSetVersions gives its number and instants. GetImageSetMetadata gives its DICOM attributes
on three levels. See `document` for how its answer is read, `ingest.older_versions` for which
versions are asked for, and `flatten.values` for how a value becomes typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cohortlake import schema
from cohortlake.healthimaging.document import Level, Part

# PS3.5 section 6.2: an optional sign and digits, 12 bytes at most, padded with spaces.
_IS = re.compile(r" *([+-]?[0-9]{1,12}) *")


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


def summary_tags(parts: Iterable[Part]) -> dict[str, Any]:
    """Return what a metadata document says of the sixteen tags, named as in a summary.

    Absent and null attributes are left out. What no schema column can hold is passed on as it
    came, for `flatten` to keep and count.

    Args:
        parts: The parts of the document. See `document.read` for the errors.
    """
    levels = [part for part in parts if isinstance(part, Level)]
    attributes: dict[str, Any] = {}
    for level in levels:
        if level.name != "Series":
            attributes |= level.attributes
    attributes |= _agreed([level for level in levels if level.name == "Series"])
    values = {c.wire: _as_in_summary(c, attributes.get(c.name)) for c in schema.DICOM_TAGS}
    return {member: value for member, value in values.items() if value is not None}


def _agreed(series: Iterable[Level]) -> dict[str, Any]:
    """Return the attributes that are equal in all series of a document.

    An image set has one series. If there are several, a summary could name only one of them, and
    which one is not documented. Null is better than the value of another series.
    """
    first, *others = [level.with_uid for level in series] or [{}]
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _as_in_summary(column: schema.Column, value: Any) -> Any:
    """Return a value as SearchImageSets sends it: numbers as numbers, no empty texts."""
    if column.vr == "IS" and isinstance(value, str):
        number = _IS.fullmatch(value)
        return int(number[1]) if number else value.strip(" ") or None
    return None if value == "" else value
