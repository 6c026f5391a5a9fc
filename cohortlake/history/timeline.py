"""The time line of each image set: its presence intervals, from everything ever seen of it.

An observation says that a state existed when a search began. An absence says that there was no
such image set at an instant. Both together give one time line for each image set, whatever the
order in which they came:

- absences cut the time line into presences; within a presence a state counts once, from the
  instant at which it was first seen;
- within a presence, states follow one another by (version, updated_at);
- a state ends when any later state of its presence begins; the last one ends at the absence.

The last rule holds on both clocks. So `observed_from <= T < observed_to` gives the state that a
lake with only the observations up to T would show, and `valid_from <= T < valid_to` gives the
state that was true at T. Each gives at most one state. A state that is found after a later one
was never shown as current: its `observed_to` is not after its `observed_from`.

The time line depends on the set of observations and absences only. So it makes no difference
whether increments are applied twice, in another order, or all at once. The version history is
only appended to: where a late increment changes a time line, the intervals that no longer hold
get the end event `restated`.

This is pure SQL over the relations that it is given. `new_rows` compares the result with the
version history.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb


def _hash_of(*columns: str) -> str:
    return f"(md5_number_lower(concat_ws('|', {', '.join(columns)})) >> 1)::BIGINT"


IMAGE_SET_KEY = _hash_of("datastore_id", "image_set_id")
"""SQL for the key of an image set."""

ENTITY_HASHES = f"""
{_hash_of("datastore_id", "coalesce(StudyInstanceUID, '')")} AS study_hash,
CASE WHEN SeriesInstanceUID IS NOT NULL
     THEN {_hash_of("datastore_id", "SeriesInstanceUID")} END AS series_hash,
CASE WHEN PatientID IS NOT NULL
     THEN {_hash_of("datastore_id", "PatientID")} END AS patient_hash
"""
"""SQL for the hashes of the study, the series and the patient of a version row."""

INTERVAL_KEY = """
(md5_number_lower(concat_ws('|', state_key, epoch_us(observed_from), change, epoch_us(valid_from),
    coalesce(prior_state_key::VARCHAR, '-'))) >> 1)::BIGINT
"""
"""SQL for the key of an interval: everything in a version row follows from these columns."""

_ORDER = "version NULLS FIRST, updated_at NULLS FIRST, observed_from, state_key"


@dataclass(frozen=True)
class Observed:
    """What was ever seen of some image sets, as names of relations.

    Attributes:
        observations: datastore_id, image_set_id, state_key, observed_at, run_id.
        absences: datastore_id, image_set_id, observed_at, last_seen_at. The first three are
            distinct.
        states: state_key, version, updated_at, study_month. One row per state.
    """

    observations: str
    absences: str
    states: str


def build(con: duckdb.DuckDBPyConnection, observed: Observed) -> str:
    """Work out the time lines.

    Args:
        con: The connection of the relations.
        observed: What was seen.

    Returns:
        The name of a temporary table with one row per state and presence: its key, when it was
        valid and observed, how it began and how it ended.
    """
    con.execute(f"CREATE TEMP TABLE presences AS {_presences(observed)}")
    con.execute(f"CREATE TEMP TABLE intervals AS {_intervals('presences', observed)}")
    return "intervals"


def _presences(observed: Observed) -> str:
    """Return SQL for the states of each presence.

    The presence of an observation is the number of absences before it. Absences are few.
    """
    return f"""
        SELECT o.datastore_id, o.image_set_id, o.state_key, o.presence,
               min(o.observed_at) AS observed_from,
               arg_min(o.run_id, (o.observed_at, o.run_id)) AS run_id
        FROM (
            SELECT s.*, (
                SELECT count(*) FROM {observed.absences} a
                WHERE a.datastore_id = s.datastore_id AND a.image_set_id = s.image_set_id
                  AND a.observed_at <= s.observed_at
            ) AS presence
            FROM {observed.observations} s
        ) o
        GROUP BY ALL
    """


def _intervals(presences: str, observed: Observed) -> str:
    """Return SQL for the intervals, from the states of each presence.

    After an absence nothing is true before it was seen again, whenever it was changed.
    """
    return f"""
        WITH stated AS (
            SELECT p.*, s.version, s.updated_at, s.study_month,
                   coalesce(s.updated_at, p.observed_from) AS stated_from,
                   min(p.presence) OVER (
                       PARTITION BY p.datastore_id, p.image_set_id
                   ) AS first_presence,
                   min(p.observed_from) OVER (
                       PARTITION BY p.datastore_id, p.image_set_id, p.presence
                   ) AS presence_seen_from
            FROM {presences} p JOIN {observed.states} s USING (state_key)
        ), begun AS (
            SELECT * EXCLUDE (stated_from, first_presence, presence_seen_from),
                   CASE WHEN presence = first_presence THEN stated_from
                        ELSE greatest(stated_from, presence_seen_from) END AS valid_from
            FROM stated
        ), ordered AS (
            SELECT *,
                   lag(state_key) OVER whole AS prior_state_key,
                   lag(study_month) OVER whole AS prior_study_month,
                   lag(version) OVER whole AS prior_version,
                   lag(presence) OVER whole AS prior_presence,
                   min(valid_from) OVER later AS superseded_at,
                   min(observed_from) OVER later AS superseded_observed_at
            FROM begun
            WINDOW whole AS (PARTITION BY datastore_id, image_set_id ORDER BY presence, {_ORDER}),
                   later AS (
                       PARTITION BY datastore_id, image_set_id, presence ORDER BY {_ORDER}
                       ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
                   )
        ), ends AS (
            SELECT datastore_id, image_set_id, observed_at AS absent_at, last_seen_at,
                   row_number() OVER (
                       PARTITION BY datastore_id, image_set_id ORDER BY observed_at
                   ) - 1 AS presence
            FROM {observed.absences}
        ), ended AS (
            SELECT o.*, CASE WHEN superseded_at IS NULL THEN last_seen_at END AS last_seen_at,
                   CASE WHEN prior_state_key IS NULL THEN 'created'
                        WHEN prior_presence <> presence THEN 'reappeared'
                        ELSE 'updated' END AS change,
                   greatest(coalesce(version - coalesce(prior_version, 0) - 1, 0), 0)
                   AS versions_unseen,
                   least(superseded_at, absent_at) AS valid_to,
                   least(superseded_observed_at, absent_at) AS observed_to,
                   CASE WHEN superseded_at IS NOT NULL THEN 'superseded'
                        WHEN absent_at IS NOT NULL THEN 'deleted' END AS ended_by
            FROM ordered o LEFT JOIN ends USING (datastore_id, image_set_id, presence)
        )
        SELECT *, {INTERVAL_KEY} AS interval_key FROM ended
    """
