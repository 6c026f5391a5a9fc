"""Claim: a tick costs what changed, whatever the lake holds.

    python -m benchmarks.tick                               # 60,000 image sets, some minutes
    python -m benchmarks.tick --image-sets 10000000 --repeats 1 --minutes 150
    python -m benchmarks.tick --image-sets 100000000 --lake FOLDER --policies safe --cases full
    python -m benchmarks.tick --lake FOLDER --policies safe --cases nothing recent all

A lake of so many image sets is made (`benchmarks.publish`), some months at a time, with coverage
up to now. It needs 600 bytes of disk for each image set, and 940 if it is published under several
policies: 60 GB for 100 million under one. The run says so, refuses a disk with less room, and
deletes the lake at its end. With `--lake` it stays, and later runs measure other cases on it. An
emulator then serves what changed since, and nothing else: the windows that a tick searches hold no
more.

For each policy, medians of the repeats. The full publication is the first one under the policy, so
it has no repeats.

- everything is published;
- nothing is new, stage by stage, and as the command `cohortlake sync` with the start of Python;
- 1,000 image sets of the last two months have a new version;
- 1,000 of all months have one;
- one month is swept, from which 10 image sets are gone;
- 100,000 of one day are new, as when another archive is brought over.

Each part runs in a process of its own: the search (with the look at what is known), applying,
publishing. Prints a Markdown table: seconds, CPU seconds and the peak memory in MB of each. Other
work on the machine makes the seconds longer, so the table says how busy the machine was.

What is searched is paced at 1,000 requests a second, so that the quota does not hide the rest. With
`--increments 200000` the lake has so many increments, packed as maintenance packs them. With
`--minutes` the run ends in time, and says what it did not measure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.process import Deadline, Measured, OutOfTime, load, measure, run_part, run_whole
from benchmarks.publish import DATASTORE, NOW, RECENT, make_history
from cohortlake import Settings, Sync, schema
from cohortlake.healthimaging.windows import EPOCH
from cohortlake.history import coverage, image_sets
from cohortlake.increments import kinds, packed, writer
from cohortlake.increments.pack_writer import PackWriter
from cohortlake.increments.record import Record
from cohortlake.publish import publisher
from cohortlake.publish.publication.marker import read_marker
from cohortlake.storage import engine
from cohortlake.storage.root import Root
from scripts.hospital import serving

SWEPT = "2024-03"
GONE = 10
BYTES_STORED, BYTES_PUBLISHED = 260, 340
"""On disk for each image set: the version history and its index, and the published files."""
INCREMENTS_IN_A_FILE = 2000
PARTS = ("search", "apply", "publish")


@dataclass(frozen=True)
class Case:
    """A tick.

    Attributes:
        key: As `--cases` names it.
        name: As the table says it.
        changed: SQL for the image sets that the service has otherwise than the lake, or a
            sweep's.
        parts: What runs, of `WORK`, or `command`: name of the part -> each in a process of its own.
        is_new: Whether the lake does not have them.
        is_as_known: Whether the service has them as the lake has.
        repeats: How often it is measured at most.
    """

    key: str
    name: str
    changed: str = "FROM current WHERE false"
    parts: tuple[tuple[str, str], ...] = (
        ("search", "search"),
        ("apply", "apply"),
        ("publish", "publish"),
    )
    is_new: bool = False
    is_as_known: bool = False
    repeats: int = sys.maxsize


def cases(rows: int, seed: int) -> list[Case]:
    """Return what is measured, drawn by a seed."""

    def some(where: str, count: int) -> str:
        return f"FROM current WHERE {where} ORDER BY hash(image_set_key, {seed}) LIMIT {count}"

    def one_in(number: int) -> str:
        return f"hash(image_set_key, {seed}) % {max(1, number)} = 0"

    # Twice as many as are needed are drawn, and sorted. A small lake has fewer: it takes copies.
    copies = max(1, 200_000 // rows)
    new = f"""
        SELECT * REPLACE (md5(concat_ws('-', image_set_id, {seed}, n)) AS image_set_id,
                          '2.25.' || hash(StudyInstanceUID, {seed}, n) AS StudyInstanceUID,
                          '2.25.' || hash(SeriesInstanceUID, {seed}, n) AS SeriesInstanceUID)
        FROM (FROM current WHERE {one_in(rows // 200_000)}), range({copies}) t(n)
        ORDER BY hash(image_set_key, n, {seed}) LIMIT 100000"""
    swept = f"""
        FROM current WHERE study_month = '{SWEPT}'
        ORDER BY hash(image_set_key, {seed}) OFFSET {GONE}"""
    _, *later = Case.parts
    return [
        Case("full", "full publication", parts=(("publish", "full"),), repeats=1),
        Case("nothing", "nothing new"),
        Case("command", "nothing new, `cohortlake sync`", parts=(("command", "command"),)),
        Case("recent", "1,000 of the last two months", some(f"study_month IN {RECENT}", 1000)),
        Case("all", "1,000 all over", some(one_in(rows // 2000), 1000)),
        Case(
            "sweep", f"a sweep, {GONE} gone", swept, (("search", "sweep"), *later), is_as_known=True
        ),
        Case("new", "100,000 new in one day", new, is_new=True),
    ]


# The lake


def require_room(folder: str, given: argparse.Namespace) -> None:
    """Say how much disk a lake needs, and refuse a disk that has less.

    When the policy changes, the former files stay until the new ones are complete.
    """
    rows = given.image_sets
    needed = rows * (BYTES_STORED + BYTES_PUBLISHED * min(2, len(given.policies)))
    free = shutil.disk_usage(folder).free
    print(
        f"{rows:,} image sets need {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free",
        file=sys.stderr,
    )
    if free < needed:
        sys.exit("too little room; give another folder by --root")


def make_lake(root: Root, rows: int, increments: int) -> None:
    """Write a lake of about so many image sets and increments, searched up to now."""
    root.prepare()
    make_history(root, rows)
    everything = _record(EPOCH, NOW, "bulk")
    writer.write_empty(root, everything)
    coverage.record(root, [everything.path])
    first = NOW - timedelta(minutes=increments)
    paths = []
    for start in range(0, increments, INCREMENTS_IN_A_FILE):
        minutes = range(start, min(start + INCREMENTS_IN_A_FILE, increments))
        at = [first + timedelta(minutes=minute) for minute in minutes]
        paths.append(_write_packed(root, [_record(t, t + timedelta(minutes=1), "0") for t in at]))
    for some in (paths[n : n + 20] for n in range(0, len(paths), 20)):
        coverage.record(root, some)


def _record(start: datetime, end: datetime, run_id: str) -> Record:
    day, searched_at = f"{start:%Y-%m-%d}", end + timedelta(hours=1)
    day = day if start != EPOCH else f"{end:%Y-%m-%d}"
    return Record(DATASTORE, "updated_at", day, start, end, searched_at, run_id)


def _write_packed(root: Root, records: Sequence[Record]) -> str:
    path = packed.path_of([record.path for record in records])
    with closing(PackWriter(root, path, kinds.FOUND_SCHEMA)) as file:
        for record in records:
            file.finish_increment(record)
        file.commit()
    return path


# The service


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
        summary |= {"version": 1, "createdAt": at.timestamp(), "updatedAt": at.timestamp()}
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


@contextmanager
def served(
    root: Root, case: Case, policy: str, at: datetime
) -> Iterator[tuple[dict[str, str], int]]:
    """Serve what a case has changed; yield the environment of its parts and the number served."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summaries.ndjson"
        count = write_summaries(root, case, at, path)
        options = ["--datastore-id", DATASTORE, "--now", (at + timedelta(hours=2)).isoformat()]
        with serving(*options, *(["--load", str(path)] if count else [])) as hospital:
            environment = hospital.environment(Path(root.path())) | {
                "COHORTLAKE_PRIVACY": policy,
                "COHORTLAKE_TPS": "1000",
            }
            yield environment, count


# The parts, each run in a process of its own


def search(sync: Sync) -> None:
    """Search what is due."""
    with sync.searching(DATASTORE) as store:
        for _ in sync.extract(store, sync.due(store)):
            pass


def sweep(sync: Sync) -> None:
    """Sweep a month."""
    for _ in sync.sweep_months({DATASTORE: [SWEPT]}):
        pass


def full(sync: Sync) -> None:
    """Publish everything."""
    publisher.request_full_publish(sync.root)
    sync.publish()


WORK: dict[str, Callable[[Sync], object]] = {
    "search": search,
    "sweep": sweep,
    "apply": Sync.apply,
    "publish": Sync.publish,
    "full": full,
}


def measured(
    root: Root, case: Case, policy: str, at: datetime, deadline: Deadline
) -> tuple[int, dict[str, Measured]]:
    """Run a case; return how many image sets the service has, and what each part took."""
    deadline.left()
    took = {}
    with served(root, case, policy, at) as (environment, count):
        for column, work in case.parts:
            if work == "command":
                command = [sys.executable, "-m", "benchmarks.command", "sync", "--json"]
                took[column] = run_whole(command, environment, deadline)
            else:
                command = [sys.executable, "-m", "benchmarks.tick", "--part", work]
                took[column] = run_part(command, environment, deadline)
    return count, took


# The table


def print_head() -> None:
    """Print the first lines of the table."""
    print("Each part: seconds / CPU seconds / peak MB. Load: mean of a minute, before the case.\n")
    print("| policy | case | image sets | search | apply | publish | all | load |")
    print("|---|---|---|---|---|---|---|---|", flush=True)


def print_row(
    policy: str, name: str, count: int, runs: Sequence[dict[str, Measured]], busy: str
) -> None:
    """Print the medians of some runs, and the highest peak of memory."""
    parts = {part: _median([run[part] for run in runs]) for part in runs[0]}
    total = Measured(
        sum(part.seconds for part in parts.values()),
        sum(part.cpu_seconds for part in parts.values()),
        max(part.peak_mb for part in parts.values()),
    )
    cells = [str(parts.get(part, "")) for part in PARTS]
    print(f"| {policy} | {name} | {count:,} | {' | '.join(cells)} | {total} | {busy} |", flush=True)


def _median(runs: Sequence[Measured]) -> Measured:
    return Measured(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_seconds for run in runs),
        max(run.peak_mb for run in runs),
    )


def compare(root: Root, given: argparse.Namespace, deadline: Deadline) -> None:
    """Measure cases under some policies and print a line for each."""
    rows, at = given.image_sets, _searched_until(root)
    for policy in given.policies:
        if "full" not in given.cases and _policy(root) != policy:
            sys.exit(f"the lake is not published under {policy}: measure the case full first")
        # Another run has not changed the same image sets.
        seed = image_sets.version(root) or 0
        for number, case in enumerate(cases(rows, seed)):
            if case.key not in given.cases:
                continue
            runs, busy = [], load()
            for repeat in range(min(given.repeats, case.repeats)):
                at += timedelta(hours=2)
                drawn = cases(rows, seed + 1 + repeat)[number]
                count, parts = measured(root, drawn, policy, at, deadline)
                runs.append(parts)
            print_row(policy, case.name, count, runs, busy)


def _searched_until(root: Root) -> datetime:
    ends = coverage.read(root)["end"].to_pylist()
    return max(NOW, *ends) + timedelta(hours=2)


def _policy(root: Root) -> str | None:
    publication = read_marker(root)
    return publication.policy if publication else None


def main(given: argparse.Namespace) -> None:
    """Make a lake unless it is there, and measure it."""
    deadline = Deadline(given.minutes)
    folder = given.lake or tempfile.mkdtemp(prefix="tick-", dir=given.root)
    root = Root(folder)
    try:
        if image_sets.version(root) is None:
            require_room(str(Path(folder).parent), given)
            began = time.perf_counter()
            make_lake(root, given.image_sets, given.increments)
            print(f"made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(f"\n{given.image_sets:,} image sets, {given.increments:,} packed increments.\n")
        print_head()
        compare(root, given, deadline)
    except OutOfTime:
        print(f"\nNot measured after {given.minutes:g} minutes: what follows.", flush=True)
    finally:
        if not given.lake:
            shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-sets", type=int, default=60_000, help="the same for a kept lake")
    parser.add_argument("--policies", nargs="+", default=["safe", "limited", "identified"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--increments", type=int, default=0, help="packed ones beside the lake")
    parser.add_argument("--minutes", type=float, help="end after so many; no end by default")
    parser.add_argument("--root", help="where to make the lake; the temporary folder by default")
    parser.add_argument("--lake", help="the lake's own folder: it is made once, and stays")
    every = [case.key for case in cases(1, 0)]
    parser.add_argument("--cases", nargs="*", choices=every, default=every)
    parser.add_argument("--part", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        work = WORK[options.part]
        measure(lambda: work(Sync(Settings.from_env())))
    else:
        main(options)
