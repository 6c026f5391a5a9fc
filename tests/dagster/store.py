"""Image sets for the data store, and what the runs found of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType
from typing import Any

import dagster as dg
from endpoint import DATASTORE

from cohortlake import read_table

INCREMENTS = dg.AssetKey("image_set_increments")


@contextmanager
def loaded_anew() -> Iterator[ModuleType]:
    """Load `pipelines.definitions` under the settings that are set now, until the block ends."""
    others = {name: sys.modules.pop(name) for name in _modules()}
    try:
        yield importlib.import_module("pipelines.definitions")
    finally:
        for name in _modules():
            del sys.modules[name]
        sys.modules.update(others)


def _modules() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] in ("assets", "pipelines")]


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
