"""Claim: the cost of a publication depends on the changes; the past costs little more than now.

    python -m benchmarks.publish                    # 10 million image sets, about half an hour
    python -m benchmarks.publish --rows 1000000     # a tenth of it

Writes a version history of that many image sets directly as Delta files: studies from 2008 on,
one state in twenty replaced by a later one. Then it compares, each in its own process, medians of
three:

- a full publication, and a publication after 1,000 image sets of the last two months changed;
- a cohort count as of a week ago on `history`, and the same on `image_sets`. Not under `safe`,
  which does not show the past.

The bars: the second publication takes at most 1/5 of the first, and the count on `history` at most
3 times as long. Prints seconds and peak memory.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from benchmarks.process import peak_mb
from cohortlake import schema
from cohortlake.history import image_sets, timeline
from cohortlake.increments import kinds, writer
from cohortlake.increments.record import Record
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.storage import delta, engine
from cohortlake.storage.root import Root

DATASTORE = "b" * 32
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WEEK_AGO = NOW - timedelta(days=7)
CHANGES = 1000
RECENT = "('2026-04', '2026-05')"
ROWS_PER_STUDY = 3.5
STORED = pa.schema(
    [
        pa.field(c.name, pa.int64() if c.type == pa.time64("us") else c.type)
        for c in schema.IMAGE_SETS
    ]
)

# Studies in order of their date, with 1 to 6 series each. Some patients have several studies.
_STATES = """
WITH studies AS (
    SELECT i AS study, (hash(i) % {patients})::BIGINT AS patient,
           (DATE '2008-01-01' + (i * {days} // {studies})::INT) AS StudyDate
    FROM range({first}, {last}) t(i)
), image_sets AS (
    SELECT *, study * 6 + n AS number, hash(study * 6 + n) AS dice
    FROM studies, LATERAL range((1 + hash(study, 1) % 6)::BIGINT) r(n)
), dated AS (
    SELECT *, greatest(StudyDate::TIMESTAMPTZ, TIMESTAMPTZ '2023-08-01')
                  + to_seconds((dice % 5000000)::BIGINT % {seconds}) AS created_at
    FROM image_sets
)
SELECT '{datastore}' AS datastore_id, md5(number::VARCHAR) AS image_set_id,
       1::BIGINT AS version, created_at, created_at AS updated_at,
       created_at AS last_accessed_at, 'FREQUENT_ACCESS' AS storage_tier, true AS is_primary,
       'P' || patient AS PatientID, 'Family' || patient % 9999 || '^Given' AS PatientName,
       DATE '1930-01-01' + (hash(patient) % 30000)::INT AS PatientBirthDate,
       ['F', 'M', 'O'][1 + (hash(patient, 2) % 100 // 49)::INT] AS PatientSex,
       '1.2.826.0.1.3680043.8.498.' || hash(study) || hash(study, 5) AS StudyInstanceUID,
       'S' || study AS StudyID, 'Study of kind ' || hash(study, 6) % 200 AS StudyDescription,
       (1 + hash(study, 1) % 6)::INT AS NumberOfStudyRelatedSeries,
       (40 * (1 + hash(study, 1) % 6))::INT AS NumberOfStudyRelatedInstances,
       'A' || study AS AccessionNumber,
       '1.2.826.0.1.3680043.8.498.' || hash(number, 7) || hash(number, 8) AS SeriesInstanceUID,
       ['CT', 'MR', 'MG', 'US', 'CR', 'DX', 'PT'][1 + (hash(study, 3) % 7)::INT] AS Modality,
       ['CHEST', 'HEAD', 'BREAST', 'ABDOMEN', 'KNEE'][1 + (hash(study, 4) % 5)::INT]
           AS BodyPartExamined,
       n::INT AS SeriesNumber, StudyDate, (dice % 86400)::BIGINT * 1000000 AS StudyTime,
       (hash(number, 9) >> 1)::BIGINT AS state_key, strftime(StudyDate, '%Y-%m') AS study_month,
       dice
FROM dated
"""

# One in twenty was amended on its third day. The times and the keys equal those of
# `history.timeline`.
_INTERVALS = f"""
WITH first AS (
    SELECT *, 'created' AS change, created_at AS valid_from,
           created_at + INTERVAL 1 HOUR AS observed_from,
           NULL::BIGINT AS prior_state_key, NULL AS prior_study_month
    FROM ({{states}})
), amended AS (
    SELECT * REPLACE (
        2::BIGINT AS version, created_at + INTERVAL 72 HOUR AS updated_at,
        'Amended' AS StudyDescription, (hash(state_key, 2) >> 1)::BIGINT AS state_key,
        'updated' AS change, created_at + INTERVAL 72 HOUR AS valid_from,
        created_at + INTERVAL 73 HOUR AS observed_from,
        state_key AS prior_state_key, study_month AS prior_study_month
    ) FROM first WHERE dice % 20 = 0
)
SELECT *, {timeline.INTERVAL_KEY} AS interval_key, {timeline.IMAGE_SET_KEY} AS image_set_key,
       {timeline.ENTITY_HASHES}
FROM (FROM first UNION ALL BY NAME FROM amended)
"""

_VERSIONS = """
SELECT 'version' AS row_kind, *, 0::BIGINT AS versions_unseen,
       valid_from AS effective_at, observed_from AS observed_at, 'bulk' AS run_id
FROM intervals
"""

_END_EVENTS = """
SELECT 'closure' AS row_kind, datastore_id, image_set_id, image_set_key, study_month, interval_key,
       'superseded' AS change, created_at + INTERVAL 72 HOUR AS effective_at,
       created_at + INTERVAL 73 HOUR AS observed_at, 1::BIGINT AS revision
FROM intervals WHERE version = 1 AND dice % 20 = 0
"""

_COHORT = """
SELECT PatientSex, Modality, year(StudyDate) AS year, count(*) AS n
FROM {source} WHERE {when} AND Modality IN ('CT', 'MR') AND age_at_study_years BETWEEN 40 AND 79
GROUP BY ALL ORDER BY ALL
"""


def make_history(root: Root, rows: int) -> None:
    """Write a version history of about `rows` image sets."""
    studies = round(rows / ROWS_PER_STUDY)
    days = (NOW.date() - datetime(2008, 1, 1, tzinfo=UTC).date()).days
    step = 200_000  # a few months of a large lake, in bounded memory
    for first in range(0, studies, step):
        states = _STATES.format(
            datastore=DATASTORE, first=first, last=min(first + step, studies), studies=studies,
            days=days, patients=max(1, studies // 3), seconds=20 * 86400,
        )  # fmt: skip
        with engine.connection() as con:
            con.execute(f"CREATE TEMP TABLE intervals AS {_INTERVALS.format(states=states)}")
            for query in (_VERSIONS, _END_EVENTS):
                con.execute(f"CREATE OR REPLACE TEMP VIEW part AS {query}")
                given = [row[0] for row in con.sql("DESCRIBE part").fetchall()]
                columns = (n if n in given else f"NULL AS {n}" for n in STORED.names)
                ordered = f"SELECT {', '.join(columns)} FROM part ORDER BY study_month, updated_at"
                table = delta.make_table(root, image_sets.TABLE, STORED, ["row_kind"])
                delta.commit(root, image_sets.TABLE, table, engine.batches(con, ordered, STORED))


def change(root: Root, count: int, seed: int) -> None:
    """Apply an increment with a new version of `count` image sets of the last two months."""
    now = NOW + timedelta(minutes=seed)
    columns = ", ".join(c.name for c in schema.STATE)
    record = Record(DATASTORE, "updated_at", f"{now:%Y-%m-%d}", NOW, now, now, f"change-{seed}")
    with engine.connection() as con:
        image_sets.register(con, root)
        changed = f"""
            SELECT {columns} FROM (
                SELECT * REPLACE (version + 1 AS version, TIMESTAMPTZ '{now.isoformat()}'
                    AS updated_at, 'KNEE' AS BodyPartExamined,
                    (hash(state_key, {seed}) >> 1)::BIGINT AS state_key)
                FROM current WHERE study_month IN {RECENT}
                ORDER BY hash(image_set_id, {seed}) LIMIT {count})"""
        states = engine.batches(con, changed, schema.arrow_schema(schema.STATE)).read_all()
    states = states.append_column("page", pa.array([0] * len(states), pa.int32()))
    record = replace(record, rows=len(states), kept_rows=len(states))
    writer.write_table(root, record, kinds.with_run_columns(states, record))
    applied = image_sets.apply(root, [record.path])
    assert applied.changes == {"updated": count}, applied


def full(root: Root, policy: str) -> dict[str, Any]:
    """Publish everything again."""
    publisher.request_full_publish(root)
    return _published(root, policy)


def recent(root: Root, policy: str) -> dict[str, Any]:
    """Publish what changed."""
    return _published(root, policy)


def _published(root: Root, policy: str) -> dict[str, Any]:
    publication = publisher.publish(root, built_in(policy))
    assert publication is not None
    return {"files": len(publication.written), "rows": publication.rows("image_sets")}


def count_now(root: Root, _: str) -> dict[str, Any]:
    """Count a cohort on the present rows."""
    return _counted(root, "image_sets", "true")


def count_then(root: Root, _: str) -> dict[str, Any]:
    """Count the same cohort as of a week ago."""
    at = f"TIMESTAMPTZ '{WEEK_AGO.isoformat()}'"
    return _counted(
        root, "history", f"valid_from <= {at} AND (valid_to IS NULL OR valid_to > {at})"
    )


def _counted(root: Root, table: str, when: str) -> dict[str, Any]:
    source = f"'{root.path('published', table)}/**/*.parquet'"
    query = _COHORT.format(source=source, when=when)
    duckdb.sql(query).fetchall()  # warm
    took = []
    for _ in range(5):
        began = time.perf_counter()
        rows = duckdb.sql(query).fetchall()
        took.append(time.perf_counter() - began)
    return {"rows": sum(row[-1] for row in rows), "seconds": statistics.median(took)}


STEPS: dict[str, Callable[[Root, str], dict[str, Any]]] = {
    "full": full,
    "recent": recent,
    "count_now": count_now,
    "count_then": count_then,
}


def measured(step: str, root: Root, policy: str) -> dict[str, Any]:
    """Run a step in its own process."""
    command = [sys.executable, "-m", "benchmarks.publish", "--step", step, "--root", root.uri]
    done = subprocess.run(
        [*command, "--policy", policy], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"  {step}: {result}", flush=True)
    return result


def run_step(step: str, root: Root, policy: str) -> None:
    """Run a step; print its seconds and peak memory."""
    began = time.perf_counter()
    result = STEPS[step](root, policy)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb()} | result))


def main(rows: int, root: Root, repeats: int, policy: str) -> None:
    """Measure all steps and print the table."""
    if image_sets.version(root) is None:
        root.prepare()
        began = time.perf_counter()
        make_history(root, rows)
        print(f"made in {time.perf_counter() - began:.0f} s", flush=True)
    whole = [measured("full", root, policy) for _ in range(repeats)]
    some = []
    for _ in range(repeats):
        change(root, CHANGES, seed=image_sets.version(root) or 0)
        some.append(measured("recent", root, policy))
    seconds = [statistics.median(m["seconds"] for m in runs) for runs in (whole, some)]
    peaks = [max(m["peak_mb"] for m in runs) for runs in (whole, some)]
    print(f"| rows | {whole[0]['rows']:,} image sets |")
    print(f"| full | {seconds[0]:.1f} s, {peaks[0]} MB |")
    print(f"| after {CHANGES} recent changes | {seconds[1]:.1f} s, {peaks[1]} MB |")
    print(f"| ratio | 1/{seconds[0] / seconds[1]:.1f} |")
    if policy == "safe":
        return
    now, then = (measured(step, root, policy) for step in ("count_now", "count_then"))
    print(f"| count now | {now['seconds']:.3f} s |")
    print(f"| count as of a week ago | {then['seconds']:.3f} s, "
          f"{then['seconds'] / now['seconds']:.1f} times |")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--policy", default="limited")
    parser.add_argument("--root", help="where to make the lake, or where it was made before")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, Root(given.root), given.policy)
    elif given.root:
        main(given.rows, Root(given.root), given.repeats, given.policy)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(given.rows, Root(str(Path(folder))), given.repeats, given.policy)
