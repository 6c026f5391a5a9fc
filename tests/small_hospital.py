"""A small hospital behind `tests/endpoint.py`, and the lake compared with it."""

from __future__ import annotations

import random
from typing import Any

from endpoint import Endpoint

from cohortlake import read_table


def fill(
    endpoint: Endpoint, count: int, seed: int = 1, months: int = 3, first_month: int = 1
) -> None:
    """Import image sets in January 2026, with studies of so many months of 2025."""
    rnd = random.Random(seed)  # noqa: S311
    for _ in range(count):
        number = len(endpoint.image_sets)
        at = round(endpoint.created_at + rnd.random() * 86400 * 30, 3)
        study = number // 3
        tags = {
            "DICOMPatientId": f"P{study % 40}",
            "DICOMPatientName": "Canary^Bird",
            "DICOMPatientBirthDate": "19500101",
            "DICOMStudyInstanceUID": f"1.2.{study}",
            "DICOMSeriesInstanceUID": f"1.2.{study}.{number}",
            "DICOMSeriesModality": rnd.choice(["CT", "MR"]),
            "DICOMStudyDate": f"2025{first_month + study % months:02d}15"
            if study % 10
            else "20240230",
            "DICOMStudyTime": "101500",
        }
        endpoint.image_sets.append(
            {"imageSetId": f"{number:032x}", "version": 1, "createdAt": at, "updatedAt": at,
             "isPrimary": True, "storageTier": "FREQUENT_ACCESS", "DICOMTags": tags}
        )  # fmt: skip


def change(endpoint: Endpoint, number: int, **tags: Any) -> None:
    """Give an image set a new version, an hour before now."""
    row = endpoint.image_sets[number]
    row["version"] += 1
    row["updatedAt"] = endpoint.now.timestamp() - 3600
    row["DICOMTags"] |= tags


def assert_equal_to_truth(root: str, endpoint: Endpoint) -> None:
    """Compare published/image_sets with the endpoint's own list, row by row."""
    published = read_table(root, "image_sets")
    assert not published.duplicated(["datastore_id", "image_set_id"]).any()
    rows = {
        row.image_set_id: (row.version, row.updated_at.timestamp(), row.Modality)
        for row in published.itertuples()
    }
    assert rows == {
        row["imageSetId"]: (
            row["version"], row["updatedAt"], row["DICOMTags"].get("DICOMSeriesModality")
        )
        for row in endpoint.image_sets
    }  # fmt: skip
