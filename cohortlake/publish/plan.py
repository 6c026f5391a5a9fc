"""What a publication must write anew, and which rows that takes.

A commit touches image sets, and with them the months in which their states began and ended,
their studies, series and patients. Owns how far that reaches: a study or series whose image
sets lie in several months ties these together. There are few of those, so what they hold is
looked up once. And a patient's later studies get another place (`publish.study_order`). Writing is
`publish.publisher`'s, what a table holds `publish.marts`'.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from cohortlake.publish import change_kinds, study_order
from cohortlake.publish.periods import Periods


@dataclass(frozen=True)
class Touched:
    """Which months must be written anew.

    Attributes:
        changed: Months in which a state began or ended.
        affected: These, and those that share a study or series with what changed.
        reordered: Those with a study that has another place among its patient's.
        read: The months of all periods that any of these are in.
    """

    changed: frozenset[str]
    affected: frozenset[str]
    reordered: frozenset[str]
    read: frozenset[str]

    @property
    def months(self) -> frozenset[str]:
        """All that must be written anew."""
        return self.affected | self.reordered


def find(
    con: duckdb.DuckDBPyConnection,
    periods: Periods,
    *,
    is_whole: bool,
    again: Collection[str] = (),
) -> Touched:
    """Find what the rows committed last touch.

    Args:
        con: With the views of `image_sets.register` and `image_sets.register_appended`.
        periods: What is written anew as a whole.
        is_whole: Whether to take all there is instead.
        again: Periods to write anew although nothing in them changed.

    Makes the temporary tables `touched_rows` (datastore_id, PatientID, study_hash,
    series_hash), `scattered` (rows of the view `history` that belong to a study or series
    in several months, where one of these is to be read; with both hashes) and `moved_from`
    (states whose next one lies in another month, where that one is to be read or scattered).
    """
    con.execute(_TIES)
    changed = _months(con, "SELECT study_month FROM appended WHERE study_month IS NOT NULL")
    affected, reordered = changed, frozenset[str]()
    if not is_whole:
        con.execute(_TOUCHED_ROWS.format(months=listed(changed)))
        study_order.find_moved(con)
        affected = changed | _months(con, _TIED_TO_TOUCHED)
        reordered = _months(con, _OF_MOVED)
    read = periods.months(periods.of_months(affected | reordered) | frozenset(again))
    near = _months(con, _TIED_TO_MONTHS.format(months=listed(read)))
    con.execute(_SCATTERED.format(months=listed(near)))
    con.execute(_MOVES.format(months=listed(read)))
    whence = _months(con, "FROM moves")
    con.execute(_MOVED_FROM.format(months=listed(whence)))
    return Touched(changed, affected, reordered, read)


def people(months: Collection[str], *, is_whole: bool) -> str:
    """Return SQL for whose rows are in some months, tied to them or touched.

    Args:
        months: Those that are read.
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
    change_kinds.find_changes(con)
    con.execute(_STUDY_STATES)
    change_kinds.find_study_wide(con)
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
SEMI JOIN (SELECT DISTINCT image_set_key FROM appended) USING (image_set_key)
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

# Few: the study month of an image set hardly ever changes. Rows of `scattered` come without the
# rest of their month, so each state before them is looked up.
_MOVES = """
CREATE TEMP TABLE moves AS
SELECT prior_study_month AS study_month, prior_state_key AS state_key
FROM versions WHERE study_month IN {months} AND prior_study_month <> study_month
UNION
SELECT prior_study_month, prior_state_key FROM scattered WHERE prior_state_key IS NOT NULL
"""

_MOVED_FROM = f"""
CREATE TEMP TABLE moved_from AS
SELECT {change_kinds.FORMER} FROM versions SEMI JOIN moves USING (study_month, state_key)
WHERE study_month IN {{months}}
"""

_PEOPLE = """
SELECT datastore_id, PatientID FROM versions WHERE study_month IN {months}
UNION ALL
SELECT datastore_id, PatientID FROM touched_rows
UNION ALL
SELECT datastore_id, PatientID FROM scattered
"""

_IN_MONTHS = f"""
CREATE OR REPLACE TEMP TABLE in_months AS SELECT * FROM history WHERE study_month IN {{months}};
CREATE OR REPLACE TEMP VIEW states AS
FROM in_months UNION ALL
SELECT * EXCLUDE (study_hash, series_hash) FROM scattered WHERE study_month NOT IN {{months}};
CREATE OR REPLACE TEMP VIEW former_states AS
SELECT {change_kinds.FORMER} FROM in_months UNION ALL FROM moved_from;
"""

# Studies without any change but creations, nearly all, have no cascade to look for.
_STUDY_STATES = """
CREATE OR REPLACE TEMP TABLE study_states AS
SELECT datastore_id, StudyInstanceUID, image_set_id, interval_key,
       coalesce(kind, 'created') AS kind, valid_from, valid_to
FROM states LEFT JOIN changes USING (interval_key) SEMI JOIN (
    SELECT DISTINCT datastore_id, StudyInstanceUID FROM states WHERE change <> 'created'
) USING (datastore_id, StudyInstanceUID)
"""

_BATCH = """
CREATE OR REPLACE TEMP TABLE batch AS
SELECT in_months.*, changed_fields, coalesce(kind, 'created') AS kind,
       interval_key IN (SELECT interval_key FROM study_wide) AS is_study_wide
FROM in_months LEFT JOIN changes USING (interval_key)
UNION ALL BY NAME
SELECT * EXCLUDE (study_hash, series_hash) FROM scattered
WHERE study_month NOT IN {months} AND ended_by IS NULL AND (
    study_hash IN (SELECT study_hash FROM scattered WHERE study_month IN {months})
    OR series_hash IN (SELECT series_hash FROM scattered WHERE study_month IN {months})
);
DROP TABLE in_months;
"""
