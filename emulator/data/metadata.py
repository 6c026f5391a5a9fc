"""Image set metadata: the JSON document that GetImageSetMetadata returns.

The document has Patient, Study, Series and Instances, as dicts keyed by UID. `dicom` makes the
documents of DICOM files. For other image sets this module makes the document from the summary, so
that it always agrees with what a search finds.
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
    """Returns a document as gzip JSON. The same document always gives the same bytes."""
    return gzip.compress(encode(document), compresslevel=6, mtime=0)


def blob(datastore_id: str, record: Record, document: bytes | None) -> bytes:
    """Returns the gzip JSON of one version of an image set.

    Args:
        datastore_id: The data store's id.
        record: The version. The document shows its tags.
        document: The document from the import of the image set, as `pack` returned it.
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
    """Replaces the tags of a document by those of a version."""
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
                # An IS value is a string, like every value in the document.
                level["DICOM"][keyword] = str(value)
