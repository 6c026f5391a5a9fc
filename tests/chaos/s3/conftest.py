"""A bucket of an S3 server, and the hospital of the lakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import emulated

from chaos.s3.lake import FIRST_DAY, FIRST_MONTH, Bucket
from chaos.s3.servers import SERVERS
from emulator import Emulator


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    """A new bucket of the server that the parameter names."""
    with SERVERS[request.param](tmp_path / "server.log") as url:
        yield Bucket(url)


@pytest.fixture
def hospital() -> Iterator[Emulator]:
    """A hospital with few image sets, in few months."""
    with emulated(
        first_day=FIRST_DAY,
        first_month=FIRST_MONTH,
        synthetic=8,
        seed=3,
        now="2026-06-01T12:00:00Z",
        clock="stopped",
    ) as emulator:
        yield emulator
