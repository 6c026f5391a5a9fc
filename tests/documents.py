"""Metadata documents as the service sends them, and headers that were read of them."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cohortlake.headers import files
from cohortlake.headers.compact import Reader
from cohortlake.healthimaging import document
from cohortlake.ingest.headers.fetch import row_of
from cohortlake.storage.root import Root


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


def write_headers(
    root: Root,
    datastore_id: str,
    month: str,
    headers: Mapping[tuple[str, int], Reader],
    name: str = "",
) -> str:
    """Write a file of `headers/`.

    Args:
        root: The lake.
        datastore_id: The data store.
        month: The study month.
        headers: Image set and version -> what was read of its document.
        name: The name of the file; by default one that no file has.
    """
    rows = [
        {
            "datastore_id": datastore_id,
            "image_set_id": image_set_id,
            "version": version,
            **row_of(header),
            "fetched_at": datetime(2026, 1, 1, tzinfo=UTC),
            "run_id": "run",
        }
        for (image_set_id, version), header in headers.items()
    ]
    name = name or f"run-{len(files.paths(root)):04}"
    table = pa.Table.from_pylist(rows, files.SCHEMA)
    return files.write(root, datastore_id, month, name, [table])
