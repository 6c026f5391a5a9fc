"""The order of each patient's studies: the position of each, and the days since the one before.

A study that is found late changes the positions of all later studies of its patient. Their months
are published again, whatever else is in them.
"""

from __future__ import annotations

import duckdb

from cohortlake.history.views import HistoryViews, current_sql, ends_sql
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
        One row per patient and study: person_hash, entity_hash, study_ordinal from 1, and
        days_since_previous, null for the first. Hashes, because there are millions of rows. A
        study with image sets of several patients has a position for each of them.
    """
    return f"""
        SELECT hash(patient_key) AS person_hash, hash({STUDY}) AS entity_hash,
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
    appended: str,
    versions: str,
) -> str:
    """Find the studies whose position the appended rows change.

    Compares each patient's study order before and after the appended rows.

    Args:
        con: The connection of the views.
        history: The version history.
        appended: The rows committed since the last publication: a relation.
        versions: All versions of the affected patients: a relation with `COLUMNS`, PatientID and
            study_hash.

    Returns:
        The name of a temporary table: study_hash of these studies.
    """
    ends = f"({ends_sql('ends_of_versions')})"
    former_ends = f"({ends_sql('former_ends_of_versions')})"
    con.execute(f"""
        CREATE TEMP TABLE ends_of_versions AS
            FROM {history.end_events} SEMI JOIN {versions} USING (interval_key);
        CREATE TEMP VIEW former_ends_of_versions AS
            FROM ends_of_versions
            ANTI JOIN (FROM {appended} WHERE row_kind = 'closure') USING (interval_key, revision);
        CREATE TEMP VIEW ordered_versions AS
            SELECT *, concat_ws('|', datastore_id, PatientID) AS patient_key FROM {versions};
        CREATE TEMP TABLE current_after AS {current_sql("ordered_versions", ends)};
        CREATE TEMP TABLE current_before AS
            SELECT * FROM ({current_sql("ordered_versions", former_ends)})
            ANTI JOIN (FROM {appended} WHERE row_kind = 'version') USING (interval_key);
        CREATE TEMP TABLE reordered AS
            SELECT DISTINCT study_hash FROM current_after
            WHERE hash({STUDY}) IN (
                SELECT entity_hash FROM (({of("current_after")}) EXCEPT ({of("current_before")}))
            );
        DROP VIEW ordered_versions;
        DROP TABLE current_after;
        DROP TABLE current_before;
        DROP VIEW former_ends_of_versions;
        DROP TABLE ends_of_versions;
    """)
    return "reordered"
