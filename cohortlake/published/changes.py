"""What changed between two instants, field by field, from the published history.

There are two clocks. On the service's clock a state is current from `valid_from` to `valid_to`, on
ours from `observed_from` to `observed_to`. The states of an image set follow one another without a
gap until it is deleted. So the states that begin or end between two instants are exactly the
difference between the table at the first instant and the table at the second.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import Enum

import pyarrow as pa

from cohortlake import schema
from cohortlake.storage import engine
from cohortlake.storage.root import Root


class Clock(Enum):
    """The clock of an instant: the service's (valid) or ours (observed)."""

    VALID = "valid"
    OBSERVED = "observed"


# Columns that differ in every state, describe the change, or give the meaning of another column.
_NO_FIELDS = {
    *("datastore_id", "image_set_id", "version", "created_at", "updated_at", "study_month"),
    *("valid_from", "valid_to", "last_seen_at", "observed_from", "observed_to", "change", "kind"),
    *("is_study_wide", "changed_fields", "versions_unseen", "ended_by"),
    *schema.VOLATILE,
    schema.WITHHELD_FIELDS.name,
    *(column.name for column in schema.MEANINGS),
    *(part.name for part in schema.NAME_PARTS),
}
FIELDS = tuple(c.name for c in schema.PUBLISHED["history"] if c.name not in _NO_FIELDS)
"""The columns whose changes are listed, if the policy shows them."""


def between(
    root: Root,
    files: Collection[str],
    shown: pa.Schema,
    clock: Clock,
    since: datetime,
    until: datetime | None,
) -> pa.Table:
    """Return the states that began or ended after an instant, and at or before a later one.

    Args:
        root: The lake.
        files: The files of the published history.
        shown: The columns that they have.
        clock: The clock of the two instants.
        since: The instant.
        until: The later instant; None for no bound.

    Returns:
        One row per image set, change and field, with the columns of `schema.CHANGES`.
    """
    fields = [name for name in FIELDS if name in shown.names]
    query = _QUERY.format(
        clock=clock.value,
        priors=", ".join(f"lag({name}) OVER whole AS prior_{name}" for name in fields),
        differences=", ".join(_DIFFERENCE.format(name=name) for name in fields),
        since=_literal(since),
        until=_literal(until) if until else "'infinity'::TIMESTAMPTZ",
    )
    with engine.connection() as con:
        engine.register(con, "history", root, sorted(files), shown)
        return engine.batches(con, query, schema.arrow_schema(schema.CHANGES)).read_all()


def _literal(at: datetime) -> str:
    return f"'{at.isoformat()}'::TIMESTAMPTZ"


_DIFFERENCE = """
CASE WHEN {name} IS DISTINCT FROM prior_{name} THEN
    {{'field': '{name}', 'before': prior_{name}::VARCHAR, 'after': {name}::VARCHAR}} END
"""

# A state gets one row even if no shown field differs. If the state before it was never current on
# this clock, the image set was created with it.
_QUERY = """
WITH affected AS (
    SELECT *, {clock}_from AS began, {clock}_to AS ended FROM history
    WHERE ({clock}_to IS NULL OR {clock}_to > {clock}_from)
      AND ({clock}_from > {since} AND {clock}_from <= {until}
           OR {clock}_to > {since} AND {clock}_to <= {until})
), ordered AS (
    SELECT *, lag(ended) OVER whole AS prior_ended, lead(began) OVER whole AS next_began, {priors}
    FROM affected WINDOW whole AS (PARTITION BY datastore_id, image_set_id ORDER BY began)
), begun AS (
    SELECT * REPLACE (
               CASE WHEN prior_ended IS DISTINCT FROM began AND kind <> 'reappeared'
                    THEN 'created' ELSE kind END AS kind
           ),
           CASE WHEN prior_ended = began
                THEN list_filter([{differences}], lambda one: one IS NOT NULL) END AS found
    FROM ordered WHERE began > {since} AND began <= {until}
), changes AS (
    SELECT datastore_id, image_set_id, version, kind, is_study_wide, began AS changed_at,
           unnest(CASE WHEN len(found) > 0 THEN found ELSE [NULL] END) AS one
    FROM begun
    UNION ALL
    SELECT datastore_id, image_set_id, version, 'deleted', false, ended, NULL
    FROM ordered
    WHERE ended > {since} AND ended <= {until} AND next_began IS DISTINCT FROM ended
)
SELECT datastore_id, image_set_id, version, kind, is_study_wide, changed_at,
       one.field AS field, one.before AS before, one.after AS after
FROM changes ORDER BY changed_at, datastore_id, image_set_id, field
"""
