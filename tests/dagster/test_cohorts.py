"""Cohorts kept as YAML files are assets: drawn after publishing, each with checks of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg
import pandas as pd
import pytest
from endpoint import DATASTORE, Endpoint

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.schema import PUBLISHED

from .store import checks, image_set, loaded_anew

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


MISNAMED = ["CT.yaml", "a b.yaml", "all.yml", "ct-1.yaml"]


@pytest.fixture
def with_cohorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The deployment, loaded where there are two cohorts, one of which cannot be read."""
    folder = tmp_path / "cohorts"
    folder.mkdir()
    (folder / "cts.yaml").write_text(
        "cohort: cts\nsteps:\n- where: {Modality: CT}\n- one_study_per_patient: last\n"
    )
    (folder / "broken.yaml").write_text("cohort: broken\nstep: []\n")
    for name in MISNAMED:
        (folder / name).write_text("cohort: cts\n")
    monkeypatch.setenv("COHORTLAKE_COHORTS", str(folder))
    monkeypatch.setenv("COHORTLAKE_DATASTORES", DATASTORE)
    with loaded_anew() as deployment:
        yield deployment


def tick(deployment: ModuleType, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = deployment.defs.resolve_job_def("tick")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def test_they_are_drawn_after_publishing_and_verified(
    with_cohorts: ModuleType, endpoint: Endpoint, lake: Path, instance: dg.DagsterInstance
) -> None:
    endpoint.image_sets = [image_set(n, NOON + n * timedelta(hours=1)) for n in range(6)]
    result = tick(with_cohorts, instance)
    (drawn,) = result.asset_materializations_for_node("cohort_cts")
    assert drawn.metadata["dagster/row_count"].value == 3
    assert drawn.metadata["patients"].value == 3
    members = pd.read_parquet(lake / "cohorts/cts/current/members.parquet")
    assert members["patient_key"].nunique() == len(members) == 3
    assert checks(result)["has_members"]
    assert checks(result)["equals_frozen"]

    # Files that can be no cohort's have no asset, and a check says which.
    (check,) = [
        evaluated
        for evaluated in result.get_asset_check_evaluations()
        if evaluated.check_name == "cohort_files_have_names_of_cohorts"
    ]
    assert not check.passed
    assert check.metadata["files"].value == ", ".join(MISNAMED)

    # A file that cannot be read fails alone, and says why.
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert failure.step_key == "cohort_broken"
    assert "did you mean 'steps'" in str(failure.event_specific_data)

    with cohortlake.open(str(lake)) as opened:
        opened.load_cohort(lake.parent / "cohorts/cts.yaml").freeze()
    endpoint.image_sets.append(image_set(7, endpoint.now, DICOMStudyDate="20260101"))
    endpoint.now += timedelta(minutes=1)
    result = tick(with_cohorts, instance)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "equals_frozen"]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["frozen"].value == "cts@1"
    assert (check.metadata["joined"].value, check.metadata["left"].value) == (1, 1)


def test_a_frozen_cohort_that_cannot_be_drawn_again_is_reported(
    with_cohorts: ModuleType, endpoint: Endpoint, lake: Path, instance: dg.DagsterInstance
) -> None:
    endpoint.image_sets = [image_set(n, NOON) for n in range(2)]
    Sync(Settings.from_env()).run()
    with cohortlake.open(str(lake)) as opened:
        everybody = opened.sql("SELECT patient_key FROM patients").to_pandas()
        opened.attach("registry", everybody)
        opened.cohort("cts").join("registry").freeze()
    endpoint.image_sets.append(image_set(3, endpoint.now))
    endpoint.now += timedelta(minutes=1)
    result = tick(with_cohorts, instance)
    assert result.asset_materializations_for_node("cohort_cts")
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "equals_frozen"]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["frozen"].value == "cts@1"
    assert "'registry' is not a table" in str(check.metadata["cannot_be_verified"].value)


def test_a_cohort_without_members_is_noticed(
    with_cohorts: ModuleType,
    endpoint: Endpoint,
    lake: Path,
    instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:
    (tmp_path / "cohorts/cts.yaml").write_text("cohort: cts\nsteps: [where: Modality = 'PT']\n")
    endpoint.image_sets = [image_set(1, NOON)]
    assert not checks(tick(with_cohorts, instance))["has_members"]


def test_the_definitions_hold_them(with_cohorts: ModuleType) -> None:
    graph = with_cohorts.defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey("cohort_cts"))
    assert {key.to_user_string() for key in node.parent_keys} == {
        f"published_{table}" for table in PUBLISHED
    }
    assert {key.name for key in node.check_keys} == {"has_members", "equals_frozen"}
    for job in ("tick", "backfill", "reconcile", "reconcile_undated", "hints"):
        selected = with_cohorts.defs.resolve_job_def(job).asset_layer.selected_asset_keys
        assert dg.AssetKey("cohort_cts") in selected
