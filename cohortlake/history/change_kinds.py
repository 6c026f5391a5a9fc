"""What each change was: the columns that differ, the kind, and whether it was study-wide.

The kind is the first of these that fits:

1. `created`, `reappeared`: as the version history says (`history.timeline`);
2. `moved`: the study date changed, and perhaps the month in which the row is published;
3. `demographic`: the patient's id, name, birth date or sex was corrected. Another spelling of the
   same value, such as a blank after an id, is no correction;
4. `primary_flip`: the image set became the primary one of its series, or is no longer;
5. `updated`: any other tag changed;
6. `reimported`: a new version in which no tag differs, or only the counts of the study.

Neither the kind nor whether a change was study-wide is stored in the version history. The kind
needs the state before, which may be in any month. Whether a change was study-wide depends on other
image sets, which may be found later. This is pure SQL over the relations that it is given.
"""

from __future__ import annotations

import duckdb

from cohortlake import schema
from cohortlake.dicom_values import holds_value_sql

COMPARED = tuple(
    column.name
    for column in schema.STATE
    if column.name not in {*schema.VOLATILE, "datastore_id", "image_set_id", "state_key"}
    and column not in schema.NAME_PARTS
)
"""The columns that `changed_fields` may name."""

FORMER = ", ".join(["state_key", *COMPARED])
"""SQL for the columns of a state that the next one is compared with."""

STUDY_WIDE_SECONDS = 60
"""Changes of one kind belong together if at most so many seconds lie between them."""

STUDY_WIDE_LEAST = 2
"""The least number of image sets in a study-wide change. It also needs half of the study's."""


def _with_raw(*names: str) -> list[str]:
    return [name for stem in names for name in (stem, stem + schema.RAW_SUFFIX)]


_MOVED = _with_raw("StudyDate")
_DEMOGRAPHIC = _with_raw("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_QUIET = [
    *("version", "created_at", "updated_at"),
    *_with_raw("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
]

KIND = f"""
CASE WHEN change <> 'updated' THEN change
     WHEN list_has_any(changed_values, {_MOVED}) THEN 'moved'
     WHEN list_has_any(changed_values, {_DEMOGRAPHIC}) THEN 'demographic'
     WHEN list_contains(changed_fields, 'is_primary') THEN 'primary_flip'
     WHEN list_has_all({_QUIET}, changed_fields) THEN 'reimported'
     ELSE 'updated' END
"""
"""SQL for the kind of a state, over `change`, `changed_fields` and `changed_values`. The last are
the changed fields without those in which only the spelling of the value changed."""


def _compared(state: str, name: str) -> str:
    # An image set without is_primary is published as primary.
    return f"coalesce({state}.{name}, true)" if name == "is_primary" else f"{state}.{name}"


_DIFFERENCES = ", ".join(
    f"CASE WHEN {_compared('new', name)} IS DISTINCT FROM {_compared('old', name)} "
    f"THEN '{name}' END"
    for name in COMPARED
)


def _is_respelled(tag: schema.Column) -> str:
    """Return SQL for whether the value of a tag is the same as before, in another spelling."""
    unread = " OR ".join(holds_value_sql(f"{side}.{tag.raw_name}") for side in ("new", "old"))
    return (
        f"new.{tag.name} IS NOT DISTINCT FROM old.{tag.name} "
        f"AND (new.{tag.name} IS NOT NULL OR ({unread}) IS NOT TRUE)"
    )


_RESPELLED = ", ".join(
    f"CASE WHEN {_is_respelled(tag)} THEN '{tag.raw_name}' END" for tag in schema.DICOM_TAGS
)


def find_changes(con: duckdb.DuckDBPyConnection, states: str, former_states: str) -> str:
    """Compare states with the states before them.

    Args:
        con: The connection of the relations.
        states: The name of a relation with the columns of the view `history`.
        former_states: The name of a relation with the columns of `FORMER`. It holds the state
            before each state that has one.

    Returns:
        The name of a temporary table: interval_key, changed_fields, kind. A state that is not in
        it is an image set's first: its kind is `created`.
    """
    # A state may be there twice, if it came back after an absence.
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE changes AS
        WITH old AS (
            SELECT DISTINCT ON (state_key) {FORMER} FROM {former_states}
            SEMI JOIN (SELECT prior_state_key AS state_key FROM {states}) USING (state_key)
        ), compared AS (
            SELECT interval_key, change,
                   list_filter([{_DIFFERENCES}], lambda name: name IS NOT NULL) AS changed_fields,
                   list_filter(changed_fields, lambda name: NOT list_contains([{_RESPELLED}], name))
                   AS changed_values
            FROM {states} new JOIN old ON old.state_key = new.prior_state_key
        )
        SELECT interval_key, changed_fields, {KIND} AS kind FROM compared
    """)
    return "changes"


def find_study_wide(con: duckdb.DuckDBPyConnection, study_states: str) -> str:
    """Find the states that began in a study-wide change.

    Args:
        con: The connection of the relation.
        study_states: The name of a relation with all states of some studies: datastore_id,
            StudyInstanceUID, image_set_id, interval_key, kind, valid_from, valid_to.

    Returns:
        The name of a temporary table: interval_key.
    """
    # The import of a whole study is no study-wide change. The size of a study is the number of
    # image sets that were true at that instant.
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE study_wide AS
        WITH together AS (
            SELECT datastore_id, StudyInstanceUID, interval_key, valid_from,
                   count(DISTINCT image_set_id) OVER (
                       PARTITION BY datastore_id, StudyInstanceUID, kind ORDER BY valid_from
                       RANGE BETWEEN INTERVAL {STUDY_WIDE_SECONDS} SECONDS PRECEDING
                                 AND INTERVAL {STUDY_WIDE_SECONDS} SECONDS FOLLOWING
                   ) AS changed
            FROM {study_states} WHERE kind <> 'created'
        )
        SELECT t.interval_key
        FROM together t JOIN {study_states} s USING (datastore_id, StudyInstanceUID)
        WHERE t.changed >= {STUDY_WIDE_LEAST}
          AND s.valid_from <= t.valid_from AND (s.valid_to IS NULL OR s.valid_to > t.valid_from)
        GROUP BY t.interval_key, t.changed
        HAVING 2 * t.changed >= count(DISTINCT s.image_set_id)
    """)
    return "study_wide"
