"""What a publication must write anew, and which rows that takes.

A commit touches image sets, and with them the months in which their states began and ended,
their studies, series and patients. Owns how far that reaches: a study or series whose image
sets lie in several months ties these together. There are few of those, so what they hold is
looked up once. And a patient's later studies get another place (`lake.visits`). Writing is
`lake.publish`'s, what a table holds `lake.marts`'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import duckdb

from cohortlake.lake import kinds, visits

_BATCH_ROWS = 400_000


@dataclass(frozen=True)
class Touched:
    """Which months must be written anew.

    Attributes:
        changed: Months in which a state began or ended.
        affected: These, and those that share a study or series with what changed.
        reordered: Those with a study that has another place among its patient's.
    """

    changed: frozenset[str]
    affected: frozenset[str]
    reordered: frozenset[str]

    @property
    def months(self) -> frozenset[str]:
        """All of them."""
        return self.affected | self.reordered


def find(con: duckdb.DuckDBPyConnection, *, is_whole: bool) -> Touched:
    """Find what the rows committed last touch.

    Args:
        con: With the views of `image_sets.register` and `image_sets.register_appended`.
        is_whole: Whether to take all there is instead.

    Makes the temporary tables `touched_rows` (datastore_id, PatientID, study_hash,
    series_hash) and `scattered` (rows of the view `history` that belong to a study or series
    in several months, where one of these is written anew; with both hashes).
    """
    con.execute(_TIES)
    changed = _months(con, "SELECT study_month FROM appended WHERE study_month IS NOT NULL")
    what = Touched(changed, changed, frozenset())
    if not is_whole:
        con.execute(_TOUCHED_ROWS.format(months=listed(changed)))
        visits.find_moved(con)
        affected = changed | _months(con, _TIED_TO_TOUCHED)
        what = Touched(changed, affected, _months(con, _OF_MOVED))
    near = _months(con, _TIED_TO_MONTHS.format(months=listed(what.months)))
    con.execute(_SCATTERED.format(months=listed(near)))
    return what


def batches(con: duckdb.DuckDBPyConnection, months: Collection[str]) -> Iterator[frozenset[str]]:
    """Cut months, in order, into batches that fit into memory."""
    batch: set[str] = set()
    size = 0
    for month, rows in con.sql(_SIZES.format(months=listed(months))).fetchall():
        if batch and size + rows > _BATCH_ROWS:
            yield frozenset(batch)
            batch, size = set(), 0
        batch.add(month)
        size += rows
    if batch:
        yield frozenset(batch)


def people(months: Collection[str], *, is_whole: bool) -> str:
    """Return SQL for whose rows are in some months, tied to them or touched.

    Args:
        months: Those that are written anew.
        is_whole: Whether these are all there are.

    Returns:
        A relation with datastore_id and PatientID, after `find`.
    """
    if is_whole:
        return "current"
    return f"({_PEOPLE.format(months=listed(months))})"


def load_batch(con: duckdb.DuckDBPyConnection, months: Collection[str]) -> None:
    """Make the temporary table `batch`: the history of some months, and what is tied to it.

    The latter are the current rows of other months whose study or series has rows in these.

    Args:
        con: After `find`.
        months: Some of those that are written anew.
    """
    con.execute(_IN_MONTHS.format(months=listed(months)))
    con.execute(_STUDY_STATES.format(months=listed(months)))
    kinds.find_study_wide(con)
    con.execute(_BATCH.format(months=listed(months)))


def _months(con: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    found = con.sql(f"SELECT DISTINCT study_month FROM ({query})").fetchall()
    return frozenset(str(month) for (month,) in found)


def listed(months: Collection[str]) -> str:
    """Return SQL for a list of months: constants, so that row groups of others are skipped."""
    return "(" + ", ".join(f"'{month}'" for month in sorted(months) or [""]) + ")"


_HASHES = """
CASE WHEN StudyInstanceUID IS NOT NULL
     THEN hash(datastore_id, StudyInstanceUID) END AS study_hash,
