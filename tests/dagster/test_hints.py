"""The sensor and its job: events in a queue, over HTTP, on an instance in memory."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import dagster as dg
import pytest
from endpoint import DATASTORE, Endpoint

from cohortlake import Settings, Sync

from .conftest import Run
from .store import checks, image_set, published_ids

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def queue(aws: str, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The queue that the deployment's settings name."""
    sqs = boto3.resource("sqs", region_name="us-east-1")
    made = sqs.create_queue(QueueName=uuid.uuid4().hex)
    monkeypatch.setenv("COHORTLAKE_EVENTS_QUEUE", made.url)
    return made


def deleted(image_set_id: str) -> str:
    return json.dumps(
        {
            "source": "aws.medical-imaging",
            "detail-type": "Image Set Deleted",
            "detail": {"datastoreId": DATASTORE, "imageSetId": image_set_id},
        }
    )


def evaluated(deployment: ModuleType, instance: dg.DagsterInstance) -> tuple[int, str | None]:
    """How many runs the sensor asks for, or why it asks for none."""
    sensor = deployment.defs.resolve_sensor_def("queue_of_events")
    with dg.build_sensor_context(instance=instance, resources=deployment.RESOURCES) as context:
        data = sensor.evaluate_tick(context)
    return len(data.run_requests or ()), data.skip_message


def test_what_events_say_is_looked_into_and_the_messages_are_gone(
    endpoint: Endpoint, deployment: ModuleType, run: Run, instance: dg.DagsterInstance,
    lake: Path, queue: Any,
) -> None:  # fmt: skip
    endpoint.image_sets = [image_set(i, NOON) for i in range(3)]
    Sync(Settings.from_env()).run()
    assert evaluated(deployment, instance) == (0, "no events wait")

    gone = endpoint.image_sets.pop()["imageSetId"]
    endpoint.now += timedelta(minutes=1)
    endpoint.image_sets.append(image_set(7, endpoint.now - timedelta(seconds=30)))
    queue.send_message(MessageBody=deleted(gone))
    assert evaluated(deployment, instance) == (1, None)
    result = run("hints")
    assert result.success
    assert all(checks(result).values())
    assert published_ids(lake) == {row["imageSetId"] for row in endpoint.image_sets}
    event = instance.get_latest_materialization_event(dg.AssetKey("event_hints"))
    metadata = event.asset_materialization.metadata
    told = {name: metadata[name].value for name in ("hints", "removed", "created", "deleted")}
    assert told == {"hints": 1, "removed": 1, "created": 1, "deleted": 1}
    assert evaluated(deployment, instance) == (0, "no events wait")


def test_the_sensor_passes_while_a_run_is_at_work(
    deployment: ModuleType, instance: dg.DagsterInstance, queue: Any
) -> None:
    queue.send_message(MessageBody=deleted("f" * 32))
    job = deployment.defs.resolve_job_def("hints")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert evaluated(deployment, instance) == (0, "an earlier run of hints has not finished")


def test_without_a_queue_the_sensor_says_so(
    deployment: ModuleType, instance: dg.DagsterInstance, lake: Path
) -> None:
    assert evaluated(deployment, instance) == (0, "COHORTLAKE_EVENTS_QUEUE is not set")


def test_a_run_that_fails_leaves_the_messages(
    endpoint: Endpoint, run: Run, lake: Path, queue: Any
) -> None:
    endpoint.denied = {"GetDatastore"}
    queue.set_attributes(Attributes={"VisibilityTimeout": "0"})
    queue.send_message(MessageBody=deleted("f" * 32))
    result = run("hints")
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "medical-imaging:GetDatastore" in failure.step_failure_data.user_failure_data.description
    assert len(queue.receive_messages()) == 1
