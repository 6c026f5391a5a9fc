"""What the code location offers, held against `definitions.json`.

Where a change is meant, write the new one: the failing test's message holds it.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest

from cohortlake.errors import SettingError

from .store import loaded_anew

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("definitions.json")


def described(defs: dg.Definitions) -> dict[str, Any]:
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in sorted(graph.get_all_asset_keys())]
    return {
        "assets": {
            node.key.to_user_string(): {
                "deps": sorted(key.to_user_string() for key in node.parent_keys),
                "group": node.group_name,
                "freshness": str(node.freshness_policy_or_from_metadata or ""),
                "kinds": sorted(node.kinds),
                "partitions": str(node.partitions_def or ""),
                "policy": str(node.backfill_policy or ""),
                "pools": sorted(node.pools or ()),
                "checks": sorted(key.name for key in node.check_keys),
            }
            for node in nodes
        },
        "jobs": {
            job.name: {
                "assets": sorted(
                    key.to_user_string() for key in job.asset_layer.selected_asset_keys
                ),
                "run_tags": dict(job.run_tags),
            }
            for job in defs.resolve_all_job_defs()
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: [
                schedule.job_name,
                schedule.cron_schedule,
                schedule.default_status.value,
            ]
            for schedule in defs.schedules or ()
        },
        "sensors": {
            sensor.name: [
                sensor.job_name if sensor.targets else None,
                sensor.minimum_interval_seconds,
                sensor.default_status.value,
            ]
            for sensor in defs.sensors or ()
        },
    }


def test_the_definitions_are_the_known_ones(deployment: ModuleType) -> None:
    found = json.dumps(described(deployment.defs), indent=1)
    assert json.loads(found) == json.loads(SNAPSHOT.read_text()), found


def test_they_can_be_run(deployment: ModuleType) -> None:
    dg.Definitions.validate_loadable(deployment.defs)


def test_each_asset_has_its_columns(deployment: ModuleType) -> None:
    for spec in deployment.defs.resolve_all_asset_specs():
        columns = spec.metadata["dagster/column_schema"].columns
        assert columns
        assert all(column.description for column in columns)


def test_a_dicom_column_carries_its_tag_and_vr(deployment: ModuleType) -> None:
    spec = deployment.defs.resolve_assets_def("image_sets").get_asset_spec()
    columns = {column.name: column for column in spec.metadata["dagster/column_schema"].columns}
    assert columns["StudyDate"].tags["dicom_tag"] == "(0008,0020)"
    assert columns["StudyDate"].tags["dicom_vr"] == "DA"


def test_it_loads_without_data_stores_but_not_with_wrong_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COHORTLAKE_DATASTORES", "")
    with loaded_anew() as deployment:
        deployment.defs.resolve_asset_graph()
    monkeypatch.setenv("COHORTLAKE_DATASTORES", "not-an-id")
    says = "COHORTLAKE_DATASTORES: 'not-an-id' is not a data store id"
    with pytest.raises(SettingError, match=says), loaded_anew():
        pass


def test_the_instance_settings_are_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
