"""The deployment, a lake for it, and a Dagster instance in memory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from endpoint import DATASTORE

from cohortlake.ingest import partitions

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="session")
def deployment() -> Iterator[ModuleType]:
    """`pipelines.definitions`, loaded with one data store set."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("assets", "pipelines")]:
        del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COHORTLAKE_DATASTORES", DATASTORE)
        yield importlib.import_module("pipelines.definitions")


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root that the deployment's settings name."""
    monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("COHORTLAKE_DATASTORES", DATASTORE)
    monkeypatch.setenv("COHORTLAKE_TPS", "1000")
    monkeypatch.setenv("COHORTLAKE_PRIVACY", "limited")
    # One worker, so that it is known which days are written before a failure.
    monkeypatch.setenv("COHORTLAKE_WORKERS", "1")
    monkeypatch.setattr(partitions, "FIRST_MONTH", date(2025, 11, 1))  # few months, less to wait
    return tmp_path / "lake"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as in_memory:
        yield in_memory


@pytest.fixture
def run(deployment: ModuleType, instance: dg.DagsterInstance) -> Run:
    """Run a job in this process: `run("tick")`, with other resources, or a range of keys."""

    def execute(
        job: str,
        *,
        keys: tuple[str, str] | None = None,
        on: dg.DagsterInstance = instance,
        **resources: Any,
    ) -> dg.ExecuteInProcessResult:
        definitions = deployment.build_defs(resources) if resources else deployment.defs
        names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        return definitions.resolve_job_def(job).execute_in_process(
            instance=on,
            tags=dict(zip(names, keys, strict=True)) if keys else None,
            raise_on_error=False,
        )

    return execute
