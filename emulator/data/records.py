"""A record: one version of one image set, as the store keeps it and as a search returns it.

It makes a row with search keys from a summary in wire form, and makes the next version or the
deletion mark from an earlier version. See `store` for the table of rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from emulator.datetimes import from_wire, seconds, study_key
from emulator.wire import encode

ARCHIVE = "ARCHIVE_INSTANT_ACCESS"
FREQUENT = "FREQUENT_ACCESS"


class Record(NamedTuple):
    """One row of the table `image_sets`, in the order of its columns.

    `current` marks the version that is true now, and `searchable` the version that a search finds.
    They differ while the index lags. `due_ms` is the time at which a change becomes searchable. A
    record with `deleted_ms` is the deletion mark of its image set.
    """

    datastore: int
    image_set_id: str
    version: int
    created_ms: int
    updated_ms: int
    study_key: int
    patient_id: str | None
    accession_number: str | None
    study_id: str | None
    study_uid: str | None
    series_uid: str | None
    is_primary: int | None
    instances: int
    summary: bytes
    current: int = 1
    searchable: int = 1
    deleted_ms: int | None = None
    due_ms: int | None = None

    def wire(self) -> dict[str, Any]:
        """Returns the summary as parsed JSON."""
        summary: dict[str, Any] = json.loads(self.summary)
        return summary


def from_summary(
    datastore: int,
    summary: Mapping[str, Any],
    *,
    text: bytes | None = None,
    instances: int = 1,
) -> Record:
    """Makes a record from a summary in wire form.

    Members that are unknown or have a wrong type stay in the summary unchanged, but give no search
    key.

    Args:
        datastore: The data store's number in the store.
        summary: The parsed summary; its `imageSetId` is a string.
        text: The original text of the summary, if a search must return exactly these bytes.
        instances: The number of SOP instances in the image set.
    """
    tags = summary.get("DICOMTags")
    tags = tags if isinstance(tags, dict) else {}
    version, primary = summary.get("version"), summary.get("isPrimary")
    return Record(
        datastore=datastore,
        image_set_id=summary["imageSetId"],
        version=version if type(version) is int else 1,
        created_ms=from_wire(summary.get("createdAt")),
        updated_ms=from_wire(summary.get("updatedAt")),
        study_key=study_key(tags.get("DICOMStudyDate"), tags.get("DICOMStudyTime")),
        patient_id=_text(tags, "DICOMPatientId"),
        accession_number=_text(tags, "DICOMAccessionNumber"),
        study_id=_text(tags, "DICOMStudyId"),
        study_uid=_text(tags, "DICOMStudyInstanceUID"),
        series_uid=_text(tags, "DICOMSeriesInstanceUID"),
        is_primary=primary if isinstance(primary, bool) else None,
        instances=instances,
        summary=encode(summary) if text is None else text,
    )


def suggested_instances(summary: Mapping[str, Any]) -> int:
    """Returns the number of instances of an image set, as far as its summary tells.

    A summary has the numbers of its study only. So each series gets its equal share, from 1 to
    2,000.
    """
    tags = summary.get("DICOMTags")
    tags = tags if isinstance(tags, dict) else {}
    instances = tags.get("DICOMNumberOfStudyRelatedInstances")
    series = tags.get("DICOMNumberOfStudyRelatedSeries", 1)
    if type(instances) is not int or type(series) is not int or series < 1:
        return 1
    return min(max(1, instances // series), 2000)


def next_version(record: Record, tags: Mapping[str, Any], at_ms: int) -> Record:
    """Returns the next version, with changed tags and a new `updatedAt`; `createdAt` stays.

    Args:
        record: The image set's newest version.
        tags: Members of `DICOMTags` and their new values; `None` removes a member.
        at_ms: The time of the change.
    """
    summary = record.wire()
    old = summary.get("DICOMTags")
    merged = {**(old if isinstance(old, dict) else {}), **tags}
    summary["DICOMTags"] = {name: value for name, value in merged.items() if value is not None}
    summary["version"] = record.version + 1
    # Two changes within one millisecond get two different updatedAt values.
    summary["updatedAt"] = seconds(max(at_ms, record.updated_ms + 1))
    return from_summary(record.datastore, summary, instances=record.instances)


def deletion(record: Record, at_ms: int) -> Record:
    """Returns the deletion mark of an image set."""
    return record._replace(version=record.version + 1, current=0, deleted_ms=at_ms)


def accessed(record: Record, at_ms: int) -> Record:
    """Returns the same version after a read of its metadata: frequent tier, accessed now."""
    summary = record.wire() | {"lastAccessedAt": seconds(at_ms), "storageTier": FREQUENT}
    return record._replace(summary=encode(summary))


def _text(tags: Mapping[str, Any], name: str) -> str | None:
    value = tags.get(name)
    return value if isinstance(value, str) else None
