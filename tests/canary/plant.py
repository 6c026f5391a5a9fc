"""A hospital whose every tag holds a value that occurs nowhere else in the world.

Owns the values, and under which name each is looked for. Three kinds of image sets carry them:
well-formed ones, ones whose dates, times and numbers are none, and ones with members that no
schema names.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import pyarrow as pa
from endpoint import DATASTORE, Endpoint

from cohortlake.schema import header_columns

MARK = "ZQKANARI"
TEXTS = {
    "PatientID": "PI",
    "PatientName": "PN",
    "PatientSex": "PS",
    "StudyID": "SI",
    "StudyDescription": "SD",
    "AccessionNumber": "AN",
    "Modality": "MO",
    "BodyPartExamined": "BP",
    "unparsed": "UP",
    "unknown member": "UM",
    "header": "HD",
    "nextToken": "TK",
    "error message": "EM",
    "import message": "IM",
    "event": "EV",
    "patient key": "KY",
}
"""What holds a text -> two letters that follow the mark in it."""

NUMBERS = {
    "StudyInstanceUID": "734191735",
    "SeriesInstanceUID": "734191736",
    "NumberOfStudyRelatedSeries": "734191737",
    "NumberOfStudyRelatedInstances": "734191738",
    "SeriesNumber": "734191739",
    "FrameOfReferenceUID": "734191740",
}
DATES = {"PatientBirthDate": (1917, 3, 13), "StudyDate": (2025, 9, 17)}
TIME = ("071331.734191", "07:13:31.734191")

NEEDLES: dict[str, tuple[str, ...]] = {
    **{name: (MARK + letters,) for name, letters in TEXTS.items()},
    **{name: (number,) for name, number in NUMBERS.items()},
    **{name: (f"{y:04}{m:02}{d:02}", f"{y:04}-{m:02}-{d:02}") for name, (y, m, d) in DATES.items()},
    "StudyTime": TIME,
}
"""What is planted -> the texts that give it away."""


def text(name: str, number: int | str = "") -> str:
    """Return a planted text."""
    return f"{MARK}{TEXTS[name]}{number}"


KEY = text("patient key").ljust(32, "x").encode()


def tags(number: int) -> dict[str, Any]:
    """Return the well-formed tags of an image set: two of a study, two studies of a patient."""
    study, patient = number // 2, number // 4
    return {
        "DICOMPatientId": text("PatientID", patient),
        "DICOMPatientName": f"{text('PatientName')}^{text('PatientName', patient)}",
        "DICOMPatientBirthDate": NEEDLES["PatientBirthDate"][0],
        "DICOMPatientSex": text("PatientSex"),
        "DICOMStudyInstanceUID": f"1.2.{NUMBERS['StudyInstanceUID']}.{study}",
        "DICOMStudyId": text("StudyID", study),
        "DICOMStudyDescription": f"{text('StudyDescription')} of the {text('StudyDescription')}",
        "DICOMNumberOfStudyRelatedSeries": int(NUMBERS["NumberOfStudyRelatedSeries"]),
        "DICOMNumberOfStudyRelatedInstances": int(NUMBERS["NumberOfStudyRelatedInstances"]),
        "DICOMAccessionNumber": text("AccessionNumber", study),
        "DICOMSeriesInstanceUID": f"1.2.{NUMBERS['SeriesInstanceUID']}.{number}",
        "DICOMSeriesModality": text("Modality"),
        "DICOMSeriesBodyPart": text("BodyPartExamined"),
        "DICOMSeriesNumber": int(NUMBERS["SeriesNumber"]),
        "DICOMStudyDate": NEEDLES["StudyDate"][0],
        "DICOMStudyTime": TIME[0],
    }


def unparsed(number: int) -> dict[str, Any]:
    """Return tags whose dates, times and numbers are none."""
    members = ("PatientBirthDate", "StudyDate", "StudyTime", "SeriesNumber")
    return tags(number) | {f"DICOM{member}": text("unparsed") for member in members}


def unknown(number: int) -> dict[str, Any]:
    """Return tags beside members that no schema names."""
    return tags(number) | {
        "DICOMFutureTag": text("unknown member"),
        text("unknown member"): {"nested": [text("unknown member")]},
    }


def fill(endpoint: Endpoint) -> None:
    """Give an endpoint 36 image sets of the three kinds, with older versions of the first ones."""
    made = (tags, unparsed, unknown)
    for number in range(36):
        at = endpoint.created_at + 3600 * number
        endpoint.image_sets.append(
            {
                "imageSetId": f"{number:032x}",
                "version": 1,
                "createdAt": at,
                "updatedAt": at,
                "isPrimary": True,
                "storageTier": "FREQUENT_ACCESS",
                "DICOMTags": made[number // 12](number),
                **({text("unknown member"): "x"} if number % 12 == 11 else {}),
            }
        )
        endpoint.documents[f"{number:032x}", 1] = header(endpoint.image_sets[-1]["DICOMTags"])
    for number in range(3):
        update(endpoint, number, versions=2)
    endpoint.import_jobs.append(
        {
            "jobId": "f" * 32,
            "jobName": "night",
            "jobStatus": "FAILED",
            "dataAccessRoleArn": f"arn:aws:iam::{1:012}:role/{text('import message')}",
            "message": f"s3://inbox/{text('import message')}.dcm is no DICOM",
        }
    )


def update(endpoint: Endpoint, number: int, versions: int = 1) -> None:
    """Change an image set's tags, perhaps several times; the older versions can be read."""
    row = endpoint.image_sets[number]
    for _ in range(versions):
        version, document = row["version"], _document(row["DICOMTags"])
        at = row["updatedAt"]
        properties = {
            "imageSetId": row["imageSetId"], "versionId": str(version), "imageSetState": "ACTIVE",
            "createdAt": row["createdAt"], "updatedAt": at,
        }  # fmt: skip
        endpoint.versions[row["imageSetId"], version] = properties, document
        row["version"] += 1
        row["updatedAt"] = max(at + 60, endpoint.now.timestamp() - 7200 + number)
        name = f"{text('PatientName')}^changed^{row['version']}"
        row["DICOMTags"] = row["DICOMTags"] | {"DICOMPatientName": name}
        endpoint.documents[row["imageSetId"], row["version"]] = header(row["DICOMTags"])


