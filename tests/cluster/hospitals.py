"""Emulated hospitals with a day on which much changed, and the lake compared with them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
from chaos import truth

from cluster.servers import LOOPBACK
from emulator.control.client import AdminClient

_UIDS = (
    "DICOMStudyInstanceUID",
    "DICOMSeriesInstanceUID",
    "DICOMPatientId",
    "DICOMAccessionNumber",
)
NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_REGION": "us-east-1",
}


def migrate(endpoint: str, datastore_id: str, count: int) -> None:
    """Import copies of a data store's image sets, as of the last three days.

    A search by updatedAt needs many requests for these days, and few for all others.
    """
    admin = AdminClient(endpoint)
    chance = random.Random(datastore_id)  # noqa: S311
    rows = list(admin.truth(datastore_id=datastore_id))
    now = admin.clock()["epochSeconds"]
    copies = list(islice(_copies(rows, now, chance), count))
    for start in range(0, count, 2000):
        admin.import_summaries(copies[start : start + 2000], datastore_id=datastore_id)


def _copies(
    rows: list[dict[str, Any]], now: float, chance: random.Random
) -> Iterator[dict[str, Any]]:
    number = 0
    while True:
        number += 1
        for row in rows:
            at = round(now - chance.uniform(600, 3 * 86400), 3)
            tags = row["DICOMTags"]
            own = {name: f"{tags[name]}.{number}"[-64:] for name in _UIDS if tags.get(name)}
            yield row | {
                "imageSetId": f"{chance.getrandbits(128):032x}", "version": 1, "createdAt": at,
                "updatedAt": at, "lastAccessedAt": at, "DICOMTags": tags | own,
            }  # fmt: skip


def days(endpoint: str, datastore_id: str, first: str) -> list[str]:
    """Return the keys of a data store's days from the first to the service's today."""
    today = datetime.fromtimestamp(AdminClient(endpoint).clock()["epochSeconds"]).date()
    begin = datetime.fromisoformat(first).date()
    return [
        f"{datastore_id}|{begin + timedelta(days=number)}"
        for number in range((today - begin).days + 1)
    ]


def bucket(s3: str, name: str) -> Any:
    """Make a bucket, and return it."""
    resource = boto3.resource(
        "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106
    )  # fmt: skip
    return resource.create_bucket(Bucket=name)


def differences(objects: Any, folder: Path, endpoint: str, datastores: list[str]) -> list[str]:
    """Compare the published files of a lake on S3 with the state of its data stores."""
    for item in objects.filter(Prefix="published/"):
        path = folder / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.get()["Body"].read())
    tables = truth.read(folder)
    admin = AdminClient(endpoint)
    found = []
    for datastore_id in datastores:
        own = {
            name: [row for row in rows if row["datastore_id"] == datastore_id]
            for name, rows in tables.items()
        }
        found += truth.differences(own, admin.truth(datastore_id=datastore_id))
    return found


def settings(
    s3: str, endpoint: str, datastores: list[str], root: str, postgres: int, database: str,
    redis: int, redis_database: int, **more: str,
) -> dict[str, str]:  # fmt: skip
    """Return what cluster.env holds for an emulated account."""
    return (
        NO_CREDENTIALS
        | {
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": endpoint,
            "COHORTLAKE_DATASTORES": ",".join(datastores),
            "COHORTLAKE_ROOT": root,
            "COHORTLAKE_PRIVACY": "identified",
            "DAGSTER_POSTGRES_HOST": LOOPBACK,
            "DAGSTER_POSTGRES_PORT": str(postgres),
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": "unused",
            "DAGSTER_POSTGRES_DB": database,
            "DAGSTER_CELERY_BROKER": f"redis://{LOOPBACK}:{redis}/{redis_database}",
        }
        | more
    )
