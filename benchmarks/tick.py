"""Claim: a tick costs what changed, whatever the lake holds.

    python -m benchmarks.tick                                 # 1 and 10 million image sets
    python -m benchmarks.tick --rows 100000000 --root FOLDER  # about 30 GB; deleted at the end
    python -m benchmarks.tick --rows 200000 --repeats 1       # some minutes

A lake of so many image sets is made (`benchmarks.publish`), with coverage up to now, and published.
An emulator then serves what changed since, and nothing else: the windows that a tick searches hold
no more. Each tick runs in a process of its own: what is known, the search, applying, publishing.
Prints seconds and the highest peak memory of each part, medians of the repeats:

- nothing new;
- 1,000 image sets of the last two months have a new version;
- 1,000 of all months have one;
- 100,000 of one day are new, as when another archive is brought over;
- one month is swept, from which 10 image sets are gone;
- everything is full publication.

What is searched is paced at 1,000 requests a second, so that the quota does not hide the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.process import peak_mb
from benchmarks.publish import DATASTORE, NOW, RECENT, make_history
from cohortlake import Settings, Sync, schema
from cohortlake.healthimaging.windows import EPOCH
from cohortlake.history import coverage, image_sets
from cohortlake.increments import writer
from cohortlake.increments.record import Record
from cohortlake.publish import publisher
from cohortlake.storage import engine
from cohortlake.storage.root import Root
from scripts.hospital import serving

SWEPT = "2024-03"
GONE = 10


@dataclass(frozen=True)
class Case:
    """A tick.

    Attributes:
        name: As the table says it.
        changed: SQL for the rows of `current` that the service has otherwise now.
        step: What runs, of `STEPS`.
        is_new: Whether they are other image sets than those of the lake.
        is_as_known: Whether the service has them as the lake has.
    """

    name: str
    changed: str
    step: str = "tick"
    is_new: bool = False
    is_as_known: bool = False


_SOME = "FROM current WHERE {where} ORDER BY hash(image_set_id, {seed}) LIMIT {count}"


def cases(rows: int, seed: int) -> list[Case]:
    """Return what is measured, drawn by a seed."""

    def some(where: str, count: int) -> str:
        return _SOME.format(where=where, count=count, seed=seed)

    # Hashes spread evenly: a tenth of the rows is enough to draw from, and is sorted sooner.
    spread = max(1, rows // 20_000)
    return [
        Case("nothing new", "FROM current WHERE false"),
        Case("1,000 of the last two months", some(f"study_month IN {RECENT}", 1000)),
        Case("1,000 all over", some(f"hash(image_set_id, {seed}) % {spread} = 0", 1000)),
        Case(
            "100,000 new in one day",
            some(f"hash(image_set_id, {seed}) % {max(1, rows // 200_000)} = 0", 100_000),
            is_new=True,
        ),
        Case(
            f"a sweep, {GONE} gone",
            f"(FROM current WHERE study_month = '{SWEPT}' ORDER BY hash(image_set_id, {seed})) "
            f"OFFSET {GONE}",
            step="sweep",
            is_as_known=True,
        ),
        Case("full publication", "FROM current WHERE false", step="full"),
    ]


def make_lake(root: Root, rows: int) -> None:
    """Write a lake of about so many image sets, searched up to now."""
    root.prepare()
    make_history(root, rows)
    everything = Record(
        DATASTORE, "updated_at", f"{NOW:%Y-%m-%d}", EPOCH, NOW, NOW + timedelta(hours=1), "bulk"
    )
    writer.write_empty(root, everything)
    coverage.record(root, [everything.path])


def write_summaries(root: Root, case: Case, at: datetime, path: Path) -> int:
    """Write what the service has, as NDJSON in wire form; return how many image sets."""
    with engine.connection() as con:
        image_sets.register(con, root)
        columns = ", ".join(column.name for column in schema.STATE)
        rows = con.sql(f"SELECT {columns} FROM ({case.changed})").to_arrow_table()
    with path.open("w") as file:
        for batch in rows.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                file.write(json.dumps(_summary(row, case, at)) + "\n")
    return len(rows)


def _summary(row: dict[str, Any], case: Case, at: datetime) -> dict[str, Any]:
    """Return a row as the service would send it."""
    summary = {c.wire: _sent(row[c.name]) for c in schema.SUMMARY_FIELDS}
    tags = {c.wire: _sent(row[c.name]) for c in schema.DICOM_TAGS if row[c.name] is not None}
    if case.is_new:
        summary["imageSetId"] = row["image_set_id"][::-1]
        summary |= {"version": 1, "createdAt": at.timestamp(), "updatedAt": at.timestamp()}
        for name in ("DICOMSeriesInstanceUID", "DICOMStudyInstanceUID"):
            tags[name] += ".1"
    elif not case.is_as_known:
        summary |= {"version": row["version"] + 1, "updatedAt": at.timestamp()}
        tags["DICOMSeriesBodyPart"] = "KNEE"
    return summary | {"DICOMTags": tags}


def _sent(value: object) -> object:
    if isinstance(value, datetime):
        return value.timestamp()
    if hasattr(value, "strftime"):
        return value.strftime("%Y%m%d" if hasattr(value, "year") else "%H%M%S")
    return value


# The steps, each run in a process of its own


def tick(sync: Sync) -> Iterator[str]:
    """Search what is due, apply it and publish it; yield the name of each part when it is done."""
    with sync.searching(DATASTORE) as store:
        for _ in sync.extract(store, sync.due(store)):
            pass
    yield "search"
    yield from _apply_and_publish(sync)


def sweep(sync: Sync) -> Iterator[str]:
    """Sweep a month, apply what is gone and publish it."""
    for _ in sync.sweep_months({DATASTORE: [SWEPT]}):
        pass
    yield "search"
    yield from _apply_and_publish(sync)


def _apply_and_publish(sync: Sync) -> Iterator[str]:
    sync.apply()
    yield "apply"
    sync.publish()
    yield "publish"


def full(sync: Sync) -> Iterator[str]:
    """Publish everything again."""
    publisher.request_full_publish(sync.root)
    sync.publish()
    yield "publish"


STEPS: dict[str, Callable[[Sync], Iterator[str]]] = {"tick": tick, "sweep": sweep, "full": full}


def run_step(step: str) -> None:
    """Run a step as the environment says, and print what each part took."""
    parts, began = {}, time.perf_counter()
    for part in STEPS[step](Sync(Settings.from_env())):
        now = time.perf_counter()
        parts[part] = {"seconds": now - began, "peak_mb": peak_mb()}
        began = now
    print(json.dumps(parts))


@contextmanager
def served(root: Root, case: Case, policy: str, at: datetime) -> Iterator[dict[str, str]]:
    """Serve what a case has changed; yield the environment that a step needs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summaries.ndjson"
        count = write_summaries(root, case, at, path)
        options = ["--datastore-id", DATASTORE, "--now", (at + timedelta(hours=2)).isoformat()]
        with serving(*options, *(["--load", str(path)] if count else [])) as hospital:
            yield hospital.environment(Path(root.path())) | {
                "COHORTLAKE_PRIVACY": policy,
                "COHORTLAKE_TPS": "1000",
            }


