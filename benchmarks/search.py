"""Claim: a search reaches the account's quota on any data, in flat memory.

    python -m benchmarks.search            # all of it, an hour and a half
    python -m benchmarks.search --repeats 1
    python -m benchmarks.search --quick    # one quota, one repeat, some minutes
    python -m benchmarks.search --memory   # 1 million and 5 million rows in one window

The same run measures the documentation's loop (paginator, `json_normalize`, `to_parquet`). For
rows within a single millisecond it measures the one chain of tokens that the loop would follow.
The emulator runs in its own process, and so does each measured way. Prints medians, as the tables
of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
from botocore.config import Config

from benchmarks.process import peak_mb
from cohortlake import Axis, Settings, Sync, Window
from emulator.control.client import AdminClient
from scripts.hospital import Hospital, serving

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NEXT_DAY = DAY + timedelta(days=1)
DAY_MS = 86_400_000
LOOP_ROWS = 10_000
"""The loop reads only these rows. Its speed does not depend on the number, and all take hours."""
SINGLE_INSTANT_ROWS = 20_000
SECONDS = 60
"""The number of rows is chosen so that a run at its quota takes this long."""
UNLIMITED = 1_000_000


# The data


def instants_ms(kind: str, rows: int) -> list[int]:
    """Return when each row was updated, in milliseconds of the day, ascending."""
    draw = random.Random(7)  # noqa: S311 - synthetic data
    if kind == "millisecond":
        return [DAY_MS // 3] * rows
    if kind == "bursty":  # 99 % of the rows in 1 % of the day
        start, width = round(0.6 * DAY_MS), DAY_MS // 100
        burst = [start + draw.randrange(width) for _ in range(round(0.99 * rows))]
        return sorted(burst + [draw.randrange(DAY_MS) for _ in range(rows - len(burst))])
    return sorted(draw.randrange(DAY_MS) for _ in range(rows))


def write_summaries(path: Path, kind: str, rows: int) -> None:
    """Write the rows as the emulator loads them."""
    epoch_ms = round(DAY.timestamp() * 1000)
    with path.open("w") as file:
        for number, at in enumerate(instants_ms(kind, rows)):
            file.write(json.dumps(_summary(number, (epoch_ms + at) / 1000)) + "\n")


def _summary(number: int, updated_at: float) -> dict[str, Any]:
    series, study = number // 2, number // 6
    return {
        "imageSetId": f"{number:032x}",
        "version": 1,
        "createdAt": updated_at,
        "updatedAt": updated_at,
        "isPrimary": True,
        "storageTier": "FREQUENT_ACCESS",
        "DICOMTags": {
            "DICOMPatientId": f"P{study // 3:09d}",
            "DICOMPatientName": f"Family{study // 3}^Given",
            "DICOMPatientBirthDate": f"19{study % 80 + 10}0{study % 9 + 1}1{study % 10}",
            "DICOMPatientSex": "FM"[study % 2],
            "DICOMStudyInstanceUID": f"1.2.826.0.1.3680043.8.498.{study:039d}",
            "DICOMStudyId": f"{study:06d}",
            "DICOMStudyDescription": "CT CHEST WITH CONTRAST",
            "DICOMNumberOfStudyRelatedSeries": 3,
            "DICOMNumberOfStudyRelatedInstances": 120,
            "DICOMAccessionNumber": f"A{study:012d}",
            "DICOMSeriesInstanceUID": f"1.2.826.0.1.3680043.8.498.{series:039d}",
            "DICOMSeriesModality": ("CT", "MR", "MG")[study % 3],
            "DICOMSeriesBodyPart": "CHEST",
            "DICOMSeriesNumber": number % 6 + 1,
            "DICOMStudyDate": f"20{study % 20 + 5:02d}0{study % 9 + 1}2{study % 9}",
            "DICOMStudyTime": f"1{study % 10}3{study % 10}00.{number % 1000:03d}",
        },
    }


# The ways. Each runs in its own process.


@dataclass(frozen=True)
class Measured:
    """The measurements of one run.

    Attributes:
        rows: Rows found.
        seconds: From the first request to the last file.
        cpu_seconds: Of the process, all threads.
        peak_mb: Highest resident memory of the process.
        requests: Requests sent.
        throttled: Requests that the service refused by its quota.
    """

    rows: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    requests: int
    throttled: int

    @property
    def rows_per_second(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds per million rows."""
        return self.cpu_seconds / self.rows * 1e6

    @property
    def wasted(self) -> float:
        """Share of calls that were more than full pages need."""
        calls = self.requests - self.throttled
        return (calls - math.ceil(self.rows / 50)) / calls

    def share_of(self, quota: float, burst: float) -> float:
        """Return the requests sent as a share of those that the quota allows in that time."""
        return self.requests / (quota * self.seconds + burst)


