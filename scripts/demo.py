"""Run the main job end to end: first load, a week of changes, what changed, and a comparison.

The exit code is 0 only if the published table equals the data store, row by row.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pydicom.data
from hospital import COHORTLAKE, REPOSITORY, Hospital, serving
from rich.console import Console
from rich.table import Table

import cohortlake
from cohortlake import Settings, Sync, dicom_terms, report
from cohortlake.ingest.headers.choice import HeaderChoice

warnings.filterwarnings("ignore", category=dg.BetaWarning)

DEMO = REPOSITORY / "var" / "demo"
LAKE = DEMO / "lake"
TABLES = ("image_sets", "series", "studies", "patients", "history")
WEEK = timedelta(days=7)
# Without this Dagster prints a line per event. Its UI shows all of them.
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}

console = Console(width=110, highlight=False)


def main() -> int:
    """Run the demo. Return 0 if the published table equals the data store, else 1."""
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    dicom = Path(pydicom.data.__file__).parent / "test_files"
    last_week = datetime.now(UTC) - WEEK
    options = (
        "--synthetic",
        "20000",
        "--seed",
        "1",
        "--dicom",
        dicom,
        "--now",
        f"{last_week:%FT%TZ}",
    )
    with serving(*options) as hospital:
        os.environ.update(hospital.environment(LAKE))
        console.rule("1. First load")
        console.print(
            f"A hospital of 20,000 image sets and pydicom's DICOM files at {hospital.endpoint}"
        )
        with timed("Dagster job 'backfill'"):
            run_job("backfill")
        show_counts()
        show_newest_studies()
        freeze_adults()

        console.rule("2. A week later")
        loaded = query("SELECT max(observed_from) AS at FROM {history}")["at"][0]
        lived = live(hospital, WEEK.days)
        console.print("A week of changes in the hospital: " + counted(lived))
        with timed("Dagster jobs 'tick', 'reconcile' and 'reconcile_undated'"):
            for job in ("tick", "reconcile", "reconcile_undated"):
                run_job(job)
        show_counts()
        show_changes(loaded)
        show_verification()

        console.rule("3. Proof")
        differences = compare(hospital)

        # After the proof: reading a header moves an archived image set to the frequent tier.
        console.rule("4. Whole headers of a year of chest CTs")
        fetch_headers()
    write_report()
    show_next_steps()
    return 1 if differences else 0


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long a step took."""
    began = time.monotonic()
    yield
    console.print(f"{what}: {time.monotonic() - began:.1f} s")


def run_job(name: str) -> None:
    """Run a Dagster job in this process, on the instance that the UI shows."""
    from pipelines.definitions import defs  # it reads the ids of the data stores on import

    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(name).execute_in_process(instance=instance, run_config=QUIET)
    if not result.success:
        sys.exit(f"the job {name} failed")
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            console.print(f"check {check.check_name} of {check.asset_key.to_user_string()} failed")


def fetch_headers() -> None:
    """Fetch the headers that notebook 08 selects by, and print what that costs."""
    with cohortlake.open(LAKE) as lake:
        chests = lake.sql("""
            SELECT image_set_id FROM series WHERE Modality = 'CT' AND body_part = 'CHEST'
            AND StudyDate > (SELECT max(StudyDate) FROM studies) - INTERVAL 12 MONTH
        """).to_arrow()
    ids = chests["image_set_id"].combine_chunks()
    choice = HeaderChoice(image_set_ids=ids, include_archived=True)
    sync = Sync(Settings.from_env())
    bill = sync.estimate_headers(choice)
    console.print(f"{bill.requests:,} requests, {bill.hours:.2f} hours, {bill.dollars:.2f} USD")
    with timed("Fetched and published"):
        sync.enrich(choice)


def live(hospital: Hospital, days: int) -> dict[str, int]:
    """Simulate days of changes in the hospital; return how many of each kind."""
    command = (COHORTLAKE, "emulator", "live", "--endpoint", hospital.endpoint,
               "--days", str(days), "--seed", "3")  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lived: dict[str, int] = json.loads(output)
    return {kind: n for kind, n in lived.items() if isinstance(n, int)}


def query(sql: str) -> pd.DataFrame:
    """Query the published folder in plain DuckDB."""
    for table in TABLES:
        sql = sql.replace(f"{{{table}}}", f"'{LAKE}/published/{table}/**/*.parquet'")
    return duckdb.sql(sql).to_arrow_table().to_pandas()


def show_counts() -> None:
    """Print the rows of each table."""
    table = Table("table", "rows")
    for name in TABLES:
        table.add_row(name, f"{query(f'SELECT count(*) AS n FROM {{{name}}}')['n'][0]:,}")
    console.print(table)


def show_newest_studies() -> None:
    """Print the ten newest studies."""
    newest = query(
        "SELECT StudyDate, modalities, body_parts, n_series, n_image_sets, PatientSex AS sex, "
        "age_at_study_years AS age, patient_key FROM {studies} "
        "WHERE StudyDate IS NOT NULL ORDER BY StudyDate DESC, StudyInstanceUID LIMIT 10"
    )
    table = Table(*newest.columns, title="The ten newest studies")
    for row in newest.itertuples(index=False):
        table.add_row(*(shown(value) for value in row))
    console.print(table)


def shown(value: Any) -> str:
    """Return the text of a value in a table cell."""
    if hasattr(value, "__len__") and not isinstance(value, str):
        return ", ".join(value)
    return "" if pd.isna(value) else str(value)


