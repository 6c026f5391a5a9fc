"""What every test gets: fake credentials, no settings of the machine, no real AWS, fast folders."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aws as moto
import botocore.session
import hypothesis
import pytest
from endpoint import DATASTORE, Endpoint, serving
from filled import FIRST_MONTH

from cohortlake import Settings
from cohortlake.ingest import partitions

# No deadlines: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=50)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile("quick")

# Lakes are many small files, each synced to the disk: in memory that costs nothing.
MEMORY, ENOUGH = Path("/dev/shm"), 4 * 2**30  # noqa: S108
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH:
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # read TMPDIR again

# `make test` may give the workers another allocator. What they start is not tested with it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("LD_PRELOAD", None)

# Each client of boto3 reads the models of its service again; the tests make thousands.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)


_LONGEST = (
    "canary",
    "storm",
    "under_nohup",
    "loopback",
    "rights",
    "machine_settings",
    "_gives_what_",
)
"""Parts of the names of tests that take long. They begin first, so that none is left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(part in item.nodeid for part in _LONGEST))


def pytest_collection_finish() -> None:
    """Let garbage collections pass over the modules: they took a tenth of the time."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else libraries take their own objects for leaks when Python ends


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "COHORTLAKE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(partitions, "FIRST_MONTH", FIRST_MONTH)
    with serving() as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", served.url)
        yield served


@pytest.fixture
def lake_settings(tmp_path: object) -> Settings:
    return Settings(
        datastores=(DATASTORE,), root=f"{tmp_path}/lake", tps=1000, workers=8, privacy="limited"
    )


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto.serving() as url:
        yield url


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint of SQS and S3, to which all clients go."""
    for service in ("SQS", "S3"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", moto_url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # Delta Lake's own client asks for it
    return moto_url
