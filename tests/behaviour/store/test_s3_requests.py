"""How many requests a lake on S3 costs: they are time and money. See `benchmarks.s3_requests`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date

import boto3
from aws import ACTIONS
from emulated import emulated
from truth import published, truth

from cohortlake import Settings, Sync
from cohortlake.increments import files
from cohortlake.storage.root import Root

_LOOKS = 110
"""Requests that a run makes however much it writes: listings, logs, markers, keys."""
_QUIET = 20


def counted(work: Callable[[], object]) -> int:
    before = len(ACTIONS)
    work()
    return len(ACTIONS) - before


def test_requests_grow_with_what_is_written_and_are_few_otherwise(aws: str) -> None:
    bucket = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=bucket)
    with emulated(
        first_day=date(2026, 3, 1),
        first_month=date(2025, 1, 1),
        synthetic=60,
        seed=7,
        now="2026-06-01T12:00:00Z",
        clock="stopped",
    ) as hospital:
        settings = Settings(hospital.datastores, f"s3://{bucket}/a", tps=1000, privacy="limited")
        sync = Sync(settings)
        first = counted(sync.run)
        publication = Sync(settings).publish()
        assert publication is not None
        increments = len(files.listed(Root(settings.root)))
        assert increments > 90  # a day each
        assert len(publication.files) > 30
        # Each increment is written, and read if it has rows; each published file is written.
        assert first <= 2 * increments + len(publication.files) + _LOOKS

        hospital.admin.advance(seconds=1800)
        quiet = Sync(settings)
        assert counted(quiet.run) <= _QUIET

        swept = Sync(settings)
        reconciled = counted(swept.reconcile)
        sweeps = len(files.listed(Root(settings.root))) - increments
        assert sweeps > 17  # a month each
        assert reconciled <= sweeps + _LOOKS

        for image_set_id in sorted(truth(hospital))[:5]:
            hospital.admin.update(image_set_id, {"DICOMPatientSex": "O"})
        hospital.admin.advance(seconds=1800)
        run = Sync(settings)
        for datastore_id in settings.datastores:
            store = run.datastore(datastore_id)
            list(run.extract(store, run.due(store)))
        run.apply()
        written = []
        publishing = Sync(settings)  # which has looked at nothing yet
        requests = counted(lambda: written.extend(publishing.publish().written))  # type: ignore[union-attr]
        assert len(written) > 4
        assert requests <= 3 * len(written) + 50
        assert published(settings.root) == truth(hospital)
