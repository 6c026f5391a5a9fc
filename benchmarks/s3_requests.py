"""Claim: on S3, requests grow with what is written, and a tick with nothing new makes few.

    python -m benchmarks.s3_requests                       # 5,000 image sets over three years
    python -m benchmarks.s3_requests --image-sets 1000

moto's server stands for S3, in this process, and counts. The emulator serves the hospital. Measured
are a first load, a tick with nothing new, a reconciliation of all study months, and the publication
of what a day brings. Prints a Markdown table. Requests do not depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import boto3

from cohortlake import Settings, Sync
from emulator import running

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from aws import ACTIONS, serving

NOW = "2026-11-01T12:00:00Z"


def main() -> None:
    """Count, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--image-sets", type=int, default=5000)
    image_sets = arguments.parse_args().image_sets
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "none"
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    with serving() as s3, running(synthetic=image_sets, seed=1, now=NOW, clock="stopped") as aws:
        os.environ |= {
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": aws.endpoint,
        }
        bucket = uuid.uuid4().hex
        boto3.client("s3").create_bucket(Bucket=bucket)
        settings = Settings(aws.datastores, f"s3://{bucket}/lake", tps=2000, privacy="limited")
        rows = [_row("first load", lambda: Sync(settings).run()) + " |"]
        aws.admin.advance(seconds=1800)
        rows.append(_row("tick with nothing new", lambda: Sync(settings).run()) + " |")
        rows.append(_row("reconciliation", lambda: Sync(settings).reconcile()) + " |")
        aws.admin.live(1, seed=1)
        search = Sync(settings)
        for datastore_id in settings.datastores:
            store = search.datastore(datastore_id)
            list(search.extract(store, search.due(store)))
        search.apply()
        written: list[str] = []

        def publish() -> None:
            publication = Sync(settings).publish()
            written.extend(publication.written if publication else ())

        row = _row("publication of a day", publish)
        rows.append(f"{row} {len(written)} files written |")
    print("| | requests | GET | LIST | PUT | DELETE | |", "|---|---|---|---|---|---|---|", sep="\n")
    print(*rows, sep="\n")


def _row(what: str, work: Callable[[], object]) -> str:
    before = len(ACTIONS)
    work()
    actions = Counter(ACTIONS[before:])
    names = ("s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:DeleteObject")
    counts = " | ".join(f"{actions[name]:,}" for name in names)
    return f"| {what} | {sum(actions.values()):,} | {counts} |"


if __name__ == "__main__":
    main()
