"""The time line of each image set, worked out from everything ever seen of it.

An observation says: this state existed when that search began. An absence says: at that
instant there was no such image set. From the set of both, whatever the order in which
they came, follows one time line per image set:

- absences cut it into lives; within a life a state counts once, from when it was first seen;
- states follow one another by (version, updated_at), across lives by life;
- a state ends when any later one of its life begins, the last of a life by the absence.

The last holds on both clocks alike. So `observed_from <= T < observed_to` picks the state that
a lake knew which had only the observations made up to T, and `valid_from <= T < valid_to` the
one that was true at T, each time one at the most. A state that came to light late, when a later
one had been seen already, was never known to be true: its `observed_to` is not after its
`observed_from`.

Because the time line is a function of a set, applying increments twice, in another order,
or all at once gives the same. The memory is appended to, so a time line that a late
increment changes is brought up to date by closing what no longer stands as `restated`.

Pure SQL over four relations; reading and writing the memory is `history.image_sets`'.
"""

from __future__ import annotations

import duckdb

from cohortlake import schema

STUDY_MONTH_SQL = f"coalesce(strftime(StudyDate, '%Y-%m'), '{schema.UNDATED}')"

# An observation's life is the number of absences before it. Absences are few.
_LIVES = """
CREATE TEMP TABLE lives AS
SELECT o.datastore_id, o.image_set_id, o.state_key, o.life,
       min(o.observed_at) AS observed_from,
       arg_min(o.run_id, (o.observed_at, o.run_id)) AS run_id
FROM (
    SELECT s.*, (
        SELECT count(*) FROM absences a
        WHERE a.datastore_id = s.datastore_id AND a.image_set_id = s.image_set_id
          AND a.observed_at <= s.observed_at
    ) AS life
    FROM observations s
) o
GROUP BY ALL
"""

_ORDER = "version NULLS FIRST, updated_at NULLS FIRST, observed_from, state_key"

IMAGE_SET_KEY = "(md5_number_lower(concat_ws('|', datastore_id, image_set_id)) >> 1)::BIGINT"
"""SQL for the key of an image set."""

INTERVAL_KEY = """
(md5_number_lower(concat_ws('|', state_key, epoch_us(observed_from), change, epoch_us(valid_from),
    coalesce(prior_state_key::VARCHAR, '-'))) >> 1)::BIGINT
"""
"""SQL for the key of an interval: all that a version row says hangs on these."""

# After an absence nothing is true again before it was seen again, whenever it was changed.
_INTERVALS = f"""
CREATE TEMP TABLE intervals AS
WITH stated AS (
    SELECT l.*, s.version, s.updated_at, s.study_month,
           coalesce(s.updated_at, l.observed_from) AS stated_from,
           min(l.life) OVER (PARTITION BY l.datastore_id, l.image_set_id) AS first_life,
           min(l.observed_from) OVER (
               PARTITION BY l.datastore_id, l.image_set_id, l.life
           ) AS life_seen_from
    FROM lives l JOIN states s USING (state_key)
), begun AS (
    SELECT * EXCLUDE (stated_from, first_life, life_seen_from),
           CASE WHEN life = first_life THEN stated_from
                ELSE greatest(stated_from, life_seen_from) END AS valid_from
    FROM stated
), ordered AS (
    SELECT *,
           lag(state_key) OVER whole AS prior_state_key,
           lag(study_month) OVER whole AS prior_study_month,
           lag(version) OVER whole AS prior_version,
           lag(life) OVER whole AS prior_life,
           min(valid_from) OVER later AS superseded_at,
           min(observed_from) OVER later AS superseded_observed_at
    FROM begun
    WINDOW whole AS (PARTITION BY datastore_id, image_set_id ORDER BY life, {_ORDER}),
           later AS (
               PARTITION BY datastore_id, image_set_id, life ORDER BY {_ORDER}
               ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
           )
), ends AS (
    SELECT datastore_id, image_set_id, observed_at AS absent_at, last_seen_at,
           row_number() OVER (
               PARTITION BY datastore_id, image_set_id ORDER BY observed_at
           ) - 1 AS life
    FROM absences
), told AS (
    SELECT o.*, CASE WHEN superseded_at IS NULL THEN last_seen_at END AS last_seen_at,
           CASE WHEN prior_state_key IS NULL THEN 'created'
                WHEN prior_life <> life THEN 'reappeared' ELSE 'updated' END AS change,
           greatest(coalesce(version - coalesce(prior_version, 0) - 1, 0), 0) AS versions_unseen,
           least(superseded_at, absent_at) AS valid_to,
           least(superseded_observed_at, absent_at) AS observed_to,
           CASE WHEN superseded_at IS NOT NULL THEN 'superseded'
                WHEN absent_at IS NOT NULL THEN 'deleted' END AS ended_by
    FROM ordered o LEFT JOIN ends USING (datastore_id, image_set_id, life)
)
SELECT *, {INTERVAL_KEY} AS interval_key FROM told
"""


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Work the time lines out.

    Args:
        con: Holds the relations
            `observations` (datastore_id, image_set_id, state_key, observed_at, run_id),
            `absences` (datastore_id, image_set_id, observed_at, last_seen_at; the first three
            are distinct) and
            `states` (state_key, version, updated_at, study_month, ...; one row a state).

    Makes the temporary table `intervals`: one row per state and life, with its key, when
    it was valid and observed, how it began and how it ended.
    """
    con.execute(_LIVES)
    con.execute(_INTERVALS)
