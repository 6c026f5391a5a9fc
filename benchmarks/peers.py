"""Claim: a tick of a small lake costs no more than a peer's, and only the lake has what is true.

    python -m benchmarks.peers                              # 60,000 image sets, some minutes
    python -m benchmarks.peers --image-sets 60000 1000000 --minutes 60

An emulator serves a synthetic hospital. Its index finds a change a minute later. Each way loads it,
then takes up 20 changes that the index did not have in time, runs once with nothing new, and once
after 1,000 image sets of all study dates got a new version, 200 came and 10 were deleted:

- `cohortlake sync` under `safe`, and `cohortlake reconcile`, which finds what was deleted;
- dlt: `merge` with the strategy `upsert` into a Delta table, with a cursor on updatedAt
  (`benchmarks.peers_dlt`). It is no dependency. Install `dlt[deltalake]` and `boto3` into an
  environment of its own, and give its Python by `--dlt-python`;
- the loop of the documentation: paginator, `json_normalize`, `to_parquet`, one more file each time,
  from where the last one ended (`benchmarks.peers_loop`).

Each runs in a process of its own, measured from the start of Python to its end. Afterwards what
each holds is compared with what the service holds: by image set and version.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable

from benchmarks.process import Deadline, OutOfTime, load, run_whole
from cohortlake.history import image_sets
from cohortlake.storage import engine
from cohortlake.storage.root import Root
from emulator.control.client import AdminClient
from scripts.hospital import Hospital, serving

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CHANGED, ADDED, DELETED = 1000, 200, 10
LATE = 20
"""Image sets that change half a minute before the first load: the index does not have them yet."""
INDEX_LAG_SECONDS = 60

State = tuple[str, int]
"""An image set and its version."""


# What is right


@dataclass(frozen=True)
class Faults:
    """How the rows that a way has as current differ from what the service holds.

    Attributes:
        missing: Image sets that have no row.
        outdated: Image sets whose newest row is of an earlier version.
        deleted: Image sets that have a row and are deleted.
        twice: Rows beyond the first of an image set.
        former_lost: States that were loaded, then replaced, and can no longer be read.
    """

    missing: int
    outdated: int
    deleted: int
    twice: int
    former_lost: int


def faults(
    held: Iterable[State],
    kept: Iterable[State],
    true: Iterable[State],
    former: Iterable[State],
) -> Faults:
    """Compare what a way holds with the truth.

    Args:
        held: Its rows that count as current.
        kept: All states that can be read from it.
        true: What the service holds.
        former: States that the service held when the way was loaded, and that were replaced since.
    """
    rows, newest = Counter[str](), dict[str, int]()
    for image_set_id, version in held:
        rows[image_set_id] += 1
        newest[image_set_id] = max(version, newest.get(image_set_id, 0))
    current = dict(true)
    return Faults(
        missing=len(current.keys() - newest.keys()),
        outdated=sum(newest.get(i, version) < version for i, version in current.items()),
        deleted=len(newest.keys() - current.keys()),
        twice=rows.total() - len(rows),
        former_lost=len(set(former) - set(kept)),
    )


def truth(hospital: Hospital) -> dict[str, int]:
    """Return the version of each image set that the service holds."""
    summaries = AdminClient(hospital.endpoint).truth()
    return {one["imageSetId"]: one["version"] for one in summaries}


# The ways


@dataclass(frozen=True)
class Way:
    """A way to keep a copy of a data store.

    Attributes:
        name: As the table says it.
        command: Returns the command of a run, of the data store, the folder and the instant.
        held: Returns its rows that count as current.
        kept: Returns all states that can be read from it.
        last: A command that runs at the end, and its name.
    """

    name: str
    command: Callable[[str, Path, datetime], Sequence[str]]
    held: Callable[[Path], list[State]]
    kept: Callable[[Path], list[State]]
    last: tuple[str, Sequence[str]] | None = None


def cohortlake() -> Way:
    """Return the library's way, by the command line."""
    cli = (sys.executable, "-m", "benchmarks.command")

    def held(folder: Path) -> list[State]:
        files = (folder / "published" / "image_sets").rglob("*.parquet")
        return _states(files, "image_set_id", "version")

    def kept(folder: Path) -> list[State]:
        with engine.connection() as con:
            image_sets.register(con, Root(str(folder)))
            return con.sql("SELECT image_set_id, version FROM history").fetchall()

    return Way(
        "cohortlake",
        lambda *_: (*cli, "sync", "--json"),
        held,
        kept,
        ("reconcile", (*cli, "reconcile", "--json")),
    )


def dlt(python: str) -> Way:
    """Return dlt's way, in an environment that has it."""

    def rows(folder: Path) -> list[State]:
        table = DeltaTable(str(folder / "lake" / "image_sets"))
        columns = table.to_pyarrow_table(columns=["image_set_id", "version"])
        return list(zip(*columns.to_pydict().values(), strict=True))

    return Way(
        "dlt, upsert",
        lambda datastore_id, folder, now: (
            python, "-m", "benchmarks.peers_dlt", datastore_id, str(folder), now.isoformat(),
        ),
        rows,
        rows,
    )  # fmt: skip


def documented_loop() -> Way:
    """Return the way of the service's documentation."""

    def rows(folder: Path) -> list[State]:
        return _states(folder.glob("*.parquet"), "imageSetId", "version")

    return Way(
        "the loop",
        lambda datastore_id, folder, now: (
            sys.executable, "-m", "benchmarks.peers_loop", datastore_id, str(folder),
            now.isoformat(),
        ),
        rows,
        rows,
    )  # fmt: skip


