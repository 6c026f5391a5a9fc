"""Compares two sets of members of one level: who joined, who left, and whose values changed.

See `verify` for why they differ.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.freeze import digest

KEYS = {
    "patient": {"patient_key": "patient_key"},
    "study": {"datastore_id": "datastore_id", "StudyInstanceUID": "StudyInstanceUID"},
    "series": {
        "datastore_id": "datastore_id",
        "series_id": "coalesce(SeriesInstanceUID, image_set_id)",
    },
}
"""Level -> the keys of a member: name, and SQL over its row."""

_FOLDERS = tuple(column.name for column in schema.forms(schema.STUDY_MONTH))
_NOT_COMPARED = (*digest.OWN_COLUMNS, *_FOLDERS)
"""Columns that are no values of a member. The folder follows from a date that is compared."""

JOINED, LEFT, CHANGED = "joined", "left", "changed"


def differences(
    con: duckdb.DuckDBPyConnection, level: str, before: pa.Table, after: pa.Table
) -> pa.Table:
    """Return the members that differ between two sets.

    Only columns that both have are compared, so that a new column changes no member.

    Args:
        con: The connection; it gets the relations `before` and `after`.
        level: The level of the members.
        before: The one set.
        after: The other.

    Returns:
        One row each: what (joined, left or changed), the keys, patient_key and
        changed_columns.
    """
    con.register("before", before)
    con.register("after", after)
    keys = KEYS[level]
    compared = [
        name
        for name in before.column_names
        if name in after.column_names and name not in (*keys, *_NOT_COMPARED)
    ]
    # Columns of an outside table may have any name, so all of them are numbered.
    values = [f'"{name}" AS value_{number}' for number, name in enumerate(compared)]
    own = [f"{sql} AS key_{name}" for name, sql in keys.items()]
    sides = ", ".join(["true AS is_there", "patient_key AS patient", *own, *values])
    keys_sql = "".join(f"key_{name} AS {name}, " for name in keys if name != "patient_key")
    cases = ", ".join(
        f"CASE WHEN b.value_{number} IS DISTINCT FROM a.value_{number} THEN '{name}' END"
        for number, name in enumerate(compared)
    )
    query = f"""
        SELECT CASE WHEN b.is_there IS NULL THEN '{JOINED}'
                    WHEN a.is_there IS NULL THEN '{LEFT}'
                    ELSE '{CHANGED}' END AS what, {keys_sql}
               coalesce(b.patient, a.patient) AS patient_key,
               CASE WHEN what = '{CHANGED}'
                    THEN list_filter([{cases or "NULL"}], lambda name: name IS NOT NULL)
                    ELSE []::VARCHAR[] END AS changed_columns
        FROM (SELECT {sides} FROM before) b FULL JOIN (SELECT {sides} FROM after) a
        USING ({", ".join(f"key_{name}" for name in keys)})
        WHERE what <> '{CHANGED}' OR len(changed_columns) > 0
        ORDER BY ALL
    """
    try:
        return con.sql(query).to_arrow_table()
    finally:
        con.unregister("before")
        con.unregister("after")
