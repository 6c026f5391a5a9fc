"""The rights in docs/iam are those that are used: no call goes beyond them, and none is idle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws import ACTIONS
from emulated import emulated

import cohortlake
from cohortlake import Settings, Sync, take_hints
from cohortlake.hints import count_waiting
from emulator import Emulator

IAM = Path(__file__).parents[3] / "docs/iam"
HOW_TO = Path(__file__).parents[3] / "docs/how-to"
OF_KMS = {"kms:Decrypt", "kms:GenerateDataKey"}
"""What S3 asks of KMS for the caller, where a bucket has a key: no request of ours shows it."""


def statements(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((IAM / name).read_text())["Statement"]
    return found


def granted(*names: str) -> set[str]:
    return {action for name in names for one in statements(name) for action in one["Action"]}


@pytest.fixture
def hospital() -> Iterator[Emulator]:
    month, now = date(2026, 5, 1), "2026-06-01T12:00:00Z"
    with emulated(first_month=month, synthetic=12, seed=7, now=now, clock="stopped") as emulator:
        yield emulator


@pytest.fixture
def settings(hospital: Emulator, aws: str) -> Settings:
    s3 = boto3.client("s3")
    buckets = [uuid.uuid4().hex for _ in range(2)]
    for bucket in buckets:
        s3.create_bucket(Bucket=bucket)
    queue = boto3.client("sqs", region_name="us-east-1").create_queue(QueueName=buckets[0])
    root, published = (f"s3://{bucket}/a" for bucket in buckets)
    return Settings(
        hospital.datastores, root, tps=1000, published=published, events_queue=queue["QueueUrl"]
    )


# deltalake keeps Python's lock while it waits for S3 in these calls, and the tests' S3 is a thread.
_UPKEEP = """
import sys
from cohortlake import Settings, Sync

datastore_id, root, published, patient_id = sys.argv[1:]
work = Sync(Settings((datastore_id,), root, published=published))
work.maintain()
work.erase(patient_id, datastore_id)
"""


def everything(hospital: Emulator, settings: Settings) -> None:
    """Do all that a writer does."""
    Sync(settings).run()
    first, second, gone, *_ = (summary["imageSetId"] for summary in hospital.admin.truth())
    for sex in "MFO":
        hospital.admin.advance(seconds=60)
        hospital.admin.update(first, {"DICOMPatientSex": sex})
    hospital.admin.delete(gone)
    hospital.admin.advance(seconds=3600)
    event = {
        "source": "aws.medical-imaging",
        "detail-type": "Image Set Updated",
        "detail": {"datastoreId": hospital.datastores[0], "imageSetId": second},
    }
    sqs = boto3.client("sqs", region_name="us-east-1")
    sqs.send_message(QueueUrl=settings.events_queue, MessageBody=json.dumps(event))
    assert count_waiting(Sync(settings)) == 1
    assert take_hints(Sync(settings)).removed == 1
    Sync(settings).run(fill_versions=True)
    assert not Sync(settings).imports()[0].unknown_because
    assert Sync(settings).reconcile().applied.changes == {"deleted": 1}
    Sync(settings).rebuild()
    bucket, _, prefix = settings.root.removeprefix("s3://").partition("/")
    boto3.client("s3").create_multipart_upload(Bucket=bucket, Key=f"{prefix}/increments/cut")
    patient = next(iter(hospital.admin.truth()))["DICOMTags"]["DICOMPatientId"]
    arguments = (hospital.datastores[0], settings.root, settings.published, patient)
    subprocess.run((sys.executable, "-c", _UPKEEP, *arguments), check=True, timeout=120)


def test_a_writer_uses_the_rights_of_a_writer_and_all_of_them(
    hospital: Emulator, settings: Settings
) -> None:
    ACTIONS.clear()
    everything(hospital, settings)
    of_the_tests_own = {"sqs:SendMessage"}
    used = set(ACTIONS) - of_the_tests_own
    used |= {f"medical-imaging:{name}" for name in hospital.admin.stats()["requests"]}
    rights = granted("writer.json", "writer-events.json", "writer-versions.json")
    assert used == rights - OF_KMS
    assert rights > OF_KMS


def test_a_reader_uses_the_rights_of_a_reader_and_all_of_them(settings: Settings) -> None:
    Sync(settings).run()
    ACTIONS.clear()
    with cohortlake.open(settings.published) as lake:
        for table in lake.tables:
            lake.describe(table)
        cohort = lake.cohort("all", level="series").first_study_per_patient()
        assert len(cohort.to_pandas())
        lake.snapshots()
    assert set(ACTIONS) == granted("reader.json") - OF_KMS
    with cohortlake.open(settings.published) as lake:
        lake.cohort("all", level="series").freeze()
        lake.verify("all")
    assert set(ACTIONS) == granted("reader.json", "reader-cohorts.json") - OF_KMS


def test_without_the_rights_on_events_and_older_versions_a_writer_does_not_ask_for_them(
    hospital: Emulator, settings: Settings
) -> None:
    ACTIONS.clear()
    Sync(settings).run()
    Sync(settings).reconcile()
    used = {*ACTIONS} | {f"medical-imaging:{name}" for name in hospital.admin.stats()["requests"]}
    assert used < granted("writer.json")


@pytest.mark.parametrize("path", sorted(IAM.glob("*.json")), ids=lambda path: path.name)
def test_no_right_is_given_on_everything(path: Path) -> None:
    for statement in statements(path.name):
        resources = statement["Resource"]
        if statement["Effect"] == "Allow":
            assert "*" not in "".join(statement["Action"])
        for resource in [resources] if isinstance(resources, str) else resources:
            assert resource.startswith("arn:aws:")
            assert not resource.startswith(("arn:aws:s3:::*", "arn:aws:medical-imaging:*"))
        if "Principal" in statement:
            assert statement["Effect"] == "Deny", "rights are given to roles, not by buckets"


def test_a_reader_has_no_right_on_the_restricted_bucket() -> None:
    for name in ("reader.json", "reader-cohorts.json"):
        assert "RESTRICTED" not in (IAM / name).read_text()


def test_the_pages_name_the_same_rights() -> None:
    pages = "".join((HOW_TO / name).read_text() for name in ("aws.md", "events.md", "iceberg.md"))
    services = "medical-imaging|glue|s3|sqs|secretsmanager|kms"
    named = set(re.findall(rf"\b(?:{services}):[A-Z][a-z]\w+", pages))
    of_roles = [path.name for path in IAM.glob("*.json") if "bucket" not in path.name]
    named -= {"sqs:SendMessage"}  # EventBridge sends
    assert named == granted(*of_roles)
