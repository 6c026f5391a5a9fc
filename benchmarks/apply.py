"""Claim: the cost of a commit to the version history depends on the changes, not on its size.

    python -m benchmarks.apply                      # 10 million image sets, about an hour
    python -m benchmarks.apply --rows 1000000       # a tenth of it, some minutes

Four ways apply the same changes to the same image sets, each in its own process:

- append: `history.image_sets.apply`, which also keeps every earlier state;
- merge: Delta MERGE into a table of the present states, partitioned by study year, with a
  predicate that names the partitions;
- merge, blind: the same without that predicate;
- rewrite: DuckDB writes the whole table again.

The cases are 10,000 changes in the last two years, 10,000 in all years, 100 changes, and nothing
new. Prints the median seconds, the peak memory of the process, and the bytes written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake

from benchmarks.process import peak_mb
from benchmarks.publish import DATASTORE, NOW, make_history
from cohortlake import schema
from cohortlake.history import image_sets
from cohortlake.increments import kinds, writer
from cohortlake.increments.record import Record
from cohortlake.storage import delta, engine
from cohortlake.storage.root import Root

STATE = ", ".join(column.name for column in schema.STATE)
RECENT = "study_month >= '2024-06' AND study_month <> 'undated'"
PRESENT = "present"
YEAR = "coalesce(year(StudyDate), 0)::INT AS study_year"
ZSTD = WriterProperties(compression="ZSTD", compression_level=3)
# Delta Lake has no type for a time of day.
STORED = pa.schema([
    *(pa.field(c.name, pa.int64() if c.type == pa.time64("us") else c.type) for c in schema.STATE),
    pa.field("study_year", pa.int32()),
])  # fmt: skip
AS_STORED = f"SELECT * REPLACE (epoch_us(StudyTime) AS StudyTime), {YEAR}"


def make_present(root: Root) -> None:
    """Write the present states to a separate Delta table, partitioned by study year."""
    with engine.connection() as con:
        image_sets.register(con, root)
        for first in range(1990, 2030, 4):  # some years at a time: a writer keeps them in memory
            years = f"SELECT {STATE} FROM current WHERE year(StudyDate) BETWEEN {first} AND "
            rows = engine.batches(con, f"{AS_STORED} FROM ({years}{first + 3})", STORED)
            write_deltalake(
                root.uri_of(PRESENT), rows, mode="append", partition_by=["study_year"],
                writer_properties=ZSTD,
            )  # fmt: skip


def make_changes(root: Root, count: int, where: str, seed: int) -> str:
    """Write an increment in which `count` image sets have a new version; return its path."""
    now = NOW + timedelta(minutes=seed)
    with engine.connection() as con:
        image_sets.register(con, root)
        one_in = engine.count(con, f"SELECT count(*) FROM current WHERE {where}") // (2 * count)
    changed = f"""
        SELECT {STATE} FROM (
            SELECT * REPLACE (version + 1 AS version, TIMESTAMPTZ '{now.isoformat()}'
                AS updated_at, 'KNEE' AS BodyPartExamined,
                (hash(state_key, {seed}) >> 1)::BIGINT AS state_key)
            FROM current WHERE {where} AND hash(image_set_id, {seed}) % {max(1, one_in)} = 0
            ORDER BY hash(image_set_id, {seed}, 'which') LIMIT {count})
    """
    with engine.connection() as con:
        image_sets.register(con, root)
        states = engine.batches(con, changed, schema.arrow_schema(schema.STATE)).read_all()
    assert len(states) == count, "as many changes as were asked for"
    record = Record(DATASTORE, "updated_at", f"{now:%Y-%m-%d}", NOW, now, now, f"change-{seed}")
    record = replace(record, rows=count, kept_rows=count)
    states = states.append_column("page", pa.array([0] * count, pa.int32()))
    writer.write_table(root, record, kinds.with_run_columns(states, record))
    return record.path


# The ways. Each takes the increment and runs in its own process.


def append(root: Root, path: str) -> None:
    """Apply an increment to the version history."""
    image_sets.apply(root, [path])


def merge(root: Root, path: str) -> None:
    """Merge an increment into the present states, in the partitions that it names."""
    changes = _changes(root, path)
    years = ", ".join(str(year) for year in sorted(set(changes["study_year"].to_pylist())))
    _merge(root, changes, f" AND t.study_year IN ({years})")


def merge_blind(root: Root, path: str) -> None:
    """Merge an increment without naming partitions."""
    _merge(root, _changes(root, path), "")


def rewrite(root: Root, path: str) -> None:
    """Write all present states again, as plain files by study year."""
    files = DeltaTable(root.uri_of(PRESENT)).file_uris()
    with engine.connection() as con, tempfile.TemporaryDirectory(dir=root.path()) as folder:
        con.register("changes", _changes(root, path))
        con.read_parquet(files, hive_partitioning=True).create_view("present")
        con.execute(f"""
            COPY (
                SELECT * FROM present ANTI JOIN changes USING (datastore_id, image_set_id)
                UNION ALL BY NAME FROM changes
            ) TO '{folder}/new' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY study_year)
        """)
        print(json.dumps({"bytes": _size(Path(folder))}))


WAYS: dict[str, Callable[[Root, str], None]] = {
    "append": append,
    "merge": merge,
    "merge, blind": merge_blind,
    "rewrite": rewrite,
}


def _changes(root: Root, path: str) -> pa.Table:
    with engine.connection() as con:
        engine.register(con, "found", root, [path], kinds.FOUND_SCHEMA)
        return engine.batches(
            con, f"{AS_STORED} FROM (SELECT {STATE} FROM found)", STORED
        ).read_all()


def _merge(root: Root, changes: pa.Table, partitions: str) -> None:
    table = DeltaTable(root.uri_of(PRESENT))
    (
        table.merge(
            changes,
            "t.image_set_id = s.image_set_id AND t.datastore_id = s.datastore_id" + partitions,
            source_alias="s", target_alias="t", writer_properties=ZSTD,
        )
        .when_matched_update_all("s.version > t.version")
        .when_not_matched_insert_all()
        .execute()
    )  # fmt: skip


# The runs


def run_way(way: str, root: Root, path: str) -> None:
    """Run one way in this process; print its seconds, peak memory and bytes written."""
    before, began = _size(Path(root.path())), time.perf_counter()
    WAYS[way](root, path)
    seconds = time.perf_counter() - began
    written = _size(Path(root.path())) - before
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "bytes": written}))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measured(way: str, root: Root, path: str) -> dict[str, float]:
    """Run one way in its own process."""
    command = [sys.executable, "-m", "benchmarks.apply", "--way", way, "--root", root.uri]
    done = subprocess.run(
        [*command, "--increment", path], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():  # a byte count that the way prints itself wins
        found = json.loads(line) | found
    return found


def main(rows: int, root: Root, repeats: int) -> None:
    """Measure all cases and print the table."""
    if image_sets.version(root) is None:
        root.prepare()
        make_history(root, rows)
    if delta.open_table(root, PRESENT) is None:
        make_present(root)
    base = DeltaTable(root.uri_of(PRESENT)).version()  # the changes are new to each way
    cases = (
        ("10,000 recent", 10_000, RECENT),
        ("10,000 all over", 10_000, "true"),
        ("100 all over", 100, "true"),
    )
    print("| changes | way | seconds | times append | peak MB | MB written |")
    print("|---|---|---|---|---|---|", flush=True)
    paths = []
    for name, count, where in cases:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            paths.append(make_changes(root, count, where, (image_sets.version(root) or 0) + 1))
            for way, found in runs.items():
                found.append(measured(way, root, paths[-1]))
                _take_back(DeltaTable(root.uri_of(PRESENT)), base)
        _print_rows(name, runs)
    again = [measured("append", root, path) for path in paths[-repeats:]]
    _print_rows("nothing new", {"append": again})


def _take_back(present: DeltaTable, base: int) -> None:
    if present.version() > base:
        present.restore(base)


def _print_rows(name: str, runs: dict[str, list[dict[str, float]]]) -> None:
    base = statistics.median(one["seconds"] for one in runs["append"])
    for way, found in runs.items():
        seconds = statistics.median(one["seconds"] for one in found)
        print(
            f"| {name} | {way} | {seconds:.2f} | {seconds / base:.1f} "
            f"| {max(one['peak_mb'] for one in found):.0f} "
            f"| {statistics.median(one['bytes'] for one in found) / 1e6:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", help="where to make the lake, or where it was made before")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--increment", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        run_way(given.way, Root(given.root), given.increment)
    elif given.root:
        main(given.rows, Root(given.root), given.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(given.rows, Root(folder), given.repeats)