def header(members: dict[str, Any]) -> bytes:
    """Return the document of an image set whose every text attribute is planted."""
    planted = {
        each.keyword: text("header")
        for each in header_columns.FROM_ATTRIBUTES
        if each.column.type == pa.string() and len(each.path) == 1
    }
    planted |= {
        "FrameOfReferenceUID": f"1.2.{NUMBERS['FrameOfReferenceUID']}",
        "SOPClassUID": f"1.2.{NUMBERS['FrameOfReferenceUID']}",
        "SliceThickness": text("header"),
        "00091001": text("header"),
        "ImageComments": text("header"),
        "AnatomicRegionSequence": [{"CodeValue": text("header"), "CodeMeaning": text("header")}],
        "RadiopharmaceuticalInformationSequence": [{"Radiopharmaceutical": text("header")}],
    }
    instances = {
        f"1.2.{NUMBERS['SeriesInstanceUID']}.{number}": {
            "DICOM": planted | {"SeriesDescription": text("header", number)},
            "ImageFrames": [{"ID": f"{number:032x}", "FrameSizeInBytes": 10}],
            "StoredTransferSyntaxUID": text("header"),
        }
        for number in range(2)
    }
    return _document(members, instances)


def _document(members: dict[str, Any], instances: dict[str, Any] | None = None) -> bytes:
    named = {member.removeprefix("DICOM"): value for member, value in members.items()}
    named |= {"PatientID": members["DICOMPatientId"], "StudyID": members["DICOMStudyId"]}
    uid = members["DICOMSeriesInstanceUID"]
    content = {
        "DatastoreID": DATASTORE,
        "Patient": {"DICOM": named},
        "Study": {"DICOM": named, "Series": {uid: {"DICOM": named, "Instances": instances or {}}}},
    }
    return gzip.compress(json.dumps(content).encode())
