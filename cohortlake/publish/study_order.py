"""Which of a patient's studies each one is, and how long after the one before.

Owns the order of a patient's studies, and which of them a commit gives another place: one that
comes late moves all later ones, in whatever months these are published. What else a study's
row says is `publish.marts`', which months are written `publish.plan`'s.
"""

from __future__ import annotations

import duckdb

from cohortlake.publish.marts import SPEAKER, STUDY

COLUMNS = (
    "interval_key, datastore_id, image_set_id, version, updated_at, is_primary, StudyDate, "
    "StudyTime, StudyInstanceUID"
)
"""All that `of` reads, besides patient_key."""


def of(relation: str) -> str:
    """Return SQL for the dated studies of each patient, in order.

    Args:
        relation: Current rows, with `COLUMNS` and patient_key: all those of some patients.

    Returns:
        One row per patient and study: patient_hash, study_hash, study_ordinal from 1, and
        days_since_previous, null for the first. By hashes, for there are millions of them; where
        image sets of several patients are in one study, it has a place among each one's.
    """
    return f"""
        SELECT hash(patient_key) AS patient_hash, hash({STUDY}) AS study_hash,
               row_number() OVER of_patient AS study_ordinal,
               StudyDate - lag(StudyDate) OVER of_patient AS days_since_previous
        FROM {relation} JOIN (
            SELECT arg_max(interval_key, {SPEAKER}) AS interval_key
            FROM {relation} WHERE patient_key IS NOT NULL GROUP BY patient_key, {STUDY}
        ) spoken USING (interval_key)
        WHERE StudyDate IS NOT NULL
        WINDOW of_patient AS (
            PARTITION BY patient_key
            ORDER BY StudyDate, StudyTime NULLS LAST, coalesce(StudyInstanceUID, image_set_id)
        )
    """


def find_moved(con: duckdb.DuckDBPyConnection) -> None:
    """Find the studies to which the rows committed last give another place.

    Args:
        con: With the views of `image_sets.register` and `image_sets.register_appended`, and with
            `touched_rows` (datastore_id, PatientID).

    Makes the temporary table `moved` (study_month, study_hash): where the current rows of such
    studies are.
    """
    con.execute(_MOVED)


# Who is touched had other studies before, or has now: both are worked out, and compared.
_MOVED = f"""
CREATE TEMP TABLE of_touched AS
SELECT {COLUMNS}, study_month, concat_ws('|', datastore_id, PatientID) AS patient_key
FROM versions SEMI JOIN (FROM touched_rows WHERE PatientID IS NOT NULL)
    USING (datastore_id, PatientID);
CREATE TEMP VIEW standing AS
FROM of_touched ANTI JOIN (FROM ends WHERE ended_by IS NOT NULL) USING (interval_key);
CREATE TEMP VIEW stood AS
FROM of_touched
ANTI JOIN (FROM former_ends WHERE ended_by IS NOT NULL) USING (interval_key)
ANTI JOIN (FROM appended WHERE row_kind = 'version') USING (interval_key);
CREATE TEMP TABLE moved AS
SELECT DISTINCT study_month, hash({STUDY}) AS study_hash FROM standing
WHERE hash({STUDY}) IN (
    SELECT study_hash FROM (({of("standing")}) EXCEPT ({of("stood")}))
);
DROP TABLE of_touched CASCADE;
"""
