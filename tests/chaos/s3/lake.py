"""A lake on an S3 server, as tests save, restore and read it. Needs no code of the library."""

from __future__ import annotations

import io
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq

from chaos import truth
from chaos.run import NO_AWS

FIRST_DAY, FIRST_MONTH = date(2026, 5, 30), date(2026, 4, 1)
"""Where the partitions of these lakes begin: each costs a file."""
CONSTANTS = {
    "cohortlake.ingest.partitions:FIRST_DAY": FIRST_DAY,
    "cohortlake.ingest.partitions:FIRST_MONTH": FIRST_MONTH,
}
_THREADS = 4
Objects = dict[str, bytes]
"""Path below the root -> content."""


class Bucket:
    """A new bucket of an S3 server.

    Args:
        url: The server's URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._name = f"storm-{uuid.uuid4().hex}"
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=NO_AWS["AWS_REGION"],
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106
        )
        self._client.create_bucket(Bucket=self._name)

    def root(self, prefix: str) -> str:
        """Return the URL of the lake below a prefix."""
        return f"s3://{self._name}/{prefix}"

    def environment(self, prefix: str, url: str = "") -> dict[str, str]:
        """Return the settings of a run on the lake below a prefix.

        Args:
            prefix: The prefix.
            url: The URL of a proxy; by default the server's.
        """
        return NO_AWS | {
            "AWS_ENDPOINT_URL_S3": url or self.url,
            "AWS_ALLOW_HTTP": "true",
            "COHORTLAKE_ROOT": self.root(prefix),
        }

    def put(self, prefix: str, objects: Objects) -> None:
        """Write objects below a prefix."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(partial(self._put, prefix), objects.items()))

    def _put(self, prefix: str, item: tuple[str, bytes]) -> None:
        path, content = item
        self._client.put_object(Bucket=self._name, Key=f"{prefix}/{path}", Body=content)

    def get(self, prefix: str, folder: str = "", suffix: str = "") -> Objects:
        """Return the objects of a folder below a prefix whose paths end so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, Prefix=f"{prefix}/{folder}"
        )
        listed = (item["Key"] for page in pages for item in page.get("Contents", ()))
        # Arrow marks a folder by an object whose name ends with a slash.
        keys = [key for key in listed if key.endswith(suffix) and not key.endswith("/")]
        with ThreadPoolExecutor(_THREADS) as pool:
            contents = list(pool.map(self._get, keys))
        return {
            key.removeprefix(f"{prefix}/"): content
            for key, content in zip(keys, contents, strict=True)
        }

    def _get(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self._name, Key=key)["Body"].read())

    def published(self, prefix: str, folder: Path) -> dict[str, list[truth.Row]]:
        """Return all rows of the published tables. See `truth.read`.

        Args:
            prefix: The prefix.
            folder: An empty folder that takes the files.
        """
        for path, content in self.get(prefix, "published/").items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return truth.read(folder)


def file_rows(published: Objects) -> dict[str, list[str]]:
    """Return the rows of each published Parquet file, sorted. Fails if a file is not whole."""
    return {
        path: sorted(map(repr, pq.read_table(io.BytesIO(content)).to_pylist()))
        for path, content in published.items()
        if path.endswith(".parquet")
    }