def cohortlake(datastore_id: str, folder: str, quota: float, workers: int) -> tuple[int, int, int]:
    """Search the day with the library; return rows, requests and throttled ones."""
    settings = Settings((datastore_id,), folder, tps=quota, burst=quota, workers=workers)
    sync = Sync(settings)
    window = Window(Axis.UPDATED_AT, DAY, NEXT_DAY)
    store = sync.datastore(datastore_id)
    ((_, found),) = sync.extract(store, {f"{DAY:%Y-%m-%d}": [window]})
    return found.rows, found.requests, found.throttles


def documented_loop(datastore_id: str, folder: str, end: datetime) -> tuple[int, int, int]:
    """Search up to an instant in the way that the service's documentation shows."""
    region = os.environ["AWS_REGION"]
    client = boto3.client("medical-imaging", region, config=Config(inject_host_prefix=False))
    values = [{"updatedAt": DAY}, {"updatedAt": end}]
    pages = client.get_paginator("search_image_sets").paginate(
        datastoreId=datastore_id,
        searchCriteria={"filters": [{"values": values, "operator": "BETWEEN"}]},
        PaginationConfig={"PageSize": 50},
    )
    summaries, requests = [], 0
    for page in pages:
        summaries.extend(page["imageSetsMetadataSummaries"])
        requests += 1
    frame = pd.json_normalize(summaries)
    frame.to_parquet(Path(folder, "found.parquet"))
    return len(frame), requests, 0


def measure(way: Callable[[], tuple[int, int, int]]) -> Measured:
    """Run a way in this process and measure it."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    rows, requests, throttled = way()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    seconds = time.monotonic() - began
    return Measured(rows, seconds, cpu, peak_mb(), requests, throttled)


def run(arguments: Sequence[str]) -> None:
    """Measure the way that the parent process names, and print the result."""
    way, datastore_id, number, workers = arguments
    with tempfile.TemporaryDirectory() as folder:
        if way == "loop":
            end = datetime.fromtimestamp(float(number), UTC)
            found = measure(lambda: documented_loop(datastore_id, folder, end))
        else:
            quota = float(number)
            found = measure(lambda: cohortlake(datastore_id, folder, quota, int(workers)))
    sys.stdout.write(json.dumps(vars(found)))


# The runs


@contextmanager
def data(kind: str, rows: int) -> Iterator[Hospital]:
    """Serve a data set until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "summaries.ndjson")
        write_summaries(path, kind, rows)
        now = (NEXT_DAY + timedelta(days=1)).isoformat()
        with serving("--load", path, "--now", now, "--clock", "stopped") as hospital:
            yield hospital


def behave(hospital: Hospital, quota: int | None, latency_ms: int) -> None:
    """Set quota and latency, and a burst of twice the quota as at AWS."""
    AdminClient(hospital.endpoint).behave(
        quota=quota or 0, burst=2 * (quota or 0), latency_ms=latency_ms
    )


