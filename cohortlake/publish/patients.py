"""The published table `patients`: affected patients are counted again, all others are kept.

A patient's image sets may be in any month, so this table has no partitions. A full publication
writes one file, in the order of `patient_key`. If there are many patients, it writes one for each
year of the last study, because most changes are of patients who came lately. It reads the rows of
all patients once, in the order of the index of the history. All studies of a patient are read
together, so the order of their studies is worked out here as well (`study_order`); the table
`studies` needs it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import PurePosixPath

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.history import index_sections
from cohortlake.history.history_index import HistoryIndex
from cohortlake.history.views import HistoryViews
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values, marts, study_order
from cohortlake.publish.parquet_file import Entities
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.writer import Writer
from cohortlake.storage import engine

TABLE = "patients"
_RANGE_PATIENTS = 150_000
_MOST_IN_ONE_FILE = 200_000
_ONE_FILE = "''"
"""SQL for the name of its period."""

_SHOWN = [
    name for name in marts.PATIENT_SOURCE if not name.endswith("UID")
]  # UIDs are only counted here


def write(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    index: HistoryIndex,
    plan: PublishPlan,
    policy: Policy,
    writer: Writer,
    shared: str,
) -> str:
    """Write the table, and work out the order of the affected patients' studies.

    Args:
        con: The connection of the plan's relations, with the macros of `keyed_hashes`.
        history: The version history.
        index: Its index, which a full publication reads.
        plan: What is published.
        policy: The privacy policy.
        writer: Writes the file.
        shared: The schema of the table that is made. See `engine.shared_schema`.

    Returns:
        The name of this table, with the order. See `study_order.of`.
    """
    order = f"{shared}.study_order"
    con.execute(f"""
        CREATE TABLE {shared}.study_order (
            person_hash UBIGINT, entity_hash UBIGINT, study_ordinal INT, days_since_previous INT
        )
    """)
    writer.create_table(con, "new_patients", TABLE)
    patients = plan.patients
    parts = _rows_of(con, plan, patients) if patients else _all_rows(con, history, index)
    for rows in parts:
        con.execute(f"INSERT INTO {order} {study_order.of(rows)}")
        con.execute(f"INSERT INTO new_patients {_published_sql(con, rows, policy, writer)}")
    if patients:
        _replace(con, patients, policy, writer)
    else:
        _write_all(con, policy, writer)
    con.execute("DROP TABLE new_patients; DROP TABLE IF EXISTS patient_part")
    return order


def _write_all(con: duckdb.DuckDBPyConnection, policy: Policy, writer: Writer) -> None:
    count = engine.count(con, "SELECT count(*) FROM new_patients")
    year = _last_year_sql(policy) if count > _MOST_IN_ONE_FILE else _ONE_FILE
    rows, years = _with_period(con, year)
    writer.write(TABLE, writer.read_periods(con, TABLE, rows), years or {""})


def _replace(con: duckdb.DuckDBPyConnection, patients: str, policy: Policy, writer: Writer) -> None:
    """Replace the rows of the affected patients. A new study may move one to another file."""
    names = (PurePosixPath(path).stem for path in writer.files if is_file(path))
    written = {name.removeprefix(TABLE).removeprefix("-") for name in names}
    year = _ONE_FILE if written == {""} else _last_year_sql(policy)
    rows, years = _with_period(con, year)
    replaced = Entities(
        con.sql(f"SELECT datastore_id, patient_key FROM {patients}").to_arrow_table()
    )
    writer.replace(TABLE, writer.read_periods(con, TABLE, rows), written | years, replaced)


def _with_period(con: duckdb.DuckDBPyConnection, year: str) -> tuple[str, set[str]]:
    """Return SQL for the new rows and the period of each, and all these periods."""
    rows = f"SELECT *, {year} AS period FROM new_patients"
    periods = con.sql(f"SELECT DISTINCT period FROM ({rows})").fetchall()
    return rows, {period for (period,) in periods}


def is_file(path: str) -> bool:
    """Return whether a path below the root is one of the table's files."""
    return path.startswith(f"published/{TABLE}/")


