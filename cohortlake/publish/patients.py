"""The published table `patients`: affected patients are counted again, all others are kept.

A patient's image sets may be in any month, so this table has no partitions. It is one file in the
order of `patient_key`, written one range of keys at a time. The rows of a range fit into memory,
however many patients there are. All studies of these patients are in it, so the order of their
studies is worked out here as well (`study_order`); the table `studies` needs it.
"""

from __future__ import annotations

import duckdb

from cohortlake.privacy import Policy
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values, marts, study_order
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.writer import Writer, ranges_of_keys
from cohortlake.storage import engine

TABLE = "patients"
_RANGE_PATIENTS = 150_000

_SHOWN = [
    name for name in marts.PATIENT_SOURCE if not name.endswith("UID")
]  # UIDs are only counted here


def write(
    con: duckdb.DuckDBPyConnection,
    plan: PublishPlan,
    policy: Policy,
    writer: Writer,
) -> str:
    """Write the table.

    Args:
        con: The connection of the plan's relations.
        plan: What is published.
        policy: The privacy policy.
        writer: Writes the file.

    Returns:
        The name of a temporary table: the order of the affected patients' studies. See
        `study_order.of`.
    """
    order = "study_order"
    con.execute(f"""
        CREATE TEMP TABLE {order} (
            person_hash UBIGINT, entity_hash UBIGINT, study_ordinal INT, days_since_previous INT
        )
    """)
    count = engine.count(con, f"SELECT count(*) FROM {plan.patients}")
    # Each range is read when the query before it has been run.
    queries = (
        _load_range(con, plan, policy, writer, each, order)
        for each in ranges_of_keys(count, _RANGE_PATIENTS)
    )
    if plan.is_full:
        writer.write_whole(con, TABLE, queries)
    else:
        for number, query in enumerate(queries):
            into = "INSERT INTO new_patients" if number else "CREATE TEMP TABLE new_patients AS"
            con.execute(f"{into} {query}")
        writer.replace_whole(con, TABLE, "new_patients", plan.patients)
    con.execute("DROP TABLE range_rows; DROP TABLE patients_of_range")
    return order


def _load_range(
    con: duckdb.DuckDBPyConnection,
    plan: PublishPlan,
    policy: Policy,
    writer: Writer,
    keys: str,
    order: str,
) -> str:
    """Load the current rows of some patients, and add the order of their studies.

    Returns:
        SQL for the rows of `patients` whose keys are in the range.
    """
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE patients_of_range AS FROM {plan.patients} WHERE {keys};
        CREATE OR REPLACE TEMP TABLE range_rows AS
        SELECT {", ".join(marts.PATIENT_SOURCE)}, patient_key, shift_days
        FROM {plan.patient_rows} JOIN patients_of_range USING (datastore_id, PatientID);
        INSERT INTO {order} {study_order.of("range_rows")};
    """)
    con.register("patient_sexes", derived_values.sexes(con, "range_rows"))
    derived = f"""
        SELECT range_rows.*, sex, {derived_values.status("sex")}
        FROM range_rows LEFT JOIN patient_sexes ON {derived_values.same("sex")}
    """
    safe = rows_sql(derived, _SHOWN, policy)
    con.execute(f"CREATE OR REPLACE TEMP VIEW safe_patient_rows AS {safe}")
    # The key as a number: there are millions of patients, and text takes five times the memory.
    affected = marts.patients("safe_patient_rows", "patient_key::UUID")
    return f"SELECT {writer.selected(TABLE)} FROM ({affected})"
