"""What all formats say of a cohort beside its entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from cohortlake.cohort.pixels.entries import Entry
from cohortlake.cohort.pixels.summary import Counts

SUMMARY = "manifest.json"
"""The file with the summary, in formats that are a folder."""


@dataclass(frozen=True)
class About:
    """A cohort, and what is counted while its entries are written.

    Attributes:
        cohort: The cohort; `name@number` for a frozen one.
        description: What it is for; may be empty.
        policy: The privacy policy of the published tables.
        published_at: When they were published, ISO 8601.
        parts: The parts of its split; none if it has no split.
        label: The column that holds the labels, or None.
        label_type: The type of the labels.
        counts: Complete when the last entry is written.
        left_out: The image sets that are not written, and why.
    """

    cohort: str
    description: str
    policy: str
    published_at: str
    parts: tuple[str, ...]
    label: str | None
    label_type: pa.DataType
    counts: Counts = field(default_factory=Counts)
    left_out: list[dict[str, Any]] = field(default_factory=list)

    def leave_out(self, entry: Entry, reason: str) -> None:
        """Note that an entry is not written."""
        self.counts.left_out[reason] += 1
        names = ("datastore_id", "image_set_id", "version", "series_instance_uid")
        self.left_out.append({n: entry.facts[n] for n in names} | {"reason": reason})

    def facts(self, entry: Entry) -> dict[str, Any]:
        """Return what each format says of an entry, with its part and its label."""
        facts = entry.facts
        if self.parts:
            facts["split"] = entry.part
        if self.label:
            facts["label"] = entry.label
        return facts

    def summary(self) -> dict[str, Any]:
        """Return what was written and what was not."""
        return {
            "cohort": self.cohort,
            "policy": self.policy,
            "published_at": self.published_at,
            "label": self.label,
            **self.counts.to_dict(),
            "left_out": self.left_out,
        }

    def write_summary(self, folder: Path) -> None:
        """Write the summary to a file of its own."""
        text = msgspec.json.encode({"cohortlake": self.summary()})
        (folder / SUMMARY).write_bytes(msgspec.json.format(text, indent=1))