def measured(hospital: Hospital, way: str, number: float, workers: int = 1) -> Measured:
    """Run a way in its own process."""
    command = [sys.executable, "-m", "benchmarks.search", "run", way, hospital.datastore_id]
    done = subprocess.run(
        [*command, str(number), str(workers)],
        env=os.environ | hospital.environment(Path("unused")),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Measured(**json.loads(done.stdout))


def workers_for(quota: int | None, latency_ms: int) -> int:
    """Return twice the number of requests in flight that the quota needs."""
    return 32 if quota is None else max(4, math.ceil(quota * latency_ms / 1000 * 2))


def median(runs: Sequence[Measured], value: Callable[[Measured], float]) -> float:
    """Return the median of a value."""
    return statistics.median(value(one) for one in runs)


def against_the_loop(
    kinds: Sequence[str],
    quotas: Sequence[int | None],
    latencies: Sequence[int],
    repeats: int,
    seconds: int = SECONDS,
) -> None:
    """Print one line per data set, quota and latency."""
    _print(
        "| data | quota | latency | rows | rows/s | times the loop | share of quota | throttled "
        "| wasted | CPU s/M | of the loop's | peak MB |"
    )
    _print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        for quota in quotas:
            rows = seconds * 50 * (quota or 400)
            with data(kind, rows) as hospital:
                for latency_ms in latencies:
                    _compare(hospital, kind, rows, quota, latency_ms, repeats)


def _compare(
    hospital: Hospital, kind: str, rows: int, quota: int | None, latency_ms: int, repeats: int
) -> None:
    ours, loops = [], []
    loop_end_ms = instants_ms(kind, rows)[min(LOOP_ROWS, rows - 1)]
    loop_end = DAY.timestamp() + loop_end_ms / 1000
    for _ in range(repeats):
        behave(hospital, quota, latency_ms)
        pace = quota or UNLIMITED
        ours.append(measured(hospital, "cohortlake", pace, workers_for(quota, latency_ms)))
        loops.append(measured(hospital, "loop", loop_end))
    assert all(one.rows == rows for one in ours), "each run found all rows"
    speed = median(ours, lambda m: m.rows_per_second)
    cpu = median(ours, lambda m: m.cpu_per_million)
    share = f"{median(ours, lambda m: m.share_of(quota, quota)):.1%}" if quota else ""
    cells = (
        kind, quota or "none", f"{latency_ms} ms", f"{rows:,}", f"{speed:,.0f}",
        f"{speed / median(loops, lambda m: m.rows_per_second):.1f}", share,
        f"{median(ours, lambda m: m.throttled / m.requests):.2%}",
        f"{median(ours, lambda m: m.wasted):.2%}", f"{cpu:.1f}",
        f"{cpu / median(loops, lambda m: m.cpu_per_million):.2f}",
        f"{median(ours, lambda m: m.peak_mb):.0f}",
    )  # fmt: skip
    _print(f"| {' | '.join(str(cell) for cell in cells)} |")


def one_millisecond(quotas: Sequence[int | None], latencies: Sequence[int], repeats: int) -> None:
    """Print the seconds for rows within one millisecond, shared and as a single chain of tokens."""
    _print("| quota | latency | seconds | a single chain's | share of it | wasted |")
    _print("|---|---|---|---|---|---|")
    with data("millisecond", SINGLE_INSTANT_ROWS) as hospital:
        for quota in quotas:
            for latency_ms in latencies:
                behave(hospital, quota, latency_ms)
                pace, workers = quota or UNLIMITED, workers_for(quota, latency_ms)
                ours, chains = [], []
                for _ in range(repeats):
                    ours.append(measured(hospital, "cohortlake", pace, workers))
                    chains.append(measured(hospital, "cohortlake", pace, 1))
                assert all(one.rows == SINGLE_INSTANT_ROWS for one in ours + chains), "all rows"
                seconds = median(ours, lambda m: m.seconds)
                chain = median(chains, lambda m: m.seconds)
                wasted = median(ours, lambda m: m.wasted)
                _print(
                    f"| {quota or 'none'} | {latency_ms} ms | {seconds:.1f} | {chain:.1f} "
                    f"| {seconds / chain:.2f} | {wasted:.2%} |"
                )


def memory(sizes: Sequence[int]) -> None:
    """Print the peak memory of one window of each size."""
    _print("| rows in one window | peak MB | rows/s | CPU s/M |")
    _print("|---|---|---|---|")
    for rows in sizes:
        with data("uniform", rows) as hospital:
            behave(hospital, None, 20)
            one = measured(hospital, "cohortlake", UNLIMITED, 16)
            assert one.rows == rows, "all rows"
            _print(
                f"| {rows:,} | {one.peak_mb:.0f} | {one.rows_per_second:,.0f} "
                f"| {one.cpu_per_million:.1f} |"
            )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the measurements that the command line names."""
    if sys.argv[1:2] == ["run"]:
        run(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.memory:
        memory([1_000_000, 5_000_000])
    elif options.quick:
        against_the_loop(["uniform", "bursty"], [100], [50], repeats=1, seconds=20)
        one_millisecond([100], [50], repeats=1)
    else:
        quotas = [25, 50, 100, 200, None]
        against_the_loop(["uniform", "bursty"], quotas, [50, 100], options.repeats)
        one_millisecond([25, 100, None], [50, 100], options.repeats)
        memory([1_000_000, 5_000_000])


if __name__ == "__main__":
    main()
