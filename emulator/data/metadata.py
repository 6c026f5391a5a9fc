"""Image set metadata: the JSON document that GetImageSetMetadata returns.

The document has Patient, Study, Series and Instances, as dicts keyed by UID. `dicom` makes the
documents of DICOM files, and `headers` those of all other image sets. This module puts the tags of
the summary over either, so that a document always agrees with what a search finds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from emulator.data.frames import Frame
from emulator.data.headers.series import Header, frame_size, header
from emulator.data.headers.values import integer
from emulator.data.levels import INTEGERS, PATIENT_LEVEL, SERIES_LEVEL, STUDY_LEVEL
from emulator.data.records import Record
from emulator.wire import encode

SCHEMA_VERSION = "1.1"
CONTENT_TYPE = "text/plain"
HEADERS = {"Content-Encoding": "gzip"}


def pack(document: bytes) -> bytes:
    """Returns a JSON document as gzip. The same document always gives the same bytes."""
    return gzip.compress(document, compresslevel=1, mtime=0)


def text(datastore_id: str, record: Record, document: bytes | None) -> bytes:
    """Returns the JSON of one version of an image set.

    Args:
        datastore_id: The data store's id.
        record: The version. The document shows its tags.
        document: The document from the import of the image set, as `pack` returned it.
    """
    identity = {
        "SchemaVersion": SCHEMA_VERSION,
        "DatastoreID": datastore_id,
        "ImageSetID": record.image_set_id,
    }
    tags = _tags(record)
    if document is None:
        return encode(identity)[:-1] + b"," + _synthetic(record, tags)
    parsed = json.loads(gzip.decompress(document))
    _overlay(parsed, tags)
    return encode(identity | parsed)


def has_levels(document: Mapping[str, Any]) -> bool:
    """Returns whether a document has the levels that `text` writes the tags into."""
    patient, study = document.get("Patient"), document.get("Study")
    levels = [patient, study]
    if isinstance(study, dict) and isinstance(study.get("Series"), dict):
        levels += study["Series"].values()
    else:
        return False
    return all(isinstance(one, dict) and isinstance(one.get("DICOM"), dict) for one in levels)


def header_of(record: Record) -> Header:
    """Returns the header of an image set that did not come from a file."""
    return header(_tags(record), record.image_set_id, record.instances)


def synthetic_frame(record: Record, frame_id: str) -> Frame | None:
    """Returns a frame of an image set that did not come from a file, if it has such a frame."""
    size = frame_size(record.series_uid or record.image_set_id, frame_id)
    return None if size is None else Frame(frame_id, size)


def _tags(record: Record) -> dict[str, Any]:
    tags = record.wire().get("DICOMTags")
    return tags if isinstance(tags, dict) else {}


def _synthetic(record: Record, tags: dict[str, Any]) -> bytes:
    """Returns the members below the identity, and the end of the document."""
    made = header_of(record)
    series_uid = record.series_uid or record.image_set_id
    return (
        b'"Patient":{"DICOM":%b},"Study":{"DICOM":%b,"Series":{%b:{"DICOM":%b,"Instances":{%b}}}}}'
    ) % (
        encode(made.patient | _level(tags, PATIENT_LEVEL)),
        encode(made.study | _level(tags, STUDY_LEVEL)),
        encode(series_uid),
        encode(made.series | _level(tags, SERIES_LEVEL)),
        b",".join(made.instances),
    )


def _level(tags: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Returns the tags of one level by keyword. A value is text or, if empty, null."""
    level: dict[str, Any] = {}
    for member, keyword in names.items():
        value = tags.get(member)
        if value is None:
            continue
        is_number = member in INTEGERS and isinstance(value, int)
        level[keyword] = integer(value) if is_number else str(value) or None
    return level


def _overlay(document: dict[str, Any], tags: dict[str, Any]) -> None:
    """Replaces the tags of a document by those of a version."""
    levels = [(document["Patient"], PATIENT_LEVEL), (document["Study"], STUDY_LEVEL)]
    levels += [(series, SERIES_LEVEL) for series in document["Study"]["Series"].values()]
    for level, names in levels:
        kept = {
            keyword: value
            for keyword, value in level["DICOM"].items()
            if keyword not in names.values()
        }
        level["DICOM"] = kept | _level(tags, names)
