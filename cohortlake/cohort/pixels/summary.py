"""What a manifest of pixels holds, what it leaves out, and what the download costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from cohortlake.bill import Bill
from cohortlake.cohort.describe import short_table
from cohortlake.cohort.pixels.entries import Entry

GONE = "gone from the data store"
NO_HEADER = "no header fetched"
NO_SERIES_UID = "no SeriesInstanceUID"

ARCHIVED = "ARCHIVE_INSTANT_ACCESS"
_PRINTING_MODALITIES = frozenset(
    ("US", "IVUS", "XA", "RF", "CR", "ES", "GM", "XC", "OP", "OT", "DOC")
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Ultrasound, angiography, digitised film, video and screen captures: their machines often write
text into the image. So do objects of the SOP classes of Secondary Capture."""


@dataclass(frozen=True, repr=False)
class PixelManifest:
    """A manifest of pixels that was written.

    Attributes:
        path: The file or folder.
        format: Its format.
        cohort: The cohort; `name@number` for a frozen one.
        policy: The privacy policy of what it was made from.
        published_at: When that was published.
        series: Entries: one for each series that the manifest has.
        patients: Their patients.
        parts: Part of the split -> entries.
        frames: Frames of the entries whose header was fetched.
        bytes: Their size, as far as the service says it.
        requests: Requests that fetch all of them.
        tps: Requests per second that AWS grants by default.
        left_out: Reason -> series of the cohort that the manifest does not have.
        without_header: Entries whose frames and bytes are not known, because no header was fetched.
        without_size: Entries with a frame whose size the service does not say.
        archived: Entries in the archive tier, which move to the frequent tier when they are read.
        burned_in: Entries whose BurnedInAnnotation is YES: text in the pixels identifies somebody.
        may_be_burned_in: Modality -> other entries of machines that often write text into the
            image, unless BurnedInAnnotation is NO.
        other_image_sets: Other image sets of these series, which are not in the manifest.
        changed: Entries of a frozen cohort that have another version now.
    """

    path: str
    format: str
    cohort: str
    policy: str
    published_at: str
    series: int = 0
    patients: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    bytes: int = 0
    requests: int = 0
    tps: float = 1.0
    left_out: dict[str, int] = field(default_factory=dict)
    without_header: int = 0
    without_size: int = 0
    archived: int = 0
    burned_in: int = 0
    may_be_burned_in: dict[str, int] = field(default_factory=dict)
    other_image_sets: int = 0
    changed: int = 0

    @property
    def bill(self) -> Bill:
        """What the download costs."""
        return Bill(self.requests, self.tps)

    @property
    def hours(self) -> float:
        """How long the requests take at the quota."""
        return self.bill.hours

    @property
    def dollars(self) -> float:
        """The price of the requests, in USD. Traffic out of the region is not part of it."""
        return self.bill.dollars

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, with hours and dollars."""
        return asdict(self) | {"hours": self.hours, "dollars": self.dollars}

    @property
    def facts(self) -> dict[str, object]:
        """What people are shown; what is zero is left out, but not what is left out."""
        told: dict[str, object] = {
            "archived": self.archived,
            "another version since it was frozen": self.changed,
            "no header fetched, so frames and bytes are not counted": self.without_header,
            "frames without a size": self.without_size,
            "other image sets of these series": self.other_image_sets,
            "BurnedInAnnotation YES": self.burned_in,
            "text may be in the pixels": self.may_be_burned_in,
        }
        return {
            "series": self.series,
            "patients": self.patients,
            **({"parts": self.parts} if self.parts else {}),
            "left out": self.left_out,
            "frames": self.frames,
            "bytes": self.bytes,
            "download": str(self.bill),
            **{name: value for name, value in told.items() if value},
            "policy": self.policy,
        }

    @property
    def _title(self) -> str:
        return f"{self.format} manifest of {self.cohort}: {self.path}"

    def __repr__(self) -> str:
        return short_table.text(self._title, self.facts)

    def _repr_html_(self) -> str:
        return short_table.html(self._title, self.facts)


class Counts:
    """Counts entries as they are written.

    Attributes:
        left_out: Reason -> series that are not written.
    """

    def __init__(self) -> None:
        self.left_out = Counter[str]()
        self._values = Counter[str]()
        self._parts = Counter[str]()
        self._printing = Counter[str]()
        self._patients = set[str]()

    def add(self, entry: Entry) -> None:
        """Count an entry that is written."""
        count = self._values
        count["series"] += 1
        count["frames"] += entry.frame_count or 0
        count["instances"] += entry.instance_count or 0
        count["bytes"] += entry.size_bytes or 0
        count["without_header"] += entry.frame_count is None
        count["without_size"] += entry.frame_count is not None and entry.size_bytes is None
        count["archived"] += entry.storage_tier == ARCHIVED
        count["other_image_sets"] += (entry.n_image_sets or 1) - 1
        count["changed"] += entry.version_now not in (None, entry.version)
        self._patients.add(entry.patient_key)
        if entry.part is not None:
            self._parts[entry.part] += 1
        if entry.BurnedInAnnotation == "YES":
            count["burned_in"] += 1
        elif entry.BurnedInAnnotation != "NO" and _may_print(entry):
            self._printing[entry.Modality or "unknown modality"] += 1

    @property
    def series(self) -> int:
        """How many entries there are."""
        return self._values["series"]

    @property
    def frames(self) -> int:
        """How many frames the entries have."""
        return self._values["frames"]

    @property
    def instances(self) -> int:
        """How many instances the entries have."""
        return self._values["instances"]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, by the attributes of `PixelManifest`."""
        values = {name: n for name, n in self._values.items() if name != "instances"}
        return {
            **values,
            "patients": len(self._patients),
            "parts": dict(self._parts),
            "left_out": dict(self.left_out),
            "may_be_burned_in": dict(self._printing),
        }


def _may_print(entry: Entry) -> bool:
    return entry.Modality in _PRINTING_MODALITIES or str(entry.SOPClassUID).startswith(
        _SECONDARY_CAPTURE
    )
