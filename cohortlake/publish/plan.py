"""What a publication writes and which rows that takes, worked out before any file is written.

A commit changes the image sets of some months, and with them their studies, series and patients.
A study or series may have image sets in several months; then all these months are affected. A
study that is found late changes the order of its patient's later studies, so their months are
affected too. See `rows` and `marts` for what is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cohortlake.history import change_kinds
from cohortlake.history.views import AppendedViews, HistoryViews
from cohortlake.privacy import Policy
from cohortlake.publish import derived_values, study_order
from cohortlake.publish.periods import Periods
from cohortlake.storage import engine


@dataclass(frozen=True)
class Batch:
    """Periods that are written together.

    Attributes:
        periods: The periods.
        months: The months whose rows may be in them.
    """

    periods: frozenset[str]
    months: frozenset[str]


@dataclass(frozen=True)
class PublishPlan:
    """What a publication writes. Every file that it does not name is kept.

    Attributes:
        is_full: Whether every file is written, and every other file is removed.
        changed_months: Months in which a state began or ended.
        affected_months: These, and months with image sets of a study or series that changed.
        reordered_months: Months of studies whose position among their patient's studies changed.
        periods: Table -> the periods whose file is written. `patients` has no periods: its file
            is always written.
        batches: All these periods, cut so that the rows of each batch fit into memory.
        patients: The affected patients: datastore_id, PatientID, patient_key, shift_days. A full
            publication affects all patients. Otherwise `patients` keeps the rows of the others.
        multi_month_rows: The name of a temporary table: the states of studies and series that
            have image sets in several months, one of them to be read; with study_hash and
            series_hash.
        previous_states: The name of a temporary table with the columns `change_kinds.FORMER`:
            the states before a change of the study month, if the state after it is read.
    """

    is_full: bool
    changed_months: frozenset[str]
    affected_months: frozenset[str]
    reordered_months: frozenset[str]
    periods: Mapping[str, frozenset[str]]
    batches: tuple[Batch, ...]
    patients: pa.Table
    multi_month_rows: str
    previous_states: str


def make_plan(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    appended: AppendedViews | None,
    policy: Policy,
    rewrite: frozenset[str] = frozenset(),
) -> PublishPlan:
    """Work out what a publication writes.

    Args:
        con: The connection of the views, with the macros of `keyed_hashes`.
        history: The version history.
        appended: The rows committed since the last publication; None to publish everything.
        policy: The privacy policy.
        rewrite: Periods to write although nothing in them changed.
    """
    periods = Periods.of(con, history, policy)
    multi_month_keys = _find_multi_month_keys(con, history)
    affected_rows = None
    if appended is None:
        changed = affected = frozenset(periods.sizes)
        reordered, rewrite = frozenset[str](), frozenset[str]()
    else:
        changed = _months(con, f"FROM {appended.rows} WHERE study_month IS NOT NULL")
        affected_rows = _find_affected_rows(con, history, appended, changed)
        studies = study_order.find_reordered(con, history, appended, affected_rows)
        affected = changed | _months(con, _rows_sharing(multi_month_keys, affected_rows))
        reordered = _months(con, _rows_of_reordered(multi_month_keys, studies))
    written = {
        "image_sets": periods.of_months(changed) | rewrite,
        "series": periods.of_months(affected) | rewrite,
        "studies": periods.of_months(affected | reordered) | rewrite,
        "history": periods.of_months(affected) | rewrite,
    }
    to_read = periods.months(written["studies"])
    multi_month_rows = _find_multi_month_rows(con, history, multi_month_keys, to_read)
    previous_states = _find_previous_states(con, history, multi_month_rows, to_read)
    if affected_rows is None:
        people = history.current
    else:
        people = f"({_affected_people(history, affected_rows, multi_month_rows, to_read)})"
    patients = derived_values.keyed_patients(con, people)
    con.execute(f"DROP TABLE {multi_month_keys}")
    batches = (Batch(own, periods.months(own)) for own in periods.batches(written["studies"]))
    return PublishPlan(
        appended is None,
        changed,
        affected,
        reordered,
        written,
        tuple(batches),
        patients,
        multi_month_rows,
        previous_states,
    )


def _months(con: duckdb.DuckDBPyConnection, rows: str) -> frozenset[str]:
    found = con.sql(f"SELECT DISTINCT study_month FROM ({rows})").fetchall()
    return frozenset(str(month) for (month,) in found)


# If two UIDs share a hash, a row too many is read. The UID itself decides what belongs together.
_HASHES = """
CASE WHEN StudyInstanceUID IS NOT NULL
     THEN hash(datastore_id, StudyInstanceUID) END AS study_hash,
