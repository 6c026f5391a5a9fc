"""A column, as `schema` describes it: name, type, meaning, tag, VR, and how far it identifies.

`schema` has the columns of the tables, and `schema.header_columns` those of the whole header.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

RAW_SUFFIX = "_raw"


class Identifies(Enum):
    """How far a column's values identify a person, and by what."""

    NO = "no"
    INDIRECTLY = "indirectly"
    INTERVAL = "indirectly: days between dates"
    DATE = "indirectly: a date"
    CALENDAR = "indirectly: the year or the quarter of a date"
    INSTANT = "indirectly: an instant or a time of day"
    UID = "indirectly: a UID, which may hold a date and a device's number"
    NUMBER = "perhaps directly: a number, which may be an id"
    CODED = "perhaps directly: a coded value that may have been typed in"
    FREE_TEXT = "perhaps directly: free text"
    AS_SENT = "perhaps directly: text as sent"
    BIRTH_DATE = "directly, together with others: a birth date"
    DIRECTLY = "directly"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: The DICOM keyword, or a name of ours.
        type: Its Arrow type.
        description: What it holds, with its unit.
        identifies: How far its values identify a person.
        member: The service's name for it in an ImageSetsMetadataSummary or its DICOMTags.
        tag: The DICOM tag as (group,element).
        vr: The DICOM value representation (PS3.5 section 6.2).
        basic_profile: What the Basic Application Level Confidentiality Profile does with the tag
            (PS3.15 table E.1-1): Z empties it, D puts a dummy in its place, X removes it, U
            replaces a UID. None where it keeps the tag.
    """

    name: str
    type: pa.DataType
    description: str
    identifies: Identifies = Identifies.NO
    member: str | None = None
    tag: str | None = None
    vr: str | None = None
    basic_profile: str | None = None

    @property
    def wire(self) -> str:
        """The service's name for a column that it has a member for."""
        assert self.member, self.name  # noqa: S101 - asked only of the service's columns
        return self.member

    @property
    def raw_name(self) -> str:
        """The column beside it that holds what the value cannot give back."""
        return self.name + RAW_SUFFIX

    @property
    def is_text(self) -> bool:
        """Whether it is a DICOM attribute whose canonical value is text."""
        return self.vr is not None and self.vr not in PARSED_VRS


# The type of each value representation. `flatten.canonical` gives texts their canonical value;
# DA, TM and IS are parsed. Where the value differs from what was sent, that is kept beside it.
VR_TYPES = {
    "LO": pa.string(),
    "SH": pa.string(),
    "PN": pa.string(),
    "CS": pa.string(),
    "UI": pa.string(),
    "DA": pa.date32(),
    "TM": pa.time64("us"),
    "IS": pa.int32(),
}
PARSED_VRS = ("DA", "TM", "IS")

CANONICAL_VALUES = {
    "LO": "The text.",
    "SH": "The text.",
    "PN": "The name, also without blanks around each component, and without empty components and "
          "groups at the end.",
    "CS": "The code in upper case. Several codes stay in one text: PT\\CT.",
    "UI": "The UID.",
    "DA": "The date.",
    "TM": "The time of day, without a zone.",
    "IS": "The integer.",
}  # fmt: skip
"""What stands in a column of each VR. Blanks (spaces and NULs) around it are taken off first; where
several values are sent, empty and repeated ones are dropped; where nothing is left it is null. See
`dicom_values` for how."""
