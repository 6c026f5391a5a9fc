"""Cohortlake on PostgreSQL, Redis, S3 and Celery workers: `make cluster-test`.

Not part of `make test`: it starts some twenty processes and takes minutes. All of them are ended
by their process ids, whatever happens.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assets.published import MEANINGS, published_key
from cluster import hospitals, servers
from cluster.deployment import Deployment
from emulator.control.client import AdminClient

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(servers.missing()), reason=str(servers.missing())),
]

SEARCH = "image_set_increments"
ALL_ASSETS = [SEARCH, "image_sets", *(published_key(table).path[-1] for table in MEANINGS)]
QUOTA = 25
LATENCY = ("--latency-ms", "50")


@dataclass(frozen=True)
class Servers:
    """What all deployments share, and a folder for their logs."""

    folder: Path
    postgres: int
    redis: int
    s3: str


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("cluster")
    # A polite end, by CI for example, must end the servers too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, before)
        yield Servers(
            folder,
            stack.enter_context(servers.postgres(folder / "postgres.log")),
            stack.enter_context(servers.redis(folder / "redis.log")),
            stack.enter_context(servers.s3(folder / "s3.log")),
        )


@contextlib.contextmanager
def deployed(
    shared: Servers, name: str, endpoint: str, datastores: list[str], number: int, **settings: str
) -> Iterator[tuple[Deployment, Any]]:
    """Start a deployment without workers, and give it with the bucket of its lake."""
    bucket = hospitals.bucket(shared.s3, name)
    command = ["createdb", "-h", servers.LOOPBACK, "-p", str(shared.postgres), "-U", "dagster"]
    subprocess.run([*command, name], check=True)
    deployment = Deployment(
        shared.folder / name,
        hospitals.settings(
            shared.s3, endpoint, datastores, f"s3://{name}", shared.postgres, name, shared.redis,
            number, **settings,
        ),
    )  # fmt: skip
    try:
        deployment.start("codeserver")
        deployment.start("webserver")
        deployment.stop_schedules()
        deployment.start("daemon")
        yield deployment, bucket
    finally:
        deployment.end()


def test_a_backfill_of_years_survives_the_loss_of_a_worker(
    shared: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--synthetic", "900", "--seed", "1", "--datastores", "3", *LATENCY]
    now = "2025-07-20T12:00:00Z"
    with contextlib.ExitStack() as stack:
        endpoint, datastores = stack.enter_context(
            servers.emulator(shared.folder / "emulator.log", *options, "--now", now)
        )
        for datastore_id in datastores:
            hospitals.migrate(endpoint, datastore_id, 8000)
        admin = AdminClient(endpoint)
        admin.clear_stats()
        share = {"COHORTLAKE_SEARCHERS": "2", "COHORTLAKE_BURST": "2"}
        deployment, bucket = stack.enter_context(
            deployed(shared, "three", endpoint, datastores, 0, COHORTLAKE_TPS=str(QUOTA), **share)
        )
        deployment.start("worker", "worker-1")
        deployment.start("worker", "worker-2")
        every_day = [
            key
            for datastore_id in datastores
            for key in hospitals.days(endpoint, datastore_id, "2023-07-19")
        ]
        backfill = deployment.backfill(ALL_ASSETS, every_day)

        def searched() -> int:
            return int(admin.stats()["requests"].get("SearchImageSets", 0))

        def most_at_once() -> int:
            return int(admin.stats()["most_in_10_s"]["SearchImageSets"])

        servers.until(lambda: searched() > 200, "both workers search", seconds=600)
        assert deployment.statuses()["STARTED"] == 2
        deployment.kill("worker-1")
        killed = time.monotonic()
        servers.until(
            lambda: any(run["parentRunId"] for run in deployment.runs()),
            "the run of the killed worker is asked for again", seconds=300,
        )  # fmt: skip
        noticed = time.monotonic() - killed
        servers.until(
            lambda: deployment.backfill_status(backfill) != "REQUESTED",
            "the backfill ends", seconds=3000,
        )  # fmt: skip
        assert deployment.backfill_status(backfill) == "COMPLETED_SUCCESS"
        # Three runs that search, one of them lost and taken up again, and one that publishes.
        assert deployment.statuses() == {"SUCCESS": 4, "FAILURE": 1}
        searches, most = searched(), most_at_once()

        deployment.start("worker", "worker-1")
        admin.clear_stats()
        days = [key for key in every_day if key[-10:] >= "2025-07-17"]
        runs = [deployment.run("__ASSET_JOB", [SEARCH], days) for _ in range(2)]
        for run in runs:
            succeeded(deployment, run)
        most_of_two = most_at_once()
        found = hospitals.differences(bucket.objects, tmp_path, endpoint, datastores)
        with capsys.disabled():
            print(  # noqa: T201
                f"\n{len(every_day)} partitions; {searches} searches; the lost run was asked for "
                f"again after {noticed:.0f} s; {len(found)} differences\nat most {most} searches "
                f"in 10 s, and {most_of_two} by two workers at once, of {10 * QUOTA}"
            )
        assert not found, found[:20]
        assert max(most, most_of_two) <= 1.02 * 10 * QUOTA
        assert most_of_two > 0.9 * 10 * QUOTA  # both searched at once
        deployment.stop("worker", "worker-1")
        deployment.stop("worker", "worker-2")
        deployment.stop("daemon")
        deployment.stop("webserver")
        deployment.stop("codeserver")
        assert not deployment.alive()


def test_two_accounts_on_two_workers_take_little_more_than_one(
    shared: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--synthetic", "300", *LATENCY, "--now", "2023-08-20T12:00:00Z"]
    with contextlib.ExitStack() as stack:
        accounts = []
        for number, name in enumerate(("north", "south"), 1):
            endpoint, datastores = stack.enter_context(
                servers.emulator(shared.folder / f"{name}.log", *options, "--seed", str(number))
            )
            hospitals.migrate(endpoint, datastores[0], 7000)
            deployment, bucket = stack.enter_context(
                deployed(shared, name, endpoint, datastores, number, COHORTLAKE_TPS="2")
            )
            deployment.start("worker", "worker-1")
            days = hospitals.days(endpoint, datastores[0], "2023-07-19")
            accounts.append((deployment, bucket, endpoint, datastores, days))

        def search(*chosen: Any) -> float:
            """Search all days of some accounts at once, and return the seconds that it took."""
            began = time.monotonic()
            runs = [
                (deployment, deployment.run("__ASSET_JOB", [SEARCH], days))
                for deployment, *_, days in chosen
            ]
            for deployment, run_id in runs:
                succeeded(deployment, run_id)
            return time.monotonic() - began

        search(*accounts)  # later searches write nothing, so all of them do the same
        one_after_the_other = sum(search(account) for account in accounts)
        both_at_once = search(*accounts)
        found = []
        for deployment, bucket, endpoint, datastores, _ in accounts:
            succeeded(deployment, deployment.run("tick"))
            found += hospitals.differences(
                bucket.objects, tmp_path / datastores[0], endpoint, datastores
            )
        with capsys.disabled():
            print(  # noqa: T201
                f"\none worker {one_after_the_other:.1f} s, two workers {both_at_once:.1f} s: "
                f"{both_at_once / one_after_the_other:.2f}; {len(found)} differences"
            )
        assert not found, found[:20]
        assert both_at_once <= 0.6 * one_after_the_other


def succeeded(deployment: Deployment, run_id: str) -> None:
    servers.until(
        lambda: deployment.status(run_id) in ("SUCCESS", "FAILURE"), "a run ends", seconds=600
    )
    assert deployment.status(run_id) == "SUCCESS", deployment.events(run_id)[-10:]