CASE WHEN SeriesInstanceUID IS NOT NULL
     THEN hash(datastore_id, SeriesInstanceUID) END AS series_hash
"""


def _find_multi_month_keys(con: duckdb.DuckDBPyConnection, history: HistoryViews) -> str:
    """Find the versions of studies and series that have image sets in several months.

    Returns:
        The name of a temporary table: interval_key, study_month, study_hash, series_hash.
    """
    hashed = f"SELECT interval_key, study_month, {_HASHES} FROM {history.versions}"
    several = "HAVING min(study_month) < max(study_month)"
    con.execute(f"""
        CREATE TEMP TABLE multi_month_keys AS
        SELECT interval_key, study_month, study_hash, series_hash FROM ({hashed})
        WHERE study_hash IN (
            SELECT study_hash FROM ({hashed}) GROUP BY study_hash {several}
        ) OR series_hash IN (
            SELECT series_hash FROM ({hashed}) GROUP BY series_hash {several}
        )
    """)
    return "multi_month_keys"


def _find_affected_rows(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    appended: AppendedViews,
    changed: Collection[str],
) -> str:
    """Find all versions of the image sets that changed, in the months in which they changed.

    Returns:
        The name of a temporary table: datastore_id, PatientID, study_hash, series_hash.
    """
    con.execute(f"""
        CREATE TEMP TABLE affected_rows AS
        SELECT DISTINCT datastore_id, PatientID, {_HASHES} FROM {history.versions}
        SEMI JOIN (SELECT DISTINCT image_set_key FROM {appended.rows}) USING (image_set_key)
        WHERE study_month IN {engine.text_list(changed)}
    """)
    return "affected_rows"


def _rows_sharing(multi_month_keys: str, rows: str) -> str:
    """Return SQL for the versions that share a study or series in several months with some rows."""
    return f"""
        SELECT study_month FROM {multi_month_keys}
        WHERE study_hash IN (SELECT study_hash FROM {rows})
           OR series_hash IN (SELECT series_hash FROM {rows})
    """


def _rows_of_reordered(multi_month_keys: str, reordered: str) -> str:
    """Return SQL for the versions of reordered studies."""
    return f"""
        SELECT study_month FROM {reordered}
        UNION ALL
        SELECT study_month FROM {multi_month_keys}
        WHERE study_hash IN (SELECT study_hash FROM {reordered})
    """


def _find_multi_month_rows(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    multi_month_keys: str,
    to_read: Collection[str],
) -> str:
    """Look up the table of `PublishPlan.multi_month_rows`. There are few of these rows."""
    in_months = f"(FROM {multi_month_keys} WHERE study_month IN {engine.text_list(to_read)})"
    adjacent_months = _months(con, _rows_sharing(multi_month_keys, in_months))
    con.execute(f"""
        CREATE TEMP TABLE multi_month_rows AS
        SELECT h.*, study_hash, series_hash
        FROM {history.history} h
        JOIN (SELECT interval_key, study_hash, series_hash FROM {multi_month_keys})
            USING (interval_key)
        WHERE study_month IN {engine.text_list(adjacent_months)}
    """)
    return "multi_month_rows"


def _find_previous_states(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    multi_month_rows: str,
    to_read: Collection[str],
) -> str:
    """Look up the table of `PublishPlan.previous_states`.

    There are few, because the study month of an image set hardly ever changes. Rows of studies in
    several months are read without the rest of their month, so each state before them is in it.
    """
    con.execute(f"""
        CREATE TEMP TABLE previous_keys AS
        SELECT prior_study_month AS study_month, prior_state_key AS state_key
        FROM {history.versions}
        WHERE study_month IN {engine.text_list(to_read)} AND prior_study_month <> study_month
        UNION
        SELECT prior_study_month, prior_state_key FROM {multi_month_rows}
        WHERE prior_state_key IS NOT NULL
    """)
    previous_months = _months(con, "FROM previous_keys")
    con.execute(f"""
        CREATE TEMP TABLE previous_states AS
        SELECT {change_kinds.FORMER} FROM {history.versions}
        SEMI JOIN previous_keys USING (study_month, state_key)
        WHERE study_month IN {engine.text_list(previous_months)};
        DROP TABLE previous_keys;
    """)
    return "previous_states"


def _affected_people(
    history: HistoryViews, affected_rows: str, multi_month_rows: str, to_read: Collection[str]
) -> str:
    """Return SQL for the patients of all rows that are read or affected."""
    return f"""
        SELECT datastore_id, PatientID FROM {history.versions}
        WHERE study_month IN {engine.text_list(to_read)}
        UNION ALL
        SELECT datastore_id, PatientID FROM {affected_rows}
        UNION ALL
        SELECT datastore_id, PatientID FROM {multi_month_rows}
    """
