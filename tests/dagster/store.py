"""What lies in the data store, and what the runs brought of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import dagster as dg
from endpoint import DATASTORE

from cohortlake import read_table

INCREMENTS = dg.AssetKey("image_set_increments")


def image_set(number: int, updated_at: datetime, **tags: str) -> dict[str, Any]:
    uid = f"1.2.840.{number}"
    return {
        "imageSetId": f"{number:032x}",
        "version": 1,
        "createdAt": updated_at.timestamp(),
        "updatedAt": updated_at.timestamp(),
        "DICOMTags": {
            "DICOMPatientId": f"P{number % 3}",
            "DICOMStudyInstanceUID": f"{uid}.1",
            "DICOMSeriesInstanceUID": f"{uid}.2",
            "DICOMStudyDate": "20251215",
            "DICOMStudyTime": "101500",
            "DICOMSeriesModality": "CT",
            **tags,
        },
    }


def published_ids(lake: object) -> set[str]:
    return set(read_table(str(lake), "image_sets")["image_set_id"])


def days(instance: dg.DagsterInstance) -> set[str]:
    """The days of the data store that Dagster has on record."""
    keys = instance.get_materialized_partitions(INCREMENTS)
    assert all(key.startswith(f"{DATASTORE}|") for key in keys)
    return {key.removeprefix(f"{DATASTORE}|") for key in keys}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
