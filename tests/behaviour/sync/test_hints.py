"""Events from SQS start a look at the service, and never change the lake by themselves."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from aws import allow
from command import command
from emulated import emulated, fill_lake
from truth import published, truth
from unpublished import unpublished

from cohortlake import Settings, Sync, read_table, take_hints
from cohortlake.errors import (
    AccessDenied,
    NoSuchDatastore,
    NoSuchQueue,
    ServiceUnavailable,
    SettingError,
)
from cohortlake.healthimaging import HealthImaging
from cohortlake.ingest.events import Message, Queue
from emulator import Emulator

HOSPITAL: dict[str, Any] = {
    "synthetic": 30,
    "seed": 7,
    "now": "2026-06-01T12:00:00Z",
    "clock": "stopped",
}


class Events:
    """The queue, as EventBridge and a person see it."""

    def __init__(self, hospital: Emulator) -> None:
        self._client = boto3.client("sqs", region_name="us-east-1")
        self._datastore_id = hospital.datastores[0]
        # Nothing stays unseen: what was not removed comes again at once.
        self.url = self._client.create_queue(
            QueueName=uuid.uuid4().hex, Attributes={"VisibilityTimeout": "0"}
        )["QueueUrl"]

    def keep_unseen(self) -> None:
        """Let what was received come again after half an hour only."""
        self._client.set_queue_attributes(
            QueueUrl=self.url, Attributes={"VisibilityTimeout": "1800"}
        )

    def send(self, body: str) -> None:
        self._client.send_message(QueueUrl=self.url, MessageBody=body)

    def tell(self, kind: str, image_set_id: str, spelling: str = "imageSetId") -> None:
        self.send(event(kind, self._datastore_id, {spelling: image_set_id}))

    def bodies(self) -> list[str]:
        answer = self._client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", ())]


def test_the_rule_of_the_guide_asks_for_all_that_changes_an_image_set() -> None:
    text = Path("docs/how-to/events.md").read_text(encoding="utf-8")
    pattern = json.loads(text.partition("```json\n")[2].partition("```")[0])
    kinds = [f"Image Set {done}" for done in ("Created", "Copied", "Updated", "Deleted")]
    assert pattern["detail-type"] == kinds


def event(
    kind: str, datastore_id: str, detail: dict[str, Any], source: str = "aws.medical-imaging"
) -> str:
    """An event as EventBridge puts it into a queue."""
    return json.dumps(
        {
            "version": "0",
            "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
            "detail-type": kind,
            "source": source,
            "account": "111122223333",
            "time": "2026-06-01T12:00:00Z",
            "region": "us-east-1",
            "resources": [],
            "detail": {"imagingVersion": "1.0", "datastoreId": datastore_id, **detail},
        }
    )


@pytest.fixture
def hospital(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulated(**HOSPITAL | getattr(request, "param", {})) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def filled_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of that hospital as it begins, of which each test gets a copy."""
    root = tmp_path_factory.mktemp("filled") / "lake"
    with emulated(**HOSPITAL) as emulator:
        fill_lake(emulator, root)
    return root


@pytest.fixture
def events(aws: str, hospital: Emulator, monkeypatch: pytest.MonkeyPatch) -> Events:
    monkeypatch.setattr("cohortlake.ingest.events._WAIT_SECONDS", 0)
    return Events(hospital)


@pytest.fixture
def sync(hospital: Emulator, events: Events, filled_lake: Path, tmp_path: Path) -> Sync:
    """A lake that was filled an hour ago."""
    shutil.copytree(filled_lake, tmp_path / "lake")
    settings = Settings(
        hospital.datastores,
        f"{tmp_path}/lake",
        tps=1000,
        events_queue=events.url,
        privacy="limited",
    )
    hospital.admin.advance(seconds=3600)
    return Sync(settings)


