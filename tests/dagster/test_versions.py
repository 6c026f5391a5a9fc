"""The job that is started by hand: versions that no search saw, over HTTP."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from endpoint import Endpoint

from cohortlake import read_table

from .conftest import Run
from .store import checks, image_set

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_job_reads_what_is_missing_and_publishes_it(
    endpoint: Endpoint, run: Run, lake: Path
) -> None:
    row = image_set(1, NOON) | {"version": 3}
    endpoint.image_sets = [row, image_set(2, NOON)]
    document = {"Patient": {"DICOM": {"PatientID": "P1"}}, "Study": {"DICOM": {}}}
    for version in (1, 2):
        listed = {
            "imageSetId": row["imageSetId"],
            "versionId": str(version),
            "imageSetState": "ACTIVE",
            "createdAt": NOON.timestamp() - 100,
            "updatedAt": NOON.timestamp() - 100 + version,
        }
        content = gzip.compress(json.dumps(document).encode())
        endpoint.versions[row["imageSetId"], version] = listed, content
    assert run("tick").success
    assert len(read_table(str(lake), "history")) == 2

    endpoint.denied = {"GetImageSetMetadata"}
    denied = run("fill_versions")
    assert not denied.success
    failure = denied.filter_events(lambda event: event.is_step_failure)[0]
    assert "medical-imaging:GetImageSetMetadata" in str(failure.event_specific_data)
    endpoint.denied = set()
    result = run("fill_versions")
    assert result.success
    assert all(checks(result).values())
    (event,) = result.asset_materializations_for_node("older_versions")
    told = {name: value.value for name, value in event.metadata.items()}
    assert (told["documents"], told["versions"], told["archived"]) == (2, 2, 0)
    history = read_table(str(lake), "history")
    assert sorted(history["version"]) == [1, 1, 2, 3]
    assert isinstance(event, dg.AssetMaterialization)
