"""The time line of each image set, worked out from everything ever seen of it.

An observation says: this state existed when that search began. An absence says: at that
instant there was no such image set. From the set of both, whatever the order in which
they came, follows one time line per image set:

- absences cut it into lives; within a life a state counts once, from when it was first seen;
- states follow one another by (version, updated_at), across lives by life;
- a state ends when the next one of its life begins, the last of a life by the absence; what was
  known of it, when any later one was seen. A state that was first seen after a later one, for the
  index lagged, was never what was known: its observed_to is not after its observed_from.

Because the time line is a function of a set, applying increments twice, in another order,
or all at once gives the same. The memory is appended to, so a time line that a late
increment changes is brought up to date by closing what no longer stands as `restated`.

Pure SQL over four relations; reading and writing the memory is `lake.image_sets`'.
"""

from __future__ import annotations

import duckdb

from cohortlake import schema

COMPARED = tuple(
    column.name
    for column in schema.STATE
    if column.name not in {*schema.VOLATILE, "datastore_id", "image_set_id", "state_key"}
    and column not in schema.NAME_PARTS
)
"""The columns that `changed_fields` may name."""

STUDY_MONTH_SQL = f"coalesce(strftime(StudyDate, '%Y-%m'), '{schema.UNDATED}')"

# An observation's life is the number of absences before it. Absences are few.
_LIVES = """
CREATE TEMP TABLE lives AS
SELECT o.datastore_id, o.image_set_id, o.state_key, o.life,
       min(o.observed_at) AS observed_from,
       arg_min(o.run_id, o.observed_at) AS run_id
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

_INTERVALS = """
CREATE TEMP TABLE intervals AS
WITH ordered AS (
    SELECT l.*, s.version, coalesce(s.updated_at, l.observed_from) AS updated_at, s.study_month,
           lag(l.state_key) OVER whole AS prior_state_key,
           lag(l.life) OVER whole AS prior_life,
           lead(coalesce(s.updated_at, l.observed_from)) OVER same_life AS next_updated_at,
           min(l.observed_from) OVER (
               same_life ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
           ) AS next_observed_from
    FROM lives l JOIN states s USING (state_key)
    WINDOW whole AS (
        PARTITION BY l.datastore_id, l.image_set_id
        ORDER BY l.life, s.version NULLS FIRST, s.updated_at NULLS FIRST, l.observed_from,
                 l.state_key
    ), same_life AS (
        PARTITION BY l.datastore_id, l.image_set_id, l.life
        ORDER BY s.version NULLS FIRST, s.updated_at NULLS FIRST, l.observed_from, l.state_key
    )
), ends AS (
    SELECT datastore_id, image_set_id, observed_at AS absent_at,
           row_number() OVER (
               PARTITION BY datastore_id, image_set_id ORDER BY observed_at
           ) - 1 AS life
    FROM absences
)
SELECT o.datastore_id, o.image_set_id, o.state_key, o.run_id, o.prior_state_key, o.study_month,
       o.observed_from,
       CASE WHEN o.prior_state_key IS NULL THEN 'created'
            WHEN o.prior_life <> o.life THEN 'reappeared' ELSE 'updated' END AS change,
       CASE WHEN o.prior_life <> o.life THEN greatest(o.updated_at, o.observed_from)
            ELSE o.updated_at END AS valid_from,
       coalesce(o.next_updated_at, e.absent_at) AS valid_to,
       coalesce(o.next_observed_from, e.absent_at) AS observed_to,
       CASE WHEN o.next_observed_from IS NOT NULL THEN 'superseded'
            WHEN e.absent_at IS NOT NULL THEN 'deleted' END AS ended_by,
       (md5_number_lower(concat_ws('|', o.state_key, epoch_us(o.observed_from),
            coalesce(o.prior_state_key::VARCHAR, '-'))) >> 1)::BIGINT AS interval_key
FROM ordered o LEFT JOIN ends e USING (datastore_id, image_set_id, life)
"""


def build(con: duckdb.DuckDBPyConnection) -> None:
    """Work the time lines out.

    Args:
        con: Holds the relations
            `observations` (datastore_id, image_set_id, state_key, observed_at, run_id),
            `absences` (datastore_id, image_set_id, observed_at; distinct) and
            `states` (state_key, version, updated_at, study_month, ...; one row a state).

    Makes the temporary table `intervals`: one row per state and life, with its key, when
    it was valid and observed, how it began and how it ended.
    """
    con.execute(_LIVES)
    con.execute(_INTERVALS)


def changed_fields_sql(new: str, old: str) -> str:
    """Return SQL for the list of columns in which two states differ."""
    cases = ", ".join(
        f"CASE WHEN {new}.{name} IS DISTINCT FROM {old}.{name} THEN '{name}' END"
        for name in COMPARED
    )
    return f"list_filter([{cases}], lambda name: name IS NOT NULL)"
