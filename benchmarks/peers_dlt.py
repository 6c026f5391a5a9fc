"""The peer dlt: searches what changed, and merges it into a Delta table. See `benchmarks.peers`.

Runs in an environment that has dlt, and imports nothing of Cohortlake. The pipeline is what dlt's
documentation shows: a resource with a primary key and a cursor on updatedAt, `merge` with the
strategy `upsert`, a Delta table at the filesystem destination.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.process import measure


def load(datastore_id: str, folder: Path, now: datetime) -> None:
    """Load what changed since the last time up to an instant."""
    import boto3
    import dlt
    from botocore.config import Config

    client = boto3.client(
        "medical-imaging", os.environ["AWS_REGION"], config=Config(inject_host_prefix=False)
    )

    @dlt.resource(
        primary_key="imageSetId",
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        table_format="delta",
    )
    def image_sets(
        updated: Any = dlt.sources.incremental(  # noqa: B008 - how dlt is told of a cursor
            "updatedAt", initial_value=datetime(2020, 1, 1, tzinfo=UTC)
        ),
    ) -> Iterator[list[dict[str, Any]]]:
        values = [{"updatedAt": updated.last_value}, {"updatedAt": now}]
        pages = client.get_paginator("search_image_sets").paginate(
            datastoreId=datastore_id,
            searchCriteria={"filters": [{"values": values, "operator": "BETWEEN"}]},
            PaginationConfig={"PageSize": 50},
        )
        for page in pages:
            yield page["imageSetsMetadataSummaries"]

    pipeline = dlt.pipeline(
        "peer",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(str(folder)),
        dataset_name="lake",
    )
    pipeline.run(image_sets())


if __name__ == "__main__":
    _, datastore_id, folder, now = sys.argv
    measure(lambda: load(datastore_id, Path(folder), datetime.fromisoformat(now)))