def test_a_data_store_that_fails_keeps_its_messages_and_holds_up_no_other(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    unknown, gone = "f" * 32, next(iter(hospital.admin.truth()))["imageSetId"]
    hospital.admin.delete(gone)
    hospital.admin.advance(seconds=600)
    events.tell("Image Set Deleted", gone)
    of_unknown = event("Image Set Created", unknown, {"imageSetId": "a" * 32})
    events.send(of_unknown)
    both = Sync(replace(sync.settings, datastores=(unknown, *hospital.datastores)))
    with pytest.raises(NoSuchDatastore, match=unknown):
        take_hints(both)
    both.publish()
    assert published(sync.settings.root) == truth(hospital)
    assert events.bodies() == [of_unknown]


def test_a_change_is_there_before_the_next_tick(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    first, second, *_ = sorted(truth(hospital))
    hospital.admin.update(first, {"DICOMPatientSex": "O"})
    created, copied = hospital.admin.import_summaries([{"DICOMTags": {}}] * 2)
    events.tell("Image Set Updated", first, "imagesetId")
    events.tell("Image Set Created", created)
    events.tell("Image Set Copied", copied)
    events.tell("Image Set Updated", second)  # which has not changed at all
    hospital.admin.advance(seconds=1)
    taken = take_hints(sync)
    assert (taken.messages, taken.hints, taken.removed) == (4, 4, 4)
    assert taken.changes == {"created": 2, "updated": 1}
    sync.publish()
    assert published(sync.settings.root) == truth(hospital)
    assert events.bodies() == []


def test_a_deletion_is_closed_with_its_proof(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    spellings = dict(zip(("imageSetId", "imagesetId"), sorted(truth(hospital)), strict=False))
    for spelling, gone in spellings.items():
        hospital.admin.delete(gone)
        for _ in range(2):  # EventBridge delivers at least once
            events.tell("Image Set Deleted", gone, spelling)
    taken = take_hints(sync)
    assert taken.changes == {"deleted": 2}
    assert (taken.messages, taken.removed, taken.unsettled) == (4, 4, 0)
    sync.publish()
    assert published(sync.settings.root) == truth(hospital)
    assert confirmations(sync) == dict.fromkeys(spellings.values(), "GetImageSet")


def confirmations(sync: Sync) -> dict[str, str]:
    folder = Path(sync.settings.root, "increments", sync.settings.datastores[0], "absence/events")
    files = folder.glob("*.parquet")
    return {
        row.image_set_id: row.confirmed_by
        for file in files
        for row in pd.read_parquet(file).itertuples()
    }


def test_where_get_is_denied_a_deletion_waits_in_the_queue_unless_searches_are_trusted(
    hospital: Emulator, events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: HealthImaging, datastore_id: str, _image_set_id: str) -> bool:
        raise AccessDenied("medical-imaging:GetImageSet", f"data store {datastore_id}")

    monkeypatch.setattr(HealthImaging, "has_image_set", denied)
    gone = min(truth(hospital))
    hospital.admin.delete(gone)
    events.tell("Image Set Deleted", gone)
    taken = take_hints(sync)
    assert (taken.changes, taken.unsettled, taken.unconfirmed, taken.removed) == ({}, 1, 1, 0)
    taken = take_hints(Sync(replace(sync.settings, trust_search=True)))
    assert (taken.changes, taken.unsettled, taken.unconfirmed) == ({"deleted": 1}, 0, 0)
    assert confirmations(sync) == {gone: "SearchImageSets"}


def test_an_event_alone_closes_nothing(hospital: Emulator, events: Events, sync: Sync) -> None:
    still_there, unknown = min(truth(hospital)), "f" * 32
    events.tell("Image Set Deleted", still_there)
    events.tell("Image Set Deleted", unknown)
    version = sync.apply().version
    for _ in range(2):
        taken = take_hints(sync)
        assert (taken.changes, taken.unsettled) == ({}, 1)
    assert sync.apply().version == version
    (left,) = events.bodies()
    assert still_there in left


def test_what_has_come_and_gone_since_the_last_tick_leaves_no_trace(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    (brief,) = hospital.admin.import_summaries([{"DICOMTags": {}}])
    hospital.admin.delete(brief)
    events.tell("Image Set Created", brief)
    events.tell("Image Set Deleted", brief)
    taken = take_hints(sync)
    assert (taken.changes, taken.removed) == ({}, 2)


@pytest.mark.parametrize("hospital", [{"index_lag_ms": 60_000}], indirect=True)
def test_what_a_search_still_finds_is_closed_later_and_does_not_come_back(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    gone = min(truth(hospital))
    hospital.admin.update(gone, {"DICOMPatientSex": "O"})
    hospital.admin.advance(seconds=90)
    with unpublished():
        sync.run()
    hospital.admin.advance(seconds=5)
    hospital.admin.delete(gone)
    events.tell("Image Set Deleted", gone)
    taken = take_hints(sync)
    assert (taken.changes, taken.unsettled, taken.removed) == ({}, 1, 0)
    hospital.admin.advance(seconds=90)
    taken = take_hints(sync)
    assert (taken.changes, taken.unsettled, taken.removed) == ({"deleted": 1}, 0, 1)
    sync.run()
    assert published(sync.settings.root) == truth(hospital)
    history = read_table(sync.settings.root, "history")
    assert "reappeared" not in set(history["change"])


def test_what_was_seen_in_the_second_it_went_is_closed_later(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    (brief,) = hospital.admin.import_summaries([{"DICOMTags": {"DICOMSeriesInstanceUID": "1.2"}}])
    hospital.admin.advance(seconds=1)
    with unpublished():
        sync.run()
    hospital.admin.delete(brief)
    events.tell("Image Set Deleted", brief)
    assert take_hints(sync).unsettled == 1
    hospital.admin.advance(seconds=1)
    assert take_hints(sync).changes == {"deleted": 1}
    sync.publish()
    assert published(sync.settings.root) == truth(hospital)


def test_a_run_that_dies_before_it_removes_the_messages_changes_nothing_twice(
    hospital: Emulator, events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, gone, *_ = sorted(truth(hospital))
    hospital.admin.update(changed, {"DICOMPatientSex": "O"})
    hospital.admin.delete(gone)
    hospital.admin.advance(seconds=1)
    events.tell("Image Set Updated", changed)
    events.tell("Image Set Deleted", gone)
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "remove", _killed)
        with pytest.raises(KeyboardInterrupt):
            take_hints(sync)
    version = sync.apply().version
    taken = take_hints(sync)
    assert (taken.messages, taken.removed, taken.changes) == (2, 2, {})
    assert sync.apply().version == version
    sync.publish()
    assert published(sync.settings.root) == truth(hospital)


def _killed(*_: object) -> int:
    raise KeyboardInterrupt


def test_messages_stay_while_the_service_is_away(
    hospital: Emulator, events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    gone = min(truth(hospital))
    hospital.admin.delete(gone)
    events.tell("Image Set Deleted", gone)
    hospital.admin.behave(error_rate=1.0)
    with pytest.raises(ServiceUnavailable):
        take_hints(sync)
    hospital.admin.behave(error_rate=0.0)
    assert take_hints(sync).changes == {"deleted": 1}


FOREIGN = {
    "no JSON": "{",
    "no text": "\ud800".encode("utf-8", "replace").decode(),
    "no object": "[]",
    "nothing": "null",
    "nested": "[" * 50_000,
    "no detail": json.dumps({"source": "aws.medical-imaging", "detail-type": "x"}),
    "an id that is none": event("Image Set Deleted", "a" * 32, {"imageSetId": "../" * 10}),
    "another service": event("Image Set Deleted", "a" * 32, {}, source="aws.s3"),
}


def test_what_is_no_event_of_healthimagings_stays_and_holds_up_nothing(
    hospital: Emulator, events: Events, sync: Sync
) -> None:
    for body in FOREIGN.values():
        events.send(body)
    gone = min(truth(hospital))
    hospital.admin.delete(gone)
    events.tell("Image Set Deleted", gone)
    taken = take_hints(sync)
    assert (taken.foreign, taken.removed) == (len(FOREIGN), 1)
    assert taken.changes == {"deleted": 1}
    assert sorted(events.bodies()) == sorted(FOREIGN.values())


def test_other_events_of_healthimagings_are_removed(events: Events, sync: Sync) -> None:
    events.send(event("Image Set Deleted", "a" * 32, {"imageSetId": "b" * 32}))
    events.send(event("Import Job Completed", sync.settings.datastores[0], {"jobId": "c" * 32}))
    taken = take_hints(sync)
    assert (taken.messages, taken.hints, taken.foreign, taken.removed) == (2, 0, 0, 2)


def test_the_command_line_acts_and_publishes(
    hospital: Emulator, events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, *_ = sorted(truth(hospital))
    hospital.admin.delete(gone)
    events.tell("Image Set Deleted", gone)
    monkeypatch.setenv("COHORTLAKE_EVENTS_QUEUE", events.url)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", hospital.datastores[0])
    monkeypatch.setenv("COHORTLAKE_ROOT", sync.settings.root)
    monkeypatch.setenv("COHORTLAKE_PRIVACY", sync.settings.privacy)
    for said in ("1 messages, 1 hints, 1 removed", "0 messages"):
        done = command("events")
        assert done.exit_code == 0, done.stderr
        assert said in done.stdout
    assert published(sync.settings.root) == truth(hospital)


def test_a_flood_is_taken_in_turns(
    events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.ingest.events._MOST_AT_ONCE", 20)
    events.keep_unseen()
    for _ in range(33):
        events.tell("Image Set Updated", "f" * 32)
    assert [take_hints(sync).removed for _ in range(3)] == [20, 13, 0]


def test_a_queue_that_cannot_be_read_says_the_fix(
    events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoSuchQueue, match="COHORTLAKE_EVENTS_QUEUE and AWS_REGION"):
        Queue(events.url + "x").receive()
    with pytest.raises(SettingError, match="COHORTLAKE_EVENTS_QUEUE is not set"):
        Queue("")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    with pytest.raises(ServiceUnavailable, match="AWS_ENDPOINT_URL_SQS"):
        Queue(events.url).waiting()


def test_a_missing_right_is_named(
    aws: str, events: Events, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.send("{}")
    allow(monkeypatch, aws)
    for action, call in (
        ("GetQueueAttributes", Queue.waiting),
        ("ReceiveMessage", Queue.receive),
        ("DeleteMessage", lambda queue: queue.remove([Message("x", None)])),
    ):
        with pytest.raises(AccessDenied, match=f"sqs:{action}"):
            call(Queue(events.url))
