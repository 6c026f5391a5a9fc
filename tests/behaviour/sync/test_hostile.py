"""Texts that would lead somewhere else if they became part of a path, from whoever sends them."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from endpoint import DATASTORE, Endpoint
from small_hospital import assert_equal_to_truth, fill

from cohortlake import Settings, Sync, read_table
from cohortlake.errors import SettingError
from cohortlake.healthimaging import client
from cohortlake.ingest import partitions
from cohortlake.ingest.events import read_event
from cohortlake.schema import DICOM_TAGS

HOSTILE = (
    "../../x", "/etc/x", "..", ".", "%2e%2e%2fx", "x/../../y", "x\0y", "x\ny", "a" * 5000, "~/x",
    "C:\\x", "study_month=2020-01/x", "*", "'; DROP TABLE current; --", "\u202e..", "-rf",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_.=-]{1,120}")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "FIRST_MONTH", date(2024, 1, 1))
    monkeypatch.setattr(client, "_LONGEST_WAIT_SECONDS", 0.001)


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def row(endpoint: Endpoint, image_set_id: str, tags: dict[str, Any]) -> dict[str, Any]:
    at = endpoint.created_at + 3600
    return {"imageSetId": image_set_id, "version": 1, "createdAt": at, "updatedAt": at,
            "DICOMTags": tags}  # fmt: skip


def test_no_value_of_a_tag_becomes_part_of_a_path(
    endpoint: Endpoint, lake_settings: Settings, tmp_path: Path
) -> None:
    for number, text in enumerate(HOSTILE):
        tags = {column.wire: text for column in DICOM_TAGS if column.vr != "IS"} | {text: text}
        endpoint.image_sets.append(row(endpoint, f"{number:032x}", tags) | {text: text})
    Sync(lake_settings).run()
    Sync(lake_settings).reconcile()
    Sync(lake_settings).erase(HOSTILE[0], DATASTORE)
    assert len(read_table(lake_settings.root, "image_sets")) == len(HOSTILE) - 1
    assert {path.split("/")[0] for path in everything_below(tmp_path)} == {"lake"}
    for path in everything_below(Path(lake_settings.root)):
        assert all(_NAME.fullmatch(part) for part in path.split("/")), path


def test_image_set_ids_of_a_new_shape_are_kept_and_become_no_path(
    endpoint: Endpoint, lake_settings: Settings, tmp_path: Path
) -> None:
    fill(endpoint, 3)
    ids = (*HOSTILE, str(UUID(int=7)))
    endpoint.image_sets += [row(endpoint, text, {"DICOMSeriesModality": "CT"}) for text in ids]
    with pytest.warns(UserWarning, match="ids that are not 32 lower-case"):
        Sync(lake_settings).run()
        assert_equal_to_truth(lake_settings.root, endpoint)
        del endpoint.image_sets[3:]
        endpoint.now += timedelta(hours=1)
        Sync(lake_settings).reconcile(accept_deletions=True)
    assert_equal_to_truth(lake_settings.root, endpoint)
    assert {path.split("/")[0] for path in everything_below(tmp_path)} == {"lake"}
    for path in everything_below(Path(lake_settings.root)):
        assert all(_NAME.fullmatch(part) for part in path.split("/")), path


@pytest.mark.parametrize("text", HOSTILE)
def test_nobody_can_name_such_a_data_store(text: str) -> None:
    with pytest.raises(SettingError, match="COHORTLAKE_DATASTORES"):
        Settings.from_env({"COHORTLAKE_DATASTORES": text})
    detail = {"datastoreId": text, "imageSetId": text}
    event = {"source": "aws.medical-imaging", "detail-type": "Image Set Deleted", "detail": detail}
    assert read_event(json.dumps(event)) is None
