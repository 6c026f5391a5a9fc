"""What a change was: which columns differ, the kind of each state, and study-wide cascades.

Owns the words and what they mean. The first that fits is the kind:

1. `created`, `reappeared`: as the memory says (`history.timeline`);
2. `moved`: the study date changed, and with it perhaps the month the row is published in;
3. `demographic`: the patient's id, name, birth date or sex was corrected; not where only their
   spelling differs, such as a blank behind an id;
4. `primary_flip`: the image set became the primary one of its series, or ceased to be;
5. `updated`: any other tag changed;
6. `reimported`: a new version, but no tag differs, or only the study's counts.

A kind follows from one state and the one before it, which the memory names: to compare the two
when changes are applied would mean to read former states from wherever they lie. Whether a change
was study-wide depends on other image sets, which may come to light later. So neither is ever
stored in the memory. Pure SQL over relations.
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
"""Changes of one kind belong together if they began no further apart than this."""

STUDY_WIDE_LEAST = 2
"""The fewest image sets that make a cascade; half of the study's it must be as well."""


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
"""SQL for the kind, over `change`, `changed_fields` and `changed_values` of a state: the latter are
those of the former that are more than another spelling of the same value."""


def _compared(state: str, name: str) -> str:
    # What is published of an image set without is_primary is that it is primary.
    return f"coalesce({state}.{name}, true)" if name == "is_primary" else f"{state}.{name}"


_DIFFERENCES = ", ".join(
    f"CASE WHEN {_compared('new', name)} IS DISTINCT FROM {_compared('old', name)} "
    f"THEN '{name}' END"
    for name in COMPARED
)


def _is_respelled(tag: schema.Column) -> str:
    """Return SQL for whether what was sent of a tag means the same as before."""
    unread = " OR ".join(holds_value_sql(f"{side}.{tag.raw_name}") for side in ("new", "old"))
    return (
        f"new.{tag.name} IS NOT DISTINCT FROM old.{tag.name} "
        f"AND (new.{tag.name} IS NOT NULL OR ({unread}) IS NOT TRUE)"
    )


_RESPELLED = ", ".join(
    f"CASE WHEN {_is_respelled(tag)} THEN '{tag.raw_name}' END" for tag in schema.DICOM_TAGS
)

# A state may be there twice: it came back after an absence.
_CHANGES = f"""
CREATE OR REPLACE TEMP TABLE changes AS
WITH old AS (
    SELECT DISTINCT ON (state_key) {FORMER} FROM former_states
    SEMI JOIN (SELECT prior_state_key AS state_key FROM states) USING (state_key)
), compared AS (
    SELECT interval_key, change,
           list_filter([{_DIFFERENCES}], lambda name: name IS NOT NULL) AS changed_fields,
           list_filter(changed_fields, lambda name: NOT list_contains([{_RESPELLED}], name))
           AS changed_values
    FROM states new JOIN old ON old.state_key = new.prior_state_key
)
SELECT interval_key, changed_fields, {KIND} AS kind FROM compared
"""

# A whole study that is imported at once is no cascade. How large a study was is counted in
# what was true of it at that instant.
_STUDY_WIDE = f"""
CREATE OR REPLACE TEMP TABLE study_wide AS
WITH together AS (
    SELECT datastore_id, StudyInstanceUID, interval_key, valid_from,
           count(DISTINCT image_set_id) OVER (
               PARTITION BY datastore_id, StudyInstanceUID, kind ORDER BY valid_from
               RANGE BETWEEN INTERVAL {STUDY_WIDE_SECONDS} SECONDS PRECEDING
                         AND INTERVAL {STUDY_WIDE_SECONDS} SECONDS FOLLOWING
           ) AS changed
    FROM study_states WHERE kind <> 'created'
)
SELECT t.interval_key
FROM together t JOIN study_states s USING (datastore_id, StudyInstanceUID)
WHERE t.changed >= {STUDY_WIDE_LEAST}
  AND s.valid_from <= t.valid_from AND (s.valid_to IS NULL OR s.valid_to > t.valid_from)
GROUP BY t.interval_key, t.changed
HAVING 2 * t.changed >= count(DISTINCT s.image_set_id)
"""


def find_changes(con: duckdb.DuckDBPyConnection) -> None:
    """Compare states with the ones before them.

    Args:
        con: Holds the relations `states` (rows of the memory's view `history`) and
            `former_states` (the columns of `FORMER`; among them the states before, of those that
            have one).

    Makes the temporary table `changes` (interval_key, changed_fields, kind). A state that is not
    in it is an image set's first: its kind is `created`.
    """
    con.execute(_CHANGES)


def find_study_wide(con: duckdb.DuckDBPyConnection) -> None:
    """Find the states that began in a study-wide cascade.

    Args:
        con: Holds the relation `study_states` (datastore_id, StudyInstanceUID, image_set_id,
            interval_key, kind, valid_from, valid_to): all states of the studies in question.

    Makes the temporary table `study_wide` (interval_key).
    """
    con.execute(_STUDY_WIDE)
