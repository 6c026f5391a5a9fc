"""The published table `patients`: affected patients are counted again, all others are kept.

A patient's image sets may be in any month, so this table has no partitions. It is one file in the
order of `patient_key`, written one range of keys at a time. The rows of a range fit into memory,
however many patients there are. All studies of these patients are in it, so the order of their
studies is worked out here as well (`study_order`); the table `studies` needs it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cohortlake.history.views import HistoryViews
from cohortlake.privacy import Policy
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values, marts, study_order
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.writer import Writer

TABLE = "patients"
_RANGE_PATIENTS = 150_000
_FIRST, _END = "", "g"  # before and after all keys, which are hex digits

_COLUMNS = (
    *("interval_key", "datastore_id", "image_set_id", "version", "updated_at", "is_primary"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientSex_raw"),
    *("StudyDate", "StudyTime"),
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
)
"""All that `marts.patients` and `study_order.of` read of the version history."""

_SHOWN = [name for name in _COLUMNS if not name.endswith("UID")]  # UIDs are only counted here


@dataclass(frozen=True)
class _KeyRange:
    """Affected patients whose keys lie in [first, end)."""

    first: str
    end: str
    patients: pa.Table


def write(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    plan: PublishPlan,
    policy: Policy,
    writer: Writer,
) -> str:
    """Write the table.

    Args:
        con: The connection of the history's views.
        history: The version history.
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
            patient_hash UBIGINT, study_hash UBIGINT, study_ordinal INT, days_since_previous INT
        )
    """)
    kept = None if plan.is_full else writer.register_whole(con, TABLE)
    # The writer runs each query before it asks for the next one.
    queries = (
        _load_range(con, history, policy, writer, each, kept, order)
        for each in _key_ranges(plan.patients)
    )
    writer.write_whole(con, TABLE, queries)
    con.execute("DROP TABLE patient_rows")
    return order


def _key_ranges(patients: pa.Table) -> Iterator[_KeyRange]:
    patients = patients.sort_by("patient_key")
    starts = range(0, max(1, len(patients)), _RANGE_PATIENTS)
    bounds = [_FIRST, *(patients["patient_key"][start].as_py() for start in starts[1:]), _END]
    for start, (first, end) in zip(starts, itertools.pairwise(bounds), strict=True):
        yield _KeyRange(first, end, patients[start : start + _RANGE_PATIENTS])


def _load_range(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    policy: Policy,
    writer: Writer,
    own: _KeyRange,
    kept: str | None,
    order: str,
) -> str:
    """Load the current rows of some patients, and add the order of their studies.

    Returns:
        SQL for the rows of `patients` whose keys are in the range.
    """
    con.register("affected_patients", own.patients)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE patient_rows AS
        SELECT {", ".join(_COLUMNS)}, patient_key, shift_days
        FROM {history.current} JOIN affected_patients USING (datastore_id, PatientID);
        INSERT INTO {order} {study_order.of("patient_rows")};
    """)
    con.register("patient_sexes", derived_values.sexes(con, "patient_rows"))
    derived = f"""
        SELECT patient_rows.*, sex, {derived_values.status("sex")}
        FROM patient_rows LEFT JOIN patient_sexes ON {derived_values.same("sex")}
    """
    safe = rows_sql(derived, _SHOWN, policy)
    con.execute(f"CREATE OR REPLACE TEMP VIEW safe_patient_rows AS {safe}")
    # The key as a number: there are millions of patients, and text takes five times the memory.
    affected = marts.patients("safe_patient_rows", "patient_key::UUID")
    query = f"SELECT {writer.selected(TABLE)} FROM ({affected})"
    if kept is None:
        return query
    return f"""
        {query}
        UNION ALL BY NAME
        SELECT * FROM {kept} ANTI JOIN affected_patients USING (patient_key)
        WHERE patient_key >= '{own.first}' AND patient_key < '{own.end}'
    """
