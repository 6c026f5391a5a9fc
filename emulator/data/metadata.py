"""Image set metadata: the JSON document that GetImageSetMetadata answers with.

It owns the document's form: Patient, Study, Series and Instances, dicts keyed by UID. Documents of
DICOM files come from `dicom`; for an image set without one the document is made up here from its
summary, so that it always agrees with what a search finds.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from emulator.data.records import Record
from emulator.seeded import identifier
from emulator.wire import encode

PATIENT_LEVEL = {
    "DICOMPatientId": "PatientID",
    "DICOMPatientName": "PatientName",
    "DICOMPatientBirthDate": "PatientBirthDate",
    "DICOMPatientSex": "PatientSex",
}
STUDY_LEVEL = {
    "DICOMStudyInstanceUID": "StudyInstanceUID",
    "DICOMStudyId": "StudyID",
    "DICOMStudyDescription": "StudyDescription",
    "DICOMNumberOfStudyRelatedSeries": "NumberOfStudyRelatedSeries",
    "DICOMNumberOfStudyRelatedInstances": "NumberOfStudyRelatedInstances",
    "DICOMAccessionNumber": "AccessionNumber",
    "DICOMStudyDate": "StudyDate",
    "DICOMStudyTime": "StudyTime",
}
SERIES_LEVEL = {
    "DICOMSeriesInstanceUID": "SeriesInstanceUID",
    "DICOMSeriesModality": "Modality",
    "DICOMSeriesBodyPart": "BodyPartExamined",
    "DICOMSeriesNumber": "SeriesNumber",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def pack(document: dict[str, Any]) -> bytes:
    """A document as gzip JSON; the same document always gives the same bytes."""
    return gzip.compress(encode(document), compresslevel=6, mtime=0)


def blob(datastore_id: str, record: Record, document: bytes | None) -> bytes:
    """The gzip JSON of one version of an image set.

    Args:
        datastore_id: The data store's id.
        record: The version; its tags are the ones the document shows.
        document: The document that the image set was imported with, as `pack` made it.
    """
    parsed = _synthetic(record) if document is None else json.loads(gzip.decompress(document))
    tags = record.wire().get("DICOMTags")
    _overlay(parsed, tags if isinstance(tags, dict) else {})
    header = {
        "SchemaVersion": "1.1",
        "DatastoreID": datastore_id,
        "ImageSetID": record.image_set_id,
    }
    return pack(header | parsed)


def _synthetic(record: Record) -> dict[str, Any]:
    series_uid = record.series_uid or "0.0"
    instances = {
        f"{series_uid}.{number}": {
            "DICOM": {
                "SOPClassUID": _SECONDARY_CAPTURE,
                "SOPInstanceUID": f"{series_uid}.{number}",
                "InstanceNumber": f"{number} ",
                "ImageComments": None,
            },
            "ImageFrames": [{"ID": identifier(record.image_set_id, number)}],
        }
        for number in range(1, record.instances + 1)
    }
    series = {series_uid: {"DICOM": {}, "Instances": instances}}
    return {"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": series}}


def _overlay(document: dict[str, Any], tags: dict[str, Any]) -> None:
    """Writes a version's tags over the ones that the document has."""
    levels = [(document["Patient"], PATIENT_LEVEL), (document["Study"], STUDY_LEVEL)]
    levels += [(series, SERIES_LEVEL) for series in document["Study"]["Series"].values()]
    for level, names in levels:
        for member, keyword in names.items():
            value = tags.get(member)
            if value is None:
                level["DICOM"].pop(keyword, None)
            elif value == "":
                level["DICOM"][keyword] = None
            else:
                # IS travels as a string, as everything in the document does.
                level["DICOM"][keyword] = str(value)
