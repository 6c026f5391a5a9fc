"""Claim: a query on ten million image sets costs as much as in plain DuckDB, in little memory.

    python -m benchmarks.cohort                   # ten million image sets, about half an hour
    python -m benchmarks.cohort --rows 1000000    # a tenth of it, some minutes

Publishes the lake of benchmarks.publish under `limited`, and runs each question in its own
process: a cohort's count and its members, the first study of each patient, single rows by their
id, and the same in pandas. Prints the table of benchmarks/README.md: the median seconds when
warm, and the peak memory of the process.
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

import cohortlake
from benchmarks.process import peak_mb
from cohortlake import Lake
from cohortlake.publish.publication.marker import read_marker
from cohortlake.storage.root import Root

WHO = (
    "PatientSex = 'F' AND age_at_study_years BETWEEN 40 AND 65 AND Modality = 'MG' "
    "AND StudyDate BETWEEN '2015-01-01' AND '2024-12-31'"
)
COLUMNS = ["PatientSex", "age_at_study_years", "Modality", "StudyDate"]
REPEATS = 5

Question = Callable[[], object]


def count_by_hand(lake: Lake) -> Question:
    """Count in DuckDB over the same files, without the library."""
    files = f"read_parquet('{lake.root.uri}/published/series/**/*.parquet')"
    query = f"SELECT count(*) FROM {files} WHERE {WHO}"
    return lambda: lake.connection.sql(query).fetchall()


def count_in_pandas(columns: list[str] | None) -> Callable[[Lake], Question]:
    """Count in pandas, including the reading of the files."""

    def question(lake: Lake) -> Question:
        import pandas as pd  # in the processes of these questions only

        def ask() -> object:
            folder = lake.root.path("published", "series")
            rows = pd.read_parquet(folder, columns=columns, dtype_backend="pyarrow")
            known = rows["age_at_study_years"].between(40, 65) & (rows["PatientSex"] == "F")
            days = rows["StudyDate"].astype("timestamp[s][pyarrow]")
            when = days.between(pd.Timestamp("2015-01-01"), pd.Timestamp("2024-12-31"))
            return int((known & when & (rows["Modality"] == "MG")).sum())

        return ask

    return question


def first_study_in_pandas(lake: Lake) -> Question:
    """Count the first study of each patient in pandas; ties keep the order of the file."""
    import pandas as pd

    columns = ["patient_key", "StudyDate", "StudyTime", "StudyInstanceUID"]

    def ask() -> object:
        folder = lake.root.path("published", "studies")
        studies = pd.read_parquet(folder, columns=columns, dtype_backend="pyarrow")
        return len(studies.sort_values(columns).drop_duplicates("patient_key"))

    return ask


def one_by(table: str, column: str) -> Callable[[Lake], Question]:
    """Look up single rows, each by an existing id."""

    def question(lake: Lake) -> Question:
        some = f'SELECT "{column}" FROM {table} USING SAMPLE {4 * REPEATS}'
        ids = iter([one for (one,) in lake.sql(some).fetchall()])
        query = f'FROM {table} WHERE "{column}" = $id'

        def ask() -> object:
            found = lake.sql(query, {"id": next(ids)}).fetchall()
            assert found
            return found

        return ask

    return question


QUESTIONS: dict[str, Callable[[Lake], Question]] = {
    "open": lambda lake: lambda: cohortlake.open(lake.root.uri),
    "count, DuckDB by hand": count_by_hand,
    "count, lake.sql": lambda lake: (
        lambda: lake.sql(f"SELECT count(*) FROM series WHERE {WHO}").fetchall()
    ),
    "count, a cohort's step": lambda lake: (
        lambda: lake.cohort("who").where(WHO).ask("SELECT count(*) FROM step_1").fetchall()
    ),
    "count, pandas, four columns": count_in_pandas(COLUMNS),
    "count, pandas, the whole table": count_in_pandas(None),
    "cohort.count()": lambda lake: lambda: lake.cohort("who").where(WHO).count(),
    "its members as a frame": lambda lake: lambda: lake.cohort("who").where(WHO).to_pandas(),
    "first study per patient": lambda lake: (
        lambda: lake.cohort("first").first_study_per_patient().count()
    ),
    "first study per patient, pandas": first_study_in_pandas,
    "one image set": one_by("image_sets", "image_set_id"),
    "one series": one_by("series", "SeriesInstanceUID"),
    "one study": one_by("studies", "StudyInstanceUID"),
    "one patient": one_by("patients", "patient_key"),
    "one patient's studies": one_by("studies", "patient_key"),
    "one patient's image sets": one_by("image_sets", "patient_key"),
}
SLOW = ("first study", "whole table")


def measure(root: str, name: str) -> dict[str, float]:
    """Run a question once cold and several times warm; return median seconds and peak memory."""
    ask = QUESTIONS[name](cohortlake.open(root))
    ask()
    seconds = []
    for _ in range(2 if any(word in name for word in SLOW) else REPEATS):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb()}


def measured(root: Root, name: str) -> dict[str, float]:
    """Measure a question in its own process."""
    command = [sys.executable, "-m", "benchmarks.cohort", "--root", root.uri, "--question", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def make(root: Root, rows: int) -> None:
    """Make and publish a lake of about `rows` image sets."""
    from benchmarks.publish import make_history  # a reader's process must not import it
    from cohortlake.privacy import built_in
    from cohortlake.publish import publisher

    root.prepare()
    make_history(root, rows)
    publisher.publish(root, built_in("limited"))


def main(root: Root, rows: int) -> None:
    """Make the lake if it does not exist, and measure all questions."""
    if read_marker(root) is None:
        make(root, rows)
    print("| question | seconds, warm | peak MB |\n|---|---|---|")
    for name in QUESTIONS:
        took = measured(root, name)
        print(f"| {name} | {took['seconds']:.3f} | {took['peak_mb']:,.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--root", help="where to make the lake, or where it was made before")
    parser.add_argument("--question", choices=QUESTIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.question:
        print(json.dumps(measure(given.root, given.question)))
    elif given.root:
        main(Root(given.root), given.rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Root(folder), given.rows)