def _last_year_sql(policy: Policy) -> str:
    """Return SQL for the year of a patient's last study, as the policy shows it."""
    column = next(c for c in schema.published(TABLE) if c.name == "last_study_date")
    shown = policy.shown_as(column)
    if shown is None:
        return _ONE_FILE
    year = shown.name if policy.treatment(column) is Treatment.YEAR else f"year({shown.name})"
    return f"coalesce(format('{{:04}}', {year}), '{schema.UNDATED}')"


def _ranges_of_keys(rows: int, most: int) -> Iterator[str]:
    """Yield conditions on patient_key, in order, that cut rows into ranges.

    Args:
        rows: The number of rows.
        most: About how many rows a range may have. Keys are hashes, so that they spread evenly.
    """
    count = max(1, math.ceil(rows / most))
    starts = [f"{number * 16**8 // count:08x}" for number in range(1, count)]
    for first, end in itertools.pairwise(["", *starts, "g"]):
        yield f"patient_key >= '{first}' AND patient_key < '{end}'"


def _all_rows(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, index: HistoryIndex
) -> Iterator[str]:
    """Load the current rows of all patients, some patients at a time.

    Yields:
        The name of a temporary table: the columns of `marts.PATIENT_SOURCE`, patient_key and
        shift_days.
    """
    con.execute(f"""
        CREATE TEMP TABLE ended AS
        SELECT interval_key FROM {history.ends} WHERE ended_by IS NOT NULL
    """)
    for batch in index.in_order(index_sections.PATIENTS):
        con.register("index_rows", pa.Table.from_batches([batch]))
        con.execute("""
            CREATE OR REPLACE TEMP TABLE current_of_patients AS
            FROM index_rows ANTI JOIN ended USING (interval_key)
        """)
        con.unregister("index_rows")
        keyed = derived_values.keyed_patients(con, "current_of_patients", "patients_of_part")
        yield _load(con, "current_of_patients", f"FROM {keyed}")
    con.execute("DROP TABLE IF EXISTS current_of_patients; DROP TABLE IF EXISTS patients_of_part")
    con.execute("DROP TABLE ended")


def _rows_of(con: duckdb.DuckDBPyConnection, plan: PublishPlan, patients: str) -> Iterator[str]:
    """Load the current rows of the affected patients, as `_all_rows` does."""
    count = engine.count(con, f"SELECT count(*) FROM {patients}")
    for keys in _ranges_of_keys(count, _RANGE_PATIENTS):
        yield _load(con, plan.patient_rows, f"FROM {patients} WHERE {keys}")


def _load(con: duckdb.DuckDBPyConnection, rows: str, patients: str) -> str:
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE patient_part AS
        SELECT {", ".join(marts.PATIENT_SOURCE)}, patient_key, shift_days
        FROM {rows} JOIN ({patients}) USING (datastore_id, PatientID)
    """)
    return "patient_part"


def _published_sql(
    con: duckdb.DuckDBPyConnection, rows: str, policy: Policy, writer: Writer
) -> str:
    """Return SQL for the published rows of the patients whose current rows are given."""
    con.register("patient_sexes", derived_values.sexes(con, rows))
    derived = f"""
        SELECT {rows}.*, sex, {derived_values.status("sex")}
        FROM {rows} LEFT JOIN patient_sexes ON {derived_values.same("sex")}
    """
    safe = rows_sql(derived, _SHOWN, policy)
    con.execute(f"CREATE OR REPLACE TEMP VIEW safe_patient_rows AS {safe}")
    # The key as a number: there are millions of patients, and text takes five times the memory.
    affected = marts.patients("safe_patient_rows", "patient_key::UUID")
    return f"SELECT {writer.selected(TABLE)} FROM ({affected})"