CASE WHEN SeriesInstanceUID IS NOT NULL
     THEN hash(datastore_id, SeriesInstanceUID) END AS series_hash
"""

# Where two UIDs have one hash, a row too many is looked at; what it is, the UID itself says.
_TIES = f"""
CREATE TEMP VIEW hashed AS
SELECT interval_key, study_month, {_HASHES} FROM versions;
CREATE TEMP TABLE ties AS
SELECT interval_key, study_month, study_hash, series_hash FROM hashed
WHERE study_hash IN (
    SELECT study_hash FROM hashed GROUP BY study_hash HAVING min(study_month) < max(study_month)
) OR series_hash IN (
    SELECT series_hash FROM hashed GROUP BY series_hash HAVING min(study_month) < max(study_month)
);
"""

_TOUCHED_ROWS = f"""
CREATE TEMP TABLE touched_rows AS
SELECT DISTINCT datastore_id, PatientID, {_HASHES} FROM versions
SEMI JOIN (SELECT DISTINCT datastore_id, image_set_id FROM appended)
    USING (datastore_id, image_set_id)
WHERE study_month IN {{months}}
"""

_TIED_TO_TOUCHED = """
SELECT study_month FROM ties
WHERE study_hash IN (SELECT study_hash FROM touched_rows)
   OR series_hash IN (SELECT series_hash FROM touched_rows)
"""

_OF_MOVED = """
SELECT study_month FROM moved
UNION ALL
SELECT study_month FROM ties WHERE study_hash IN (SELECT study_hash FROM moved)
"""

_TIED_TO_MONTHS = """
SELECT study_month FROM ties
WHERE study_hash IN (SELECT study_hash FROM ties WHERE study_month IN {months})
   OR series_hash IN (SELECT series_hash FROM ties WHERE study_month IN {months})
"""

_SCATTERED = """
CREATE TEMP TABLE scattered AS
SELECT history.*, study_hash, series_hash
FROM history JOIN (SELECT interval_key, study_hash, series_hash FROM ties) USING (interval_key)
WHERE study_month IN {months}
"""

_SIZES = """
SELECT study_month, count(*) FROM versions WHERE study_month IN {months} GROUP BY ALL ORDER BY ALL
"""

_PEOPLE = """
SELECT datastore_id, PatientID FROM versions WHERE study_month IN {months}
UNION ALL
SELECT datastore_id, PatientID FROM touched_rows
UNION ALL
SELECT datastore_id, PatientID FROM scattered
"""

_IN_MONTHS = """
CREATE OR REPLACE TEMP TABLE in_months AS SELECT * FROM history WHERE study_month IN {months}
"""

_STATE = "datastore_id, StudyInstanceUID, image_set_id, interval_key, kind, valid_from, valid_to"

# Studies without any change but creations, nearly all, have no cascade to look for.
_STUDY_STATES = f"""
CREATE OR REPLACE TEMP TABLE study_states AS
WITH states AS (
    SELECT {_STATE} FROM in_months
    UNION ALL
    SELECT {_STATE} FROM scattered WHERE study_month NOT IN {{months}}
)
FROM states SEMI JOIN (
    SELECT DISTINCT datastore_id, StudyInstanceUID FROM states WHERE kind <> 'created'
) USING (datastore_id, StudyInstanceUID)
"""

_BATCH = """
CREATE OR REPLACE TEMP TABLE batch AS
SELECT *, interval_key IN (SELECT interval_key FROM study_wide) AS is_study_wide FROM in_months
UNION ALL
SELECT * EXCLUDE (study_hash, series_hash), false
FROM scattered
WHERE study_month NOT IN {months} AND ended_by IS NULL AND (
    study_hash IN (SELECT study_hash FROM scattered WHERE study_month IN {months})
    OR series_hash IN (SELECT series_hash FROM scattered WHERE study_month IN {months})
);
DROP TABLE in_months;
"""
