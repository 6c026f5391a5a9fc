"""Claim: cohorts of ten million series cost what DuckDB by hand costs, in little memory.

    python -m benchmarks.cohorts                  # ten million series, some minutes
    python -m benchmarks.cohorts --rows 1000000

Makes published tables with DuckDB in a temporary folder, three series a study and three studies
a patient over twelve years, and measures each question in a process of its own. Prints the
table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

import cohortlake
from cohortlake import Lake, schema
from cohortlake.lake.publication import MARKER_PATH, Publication
from cohortlake.privacy import built_in

WHO = (
    "PatientSex = 'F' AND age_at_study_years BETWEEN 40 AND 65 AND Modality = 'MG' "
    "AND StudyDate BETWEEN '2015-01-01' AND '2024-12-31'"
)
POLICY = built_in("limited")
REPEATS = 5

SERIES = """
CREATE TABLE series AS
SELECT repeat('d', 32) AS datastore_id,
       '1.2.840.113619.2.' || (n * 7919) || '.' || hash(n) AS SeriesInstanceUID,
       '1.2.840.113619.3.' || (study * 104729) || '.' || hash(study) AS StudyInstanceUID,
       DATE '2014-01-01' + (hash(study) % 4300)::INT AS StudyDate,
       TIME '08:00' + to_minutes((hash(study + 1) % 600)::INT) AS StudyTime,
       'Routine' AS StudyDescription, DATE '1970-01-01' AS PatientBirthDate,
       md5((study // 3)::VARCHAR) AS patient_key,
       ['F', 'M'][1 + (hash(study // 3) % 2)::INT] AS PatientSex,
       PatientSex AS sex, 'ok' AS sex_status,
       (20 + hash(study + 2) % 70)::SMALLINT AS age_at_study_years, 'ok' AS age_status,
       concat(age_at_study_years // 10, '0-', age_at_study_years // 10, '9') AS age_band,
       ['CT', 'MR', 'DX', 'CR', 'US', 'MG', 'PT', 'XA'][1 + (hash(study + 3) % 8)::INT] AS Modality,
       ['CHEST', 'HEAD', 'BREAST', 'KNEE'][1 + (hash(study + 4) % 4)::INT] AS BodyPartExamined,
       BodyPartExamined AS body_part, 'ok' AS body_part_status,
       (n % 5)::INT AS SeriesNumber, 1::BIGINT AS n_image_sets, false AS has_duplicates,
       md5(n::VARCHAR) AS image_set_id, true AS is_primary,
       TIMESTAMPTZ '2026-01-01 00:00+00' AS first_created_at, first_created_at AS last_updated_at
FROM (SELECT n, n // 3 AS study FROM range($rows) t(n))
"""
STUDIES = """
CREATE TABLE studies AS
SELECT datastore_id, StudyInstanceUID, any_value(StudyDate) AS StudyDate,
       any_value(StudyTime) AS StudyTime, any_value(StudyDescription) AS StudyDescription,
       any_value(PatientBirthDate) AS PatientBirthDate, any_value(patient_key) AS patient_key,
       any_value(PatientSex) AS PatientSex, any_value(age_at_study_years) AS age_at_study_years,
       any_value(sex) AS sex, 'ok' AS sex_status, any_value(age_band) AS age_band,
       'ok' AS age_status, 1 AS study_ordinal, NULL::INT AS days_since_previous,
       NULL::VARCHAR AS accession_key, list(DISTINCT Modality) AS modalities,
       list(DISTINCT body_part) AS body_parts, body_parts AS body_parts_examined,
       count(*) AS n_series, count(*) AS n_image_sets, 3 AS NumberOfStudyRelatedSeries,
       90 AS NumberOfStudyRelatedInstances, min(first_created_at) AS first_created_at,
       max(last_updated_at) AS last_updated_at
FROM series GROUP BY ALL
"""


def publish(root: Path, rows: int) -> None:
    """Write the tables that cohorts of studies read, a file a month."""
    files = {}
    with duckdb.connect(config={"preserve_insertion_order": False}) as con:
        con.execute(SERIES, {"rows": rows})
        con.execute(STUDIES)
        months = con.sql("SELECT DISTINCT strftime(StudyDate, '%Y-%m') FROM studies").fetchall()
        for table, order in (("series", "Modality, StudyDate"), ("studies", "StudyDate")):
            columns = ", ".join(
                name for name in POLICY.tables[table] if name != schema.STUDY_MONTH.name
            )
            for (month,) in months:
                path = f"published/{table}/study_month={month}/{table}.parquet"
                (root / path).parent.mkdir(parents=True)
                first = f"DATE '{month}-01'"
                con.execute(
                    f"COPY (SELECT {columns} FROM {table} WHERE StudyDate >= {first} "
                    f"AND StudyDate < {first} + INTERVAL 1 MONTH ORDER BY {order}) "
                    f"TO '{root / path}' (FORMAT parquet, COMPRESSION zstd)"
                )
                files[path] = 0
    marker = Publication(
        0, POLICY.name, POLICY.digest, POLICY.widened, POLICY.tables, schema.FORMAT_VERSION,
        "2026-01-01T00:00:00+00:00", files,
    )  # fmt: skip
    (root / MARKER_PATH).write_bytes(marker.to_marker())


def by_hand(lake: Lake) -> object:
    """Count in DuckDB over the same files, without the library."""
    files = f"read_parquet('{lake.root.uri}/published/series/**/*.parquet')"
    return lake.connection.sql(f"SELECT count(*) FROM {files} WHERE {WHO}").fetchall()


def first_study(lake: Lake) -> object:
    """Count the first study of each patient."""
    return lake.cohort("first").first_study_per_patient().count()


QUESTIONS: dict[str, Callable[[Lake], object]] = {
    "open": lambda lake: cohortlake.open(lake.root.uri),
    "count, DuckDB by hand": by_hand,
    "count, lake.sql": lambda lake: lake.sql(f"SELECT count(*) FROM series WHERE {WHO}").fetchall(),
    "count, a cohort's step": lambda lake: (
        lake.cohort("who").where(WHO).ask("SELECT count(*) FROM step_1").fetchall()
    ),
    "cohort.count()": lambda lake: lake.cohort("who").where(WHO).count(),
    "its members as a frame": lambda lake: lake.cohort("who").where(WHO).to_pandas(),
    "first study per patient": first_study,
}


def measure(root: str, question: str) -> dict[str, float]:
    """Ask once cold and some times warm; return the best seconds and the peak memory."""
    lake = cohortlake.open(root)
    seconds = []
    for _ in range(REPEATS if question != "first study per patient" else 2):
        began = time.monotonic()
        QUESTIONS[question](lake)
        seconds.append(time.monotonic() - began)
    # Not getrusage: what it says of a child begins with what its parent held.
    status = Path("/proc/self/status").read_text()
    return {"seconds": min(seconds), "peak": int(status.split("VmHWM:")[1].split()[0]) / 1000}


def main() -> None:
    """Make the lake and measure, or measure one question in this process."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--one", nargs=2, metavar=("ROOT", "QUESTION"))
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), given.rows)
        print("| question | seconds, warm | peak MB |\n|---|---|---|")
        for question in QUESTIONS:
            command = [sys.executable, "-m", "benchmarks.cohorts", "--one", folder, question]
            told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"| {question} | {told['seconds']:.2f} | {told['peak']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
