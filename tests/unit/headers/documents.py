"""Metadata documents as the service sends them."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

from cohortlake.headers.compact import Reader
from cohortlake.healthimaging import document


def instance(**attributes: Any) -> dict[str, Any]:
    return {
        "DICOM": attributes,
        "DICOMVRs": {"00091001": "LO"},
        "ImageFrames": [{"ID": "f" * 32, "FrameSizeInBytes": 1000}],
        "StoredTransferSyntaxUID": "1.2.840.10008.1.2.1",
    }


def of_instances(*instances: dict[str, Any], **series: Any) -> dict[str, Any]:
    return {
        "SchemaVersion": "1.1",
        "DatastoreID": "d" * 32,
        "ImageSetID": "i" * 32,
        "Patient": {"DICOM": {"PatientID": "P1"}},
        "Study": {
            "DICOM": {"StudyDate": "20240101"},
            "Series": {
                "1.2": {
                    "DICOM": {"Modality": "CT", **series},
                    "Instances": {f"1.2.{n}": each for n, each in enumerate(instances)},
                }
            },
        },
    }


def packed(content: object) -> bytes:
    return gzip.compress(json.dumps(content).encode(), 1)


def parts(body: bytes) -> list[document.Part]:
    return list(document.read(io.BytesIO(body)))


def read(*instances: dict[str, Any], **series: Any) -> Reader:
    """Read a document of instances, each given by its attributes."""
    made = [instance(**attributes) for attributes in instances]
    return Reader.of(parts(packed(of_instances(*made, **series))))
