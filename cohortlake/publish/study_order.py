"""The order of each patient's studies: the position of each, and the days since the one before.

A study that is found late changes the positions of all later studies of its patient. Their months
are published again, whatever else is in them.
"""

from __future__ import annotations

import duckdb

from cohortlake.history.views import AppendedViews, HistoryViews
from cohortlake.publish.marts import REPRESENTATIVE_ORDER, STUDY

COLUMNS = (
    "interval_key, datastore_id, image_set_id, version, updated_at, is_primary, StudyDate, "
    "StudyTime, StudyInstanceUID"
)
"""All that `of` reads, besides patient_key."""


def of(current: str) -> str:
    """Return SQL for the dated studies of each patient, in order.

    Args:
        current: A relation with `COLUMNS` and patient_key: all current rows of some patients.

    Returns:
        One row per patient and study: patient_hash, study_hash, study_ordinal from 1, and
        days_since_previous, null for the first. Hashes, because there are millions of rows. A
        study with image sets of several patients has a position for each of them.
    """
    return f"""
        SELECT hash(patient_key) AS patient_hash, hash({STUDY}) AS study_hash,
               row_number() OVER of_patient AS study_ordinal,
               StudyDate - lag(StudyDate) OVER of_patient AS days_since_previous
        FROM {current} JOIN (
            SELECT arg_max(interval_key, {REPRESENTATIVE_ORDER}) AS interval_key
            FROM {current} WHERE patient_key IS NOT NULL GROUP BY patient_key, {STUDY}
        ) representatives USING (interval_key)
        WHERE StudyDate IS NOT NULL
        WINDOW of_patient AS (
            PARTITION BY patient_key
            ORDER BY StudyDate, StudyTime NULLS LAST, coalesce(StudyInstanceUID, image_set_id)
        )
    """


def find_reordered(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    appended: AppendedViews,
    affected_rows: str,
) -> str:
    """Find the studies whose position the appended rows change.

    Compares each affected patient's study order before and after the appended rows.

    Args:
        con: The connection of the views.
        history: The version history.
        appended: The rows committed since the last publication.
        affected_rows: A relation with the datastore_id and PatientID of the affected patients.

    Returns:
        The name of a temporary table: study_month and study_hash of the current rows of these
        studies.
    """
    con.execute(f"""
        CREATE TEMP TABLE affected_versions AS
            SELECT {COLUMNS}, study_month, concat_ws('|', datastore_id, PatientID) AS patient_key
            FROM {history.versions} SEMI JOIN (FROM {affected_rows} WHERE PatientID IS NOT NULL)
                USING (datastore_id, PatientID);
        CREATE TEMP VIEW current_after AS
            FROM affected_versions
            ANTI JOIN (FROM {history.ends} WHERE ended_by IS NOT NULL) USING (interval_key);
        CREATE TEMP VIEW current_before AS
            FROM affected_versions
            ANTI JOIN (FROM {appended.former_ends} WHERE ended_by IS NOT NULL) USING (interval_key)
            ANTI JOIN (FROM {appended.rows} WHERE row_kind = 'version') USING (interval_key);
        CREATE TEMP TABLE reordered AS
            SELECT DISTINCT study_month, hash({STUDY}) AS study_hash FROM current_after
            WHERE hash({STUDY}) IN (
                SELECT study_hash FROM (({of("current_after")}) EXCEPT ({of("current_before")}))
            );
        DROP TABLE affected_versions CASCADE;
    """)
    return "reordered"