def show_changes(since: datetime) -> None:
    """Print the changes that the lake saw since an instant, by kind and by column."""
    kinds = query(
        "SELECT change AS kind, count(*) AS n FROM {history} "
        f"WHERE observed_from > '{since:%F %T}+00' GROUP BY change "
        "UNION ALL SELECT 'deleted', count(*) FROM {history} WHERE ended_by = 'deleted' "
        "ORDER BY kind"
    )
    console.print("The lake saw: " + counted(dict(kinds.itertuples(index=False))))
    fields = query(
        "SELECT unnest(changed_fields) AS field, count(*) AS n FROM {history} "
        "WHERE change = 'updated' GROUP BY field ORDER BY n DESC, field"
    )
    console.print("Columns that changed: " + counted(dict(fields.itertuples(index=False))))


def counted(counts: dict[str, int]) -> str:
    """Return counts as one line of text."""
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def freeze_adults() -> None:
    """Freeze a cohort after the first load. The notebook on what changed verifies it too."""
    with cohortlake.open(str(LAKE)) as lake:
        adults = lake.cohort("adults", about="Studies of adults.").where("age_at_study_years >= 18")
        frozen = adults.freeze()
    console.print(f"Frozen: the cohort {frozen.label}, {frozen.rows:,} studies of adults")


def show_verification() -> None:
    """Verify the frozen cohort and print how many members changed."""
    with cohortlake.open(str(LAKE)) as lake:
        found = lake.verify("adults")
    console.print("The frozen cohort, drawn again: " + counted(found.counts))


# A published column -> where a summary has it. The policy `limited` shows these values as sent.
COMPARED = {
    "version": ("version", None),
    "is_primary": ("isPrimary", None),
    "storage_tier": ("storageTier", None),
    "PatientSex": ("DICOMPatientSex", "DICOMTags"),
    "StudyInstanceUID": ("DICOMStudyInstanceUID", "DICOMTags"),
    "SeriesInstanceUID": ("DICOMSeriesInstanceUID", "DICOMTags"),
    "SeriesNumber": ("DICOMSeriesNumber", "DICOMTags"),
    "Modality": ("DICOMSeriesModality", "DICOMTags"),
    "BodyPartExamined": ("DICOMSeriesBodyPart", "DICOMTags"),
}
# In these columns it shows only the standard's terms, without blanks around. Other values are null.
TERMS = {
    "PatientSex": dicom_terms.SEXES,
    "Modality": dicom_terms.MODALITIES,
    "BodyPartExamined": dicom_terms.BODY_PARTS,
}
INSTANTS = {"created_at": "createdAt", "updated_at": "updatedAt"}


def compare(hospital: Hospital) -> int:
    """Compare published/image_sets with the emulator's own state; count the differences."""
    truth = dict(true_rows(hospital))
    instants = ", ".join(f"epoch_ms({c}) AS {c}" for c in INSTANTS)
    rows = duckdb.sql(
        f"SELECT image_set_id, {', '.join(COMPARED)}, {instants} "
        f"FROM '{LAKE}/published/image_sets/**/*.parquet'"
    ).fetchall()
    published = {row[0]: row[1:] for row in rows}
    twice = len(rows) - len(published)
    missing, extra = truth.keys() - published.keys(), published.keys() - truth.keys()
    differ = [key for key in truth.keys() & published.keys() if truth[key] != published[key]]
    differences = twice + len(missing) + len(extra) + len(differ)
    verdict = "equals" if not differences else "DIFFERS FROM"
    console.print(
        f"published/image_sets {verdict} the data store: {len(truth):,} image sets compared in "
        f"{len(COMPARED) + len(INSTANTS)} columns; {len(missing)} missing, {len(extra)} too many, "
        f"{twice} twice, {len(differ)} different."
    )
    return differences


def true_rows(hospital: Hospital) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the image sets of the emulator, from its own state and not by a search."""
    command = (COHORTLAKE, "emulator", "truth", "--endpoint", hospital.endpoint)
    output = subprocess.run(command, check=True, capture_output=True).stdout
    for line in output.splitlines():
        summary = json.loads(line)
        values = [
            as_published(column, (summary.get(group, {}) if group else summary).get(member))
            for column, (member, group) in COMPARED.items()
        ]
        values += [round(summary[member] * 1000) for member in INSTANTS.values()]
        yield summary["imageSetId"], tuple(values)


def as_published(column: str, sent: Any) -> Any:
    """Return a value as the policy shows it."""
    if column not in TERMS or sent is None:
        return sent
    term = sent.strip(" ").upper()
    return term if term in TERMS[column] else None


def write_report() -> None:
    """Write the report on the lake."""
    with timed("The report, var/demo/report.html"), cohortlake.open(str(LAKE)) as lake:
        report.write(lake, DEMO / "report.html")


def show_next_steps() -> None:
    """Print three commands to try next."""
    lake = LAKE.relative_to(REPOSITORY)
    sql = (
        "SELECT year(StudyDate) AS year, count(*) AS studies "
        f"FROM '{lake}/published/studies/**/*.parquet' GROUP BY year ORDER BY year"
    )
    frame = f"pandas.read_parquet('{lake}/published/studies')"
    console.print("\nThe lake stays in var/demo/lake. Try next:", style="bold")
    for line in (
        f'.venv/bin/python -c "import duckdb; print(duckdb.sql(\\"{sql}\\"))"',
        f'.venv/bin/python -c "import pandas; print({frame}.n_series.describe())"',
        "make dev  # another hospital, and Dagster's UI over its lake",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(main())
