"""The sensors that tell people, against a webhook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from endpoint import Endpoint
from small_hospital import fill
from webhook import Webhook, listening

from cohortlake import Settings, Sync

from .conftest import Run


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with listening() as found:
        monkeypatch.setenv("COHORTLAKE_NOTIFY", found.url)
        yield found


@pytest.fixture
def look(
    deployment: ModuleType, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Evaluate a sensor once more, with its cursor."""
    # The endpoint's clock stands still long ago.
    monkeypatch.setattr("pipelines.alerts._WITHIN", timedelta(days=36500))
    cursors: dict[str, str | None] = {}
    repository = deployment.defs.get_repository_def()

    def evaluate(name: str) -> None:
        sensor = deployment.defs.resolve_sensor_def(name)
        context = dg.build_sensor_context(
            instance=instance, cursor=cursors.get(name), resources=deployment.RESOURCES,
            repository_def=repository,
        )  # fmt: skip
        with context:
            cursors[name] = sensor.evaluate_tick(context).cursor

    return evaluate


def test_what_is_wrong_is_told_once_and_so_is_its_end(
    endpoint: Endpoint, lake: Path, webhook: Webhook, look: Any
) -> None:
    fill(endpoint, 10)
    Sync(Settings.from_env()).run()
    for _ in range(3):
        look("state_of_lake")
    assert webhook.messages == []
    (lost, *_) = sorted((lake / "published/series").rglob("*.parquet"))
    shutil.move(lost, lake / "lost")
    look("state_of_lake")
    assert webhook.messages == [], "a run may be at work"
    for _ in range(3):
        look("state_of_lake")
    (message,) = webhook.messages
    assert message["title"] == "Cohortlake: damaged"
    assert "runbook.md#published-damaged" in message["message"]
    shutil.move(lake / "lost", lost)
    for _ in range(3):
        look("state_of_lake")
    assert [m["title"] for m in webhook.messages[1:]] == ["Cohortlake: healthy"]


def test_a_failed_run_and_a_failing_check_are_told_without_values(
    endpoint: Endpoint, deployment: ModuleType, instance: dg.DagsterInstance, run: Run,
    lake: Path, webhook: Webhook, look: Any,
) -> None:  # fmt: skip
    fill(endpoint, 10)
    look("failing_checks")
    assert run("tick").success, "with a warning: a date is none"
    look("failing_checks")
    assert webhook.messages == []
    for passed in (False, False, True, True):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey("image_sets"),
                check_name="axes_agree",
                passed=passed,
                description="CANARY",
            )
        )
        look("failing_checks")
    assert [message["title"] for message in webhook.messages] == [
        "Cohortlake: 1 asset checks fail", "Cohortlake: all checks pass"
    ]  # fmt: skip
    assert "- image_sets: axes_agree" in webhook.messages.pop(0)["message"]
    assert "CANARY" not in str(webhook.messages.pop())
    endpoint.image_sets[0]["DICOMTags"]["DICOMPatientId"] = "CANARY"
    endpoint.misbehaviour = (403, b'{"message": "CANARY"}', "AccessDeniedException")
    failed = run("tick")
    assert not failed.success
    sensor = deployment.defs.resolve_sensor_def("failed_run")
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_run",
        dagster_event=failed.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=failed.dagster_run,
    ).for_run_failure()
    sensor(context)
    (message,) = webhook.messages
    assert message["title"] == "Cohortlake: a run of tick failed"
    assert failed.run_id in message["message"]
    assert "CANARY" not in str(message)


def test_without_a_target_they_are_silent(lake: Path, look: Any) -> None:
    look("state_of_lake")
    look("failing_checks")