def measured(root: Root, case: Case, policy: str, at: datetime) -> dict[str, Any]:
    """Run a case in a process of its own; return part -> seconds and peak memory."""
    with served(root, case, policy, at) as environment:
        command = [sys.executable, "-m", "benchmarks.tick", "--step", case.step]
        done = subprocess.run(
            command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
        )
    parts: dict[str, Any] = json.loads(done.stdout)
    return parts


def main(rows: int, root: Root, policies: list[str], repeats: int) -> None:
    """Measure and print."""
    began = time.perf_counter()
    make_lake(root, rows)
    print(f"{rows:,} image sets, made in {time.perf_counter() - began:.0f} s", flush=True)
    at = NOW + timedelta(hours=2)
    print("| policy | case | search s | apply s | publish s | all s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for policy in policies:
        first = Case("", "FROM current WHERE false", step="full")
        measured(root, first, policy, at)
        for number, case in enumerate(cases(rows, 0)):
            runs = []
            for repeat in range(repeats):
                at += timedelta(hours=2)
                drawn = cases(rows, 1 + repeat)[number]
                runs.append(measured(root, drawn, policy, at))
            seconds = {
                part: statistics.median(run[part]["seconds"] for run in runs) for part in runs[0]
            }
            peak = max(run[part]["peak_mb"] for run in runs for part in run)
            cells = " | ".join(
                f"{seconds[part]:.2f}" if part in seconds else ""
                for part in ("search", "apply", "publish")
            )
            total = sum(seconds.values())
            print(f"| {policy} | {case.name} | {cells} | {total:.2f} | {peak:,} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--policies", nargs="+", default=["safe", "limited"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", help="where to make the lakes; a temporary folder by default")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step)
    else:
        for rows in given.rows:
            folder = tempfile.mkdtemp(prefix="tick-", dir=given.root)
            try:
                main(rows, Root(folder), given.policies, given.repeats)
            finally:
                shutil.rmtree(folder)
