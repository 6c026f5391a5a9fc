"""The loop of the service's documentation, with pandas. See `benchmarks.peers`.

Each run searches what changed since the instant of the last one, and writes one more file.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.process import measure

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)


def load(datastore_id: str, folder: Path, now: datetime) -> None:
    """Load what changed since the last file up to an instant. The name of a file is its instant."""
    import boto3
    import pandas as pd
    from botocore.config import Config

    last = max((file.stem for file in folder.glob("*.parquet")), default=BEGIN.isoformat())
    client = boto3.client(
        "medical-imaging", os.environ["AWS_REGION"], config=Config(inject_host_prefix=False)
    )
    values = [{"updatedAt": datetime.fromisoformat(last)}, {"updatedAt": now}]
    pages = client.get_paginator("search_image_sets").paginate(
        datastoreId=datastore_id,
        searchCriteria={"filters": [{"values": values, "operator": "BETWEEN"}]},
        PaginationConfig={"PageSize": 50},
    )
    summaries = [one for page in pages for one in page["imageSetsMetadataSummaries"]]
    if summaries:
        pd.json_normalize(summaries).to_parquet(folder / f"{now.isoformat()}.parquet")


if __name__ == "__main__":
    _, datastore_id, folder, now = sys.argv
    measure(lambda: load(datastore_id, Path(folder), datetime.fromisoformat(now)))
