"""A running emulator, and clients of it as a user would have them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from botocore.config import Config

import emulator
from emulator import Emulator

NOW = "2024-06-03T09:00:00Z"


@dataclass
class Service:
    """An emulator with the ways to talk to it."""

    emulator: Emulator
    client: Any

    @property
    def datastore(self) -> str:
        return self.emulator.datastores[0]

    def search(self, filters: Any = None, sort: Any = None, size: int = 50) -> list[dict]:
        """All results of a search, through boto3's paginator."""
        criteria = {k: v for k, v in (("filters", filters), ("sort", sort)) if v is not None}
        pages = self.client.get_paginator("search_image_sets").paginate(
            datastoreId=self.datastore,
            searchCriteria=criteria,
            PaginationConfig={"PageSize": size},
        )
        return [row for page in pages for row in page["imageSetsMetadataSummaries"]]

    def post(self, criteria: Any = None, path: str | None = None, **query: Any) -> tuple[int, Any]:
        """A raw search, for what botocore would not send; returns status and body."""
        path = path or f"/datastore/{self.datastore}/searchImageSets"
        path += f"?{urlencode(query)}" if query else ""
        body = criteria if isinstance(criteria, bytes) else json.dumps(criteria or {}).encode()
        status, _, answer = self.raw("POST", path, body)
        return status, json.loads(answer)

    def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.emulator.endpoint).netloc)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[..., Service]]:
    """Starts emulators that stop at the end of the session."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_service(**options))


@pytest.fixture
def fresh() -> Iterator[Callable[..., Service]]:
    """Starts emulators that stop at the end of the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(_service(**options))


@pytest.fixture(scope="session")
def hospital(serving: Callable[..., Service]) -> Service:
    """A small hospital that no test changes."""
    return serving(synthetic=700, seed=1, datastores=2)


@pytest.fixture
def exactly(fresh: Callable[..., Service]) -> Callable[..., Service]:
    """Starts an emulator that holds exactly these summaries."""

    def start(*summaries: dict, **options: Any) -> Service:
        service = fresh(**options)
        service.emulator.admin.import_summaries(summaries)
        return service

    return start


class _service:  # noqa: N801 - a context manager that reads as a function
    def __init__(self, **options: Any) -> None:
        self._running = emulator.running(**{"now": NOW, "clock": "stopped"} | options)

    def __enter__(self) -> Service:
        served = self._running.__enter__()
        self._client = boto3.client(
            "medical-imaging",
            endpoint_url=served.endpoint,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",  # noqa: S106 - the emulator takes any
            config=Config(inject_host_prefix=False, retries={"total_max_attempts": 1}),
        )
        return Service(served, self._client)

    def __exit__(self, *error: Any) -> None:
        self._client.close()
        self._running.__exit__(*error)