def _states(files: Iterable[Path], *columns: str) -> list[State]:
    tables = (pq.read_table(file, columns=list(columns)) for file in files)
    return [state for table in tables for state in zip(*table.to_pydict().values(), strict=True)]


def without_dlt(python: str) -> str | None:
    """Return why dlt cannot run with a Python, or None if it can."""
    check = [python, "-c", "import boto3, deltalake, dlt"]
    try:
        subprocess.run(check, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return (
            f"dlt is left out: {python} cannot import dlt, deltalake and boto3. Install "
            "dlt[deltalake] and boto3 into an environment, and give its Python by --dlt-python."
        )
    return None


# What happens at the hospital


def change(hospital: Hospital, ids: Sequence[str]) -> None:
    """Give image sets a new version."""
    admin = AdminClient(hospital.endpoint)
    for image_set_id in ids:
        admin.update(image_set_id, {"DICOMSeriesBodyPart": "KNEE"})


def live(hospital: Hospital, draw: random.Random, before: Sequence[str]) -> set[str]:
    """Let an hour pass in which image sets change, come and go; return those with a new version."""
    admin = AdminClient(hospital.endpoint)
    drawn = draw.sample(before, CHANGED + DELETED)
    change(hospital, drawn[:CHANGED])
    admin.import_summaries(
        [
            {
                "DICOMTags": {
                    "DICOMPatientId": f"NEW{number}",
                    "DICOMStudyInstanceUID": f"2.25.1{number}",
                    "DICOMSeriesInstanceUID": f"2.25.2{number}",
                    "DICOMStudyDate": f"20{number % 25:02d}0{number % 9 + 1}11",
                    "DICOMSeriesModality": "CT",
                }
            }
            for number in range(ADDED)
        ]
    )
    for image_set_id in drawn[CHANGED:]:
        admin.delete(image_set_id)
    admin.advance(seconds=3600)
    return set(drawn[:CHANGED])


# The run


def compare(rows: int, ways: Sequence[Way], deadline: Deadline) -> None:
    """Measure the ways on a hospital of so many image sets, and print a line for each run."""
    draw = random.Random(7)  # noqa: S311 - which image sets change
    options = ("--synthetic", str(rows), "--clock", "stopped", "--now", NOW.isoformat())
    lag = ("--index-lag-ms", str(1000 * INDEX_LAG_SECONDS))
    with tempfile.TemporaryDirectory() as temporary, serving(*options, *lag) as hospital:
        admin = AdminClient(hospital.endpoint)
        folders = {way.name: Path(temporary, str(number)) for number, way in enumerate(ways)}
        for folder in folders.values():
            folder.mkdir()
        known = sorted(truth(hospital))
        change(hospital, draw.sample(known, LATE))
        admin.advance(seconds=INDEX_LAG_SECONDS / 2)

        def run(step: str, former: set[State]) -> None:
            now = datetime.fromisoformat(str(admin.clock()["now"]))
            true = truth(hospital)
            for way in ways:
                command = way.command(hospital.datastore_id, folders[way.name], now)
                _run(way, step, command, hospital, folders[way.name], true, former, deadline)

        run("first load", set())
        admin.advance(seconds=3600)
        run(f"{LATE} changes of before", set())
        admin.advance(seconds=3600)
        run("nothing new", set())
        replaced = truth(hospital)
        changed = live(hospital, draw, known)
        former = {(i, replaced[i]) for i in changed}
        run(f"{CHANGED:,} changed, {ADDED} new, {DELETED} deleted", former)
        for way in ways:
            if way.last:
                step, command = way.last
                folder = folders[way.name]
                _run(way, step, command, hospital, folder, truth(hospital), former, deadline)


def _run(
    way: Way,
    step: str,
    command: Sequence[str],
    hospital: Hospital,
    folder: Path,
    true: dict[str, int],
    former: set[State],
    deadline: Deadline,
) -> None:
    busy = load()
    environment = hospital.environment(folder) | {
        "COHORTLAKE_PRIVACY": "safe",
        "COHORTLAKE_TPS": "1000000",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "TZ": "UTC",  # elsewhere the loop fails, because Parquet does not know boto3's tzlocal()
    }
    took = run_whole(command, environment, deadline)
    found = faults(way.held(folder), way.kept(folder), true.items(), former)
    cells = (way.name, step, took, *vars(found).values(), busy)
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def ways(dlt_python: str) -> Iterator[Way]:
    """Yield the ways that can run here."""
    yield cohortlake()
    if reason := without_dlt(dlt_python):
        print(f"\n{reason}", flush=True)
    else:
        yield dlt(dlt_python)
    yield documented_loop()


def main(given: argparse.Namespace) -> None:
    """Print a table for each size."""
    deadline, all_ways = Deadline(given.minutes), list(ways(given.dlt_python))
    for rows in given.image_sets:
        print(f"\n{rows:,} image sets. Seconds / CPU seconds / peak MB.\n")
        print(
            "| way | run | took | missing | outdated | deleted, still there | rows twice "
            "| former states lost | load |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        try:
            compare(rows, all_ways, deadline)
        except OutOfTime:
            print(f"\nNot measured after {given.minutes:g} minutes: what follows.", flush=True)
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-sets", type=int, nargs="+", default=[60_000])
    parser.add_argument("--dlt-python", default=sys.executable, help="a Python that has dlt")
    parser.add_argument("--minutes", type=float, help="end after so many; no end by default")
    main(parser.parse_args())
