from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, because a schedule opens it again."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as kept:
        yield kept


def evaluated(
    deployment: ModuleType, instance: dg.DagsterInstance, name: str
) -> tuple[list[dg.RunRequest], str | None]:
    schedule = deployment.defs.resolve_schedule_def(name)
    data = schedule.evaluate_tick(dg.build_schedule_context(instance=instance))
    return list(data.run_requests or ()), data.skip_message


@pytest.mark.parametrize("name", ["tick", "reconcile", "reconcile_undated", "maintain"])
def test_a_schedule_asks_for_one_run_that_names_no_partition(
    deployment: ModuleType, instance: dg.DagsterInstance, name: str
) -> None:
    (request,), _ = evaluated(deployment, instance, name)
    assert request.partition_key is None
    assert not [tag for tag in request.tags if "partition" in tag]


def test_it_passes_while_an_earlier_run_is_at_work(
    deployment: ModuleType, instance: dg.DagsterInstance
) -> None:
    for name in ("reconcile", "tick"):
        job = deployment.defs.resolve_job_def(name)
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        requests, why = evaluated(deployment, instance, name)
        assert requests == []
        assert why == f"an earlier run of {name} has not finished"
    assert evaluated(deployment, instance, "reconcile_undated")[0]
