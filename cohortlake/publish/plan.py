"""What a publication writes and which rows that takes, worked out before any file is written.

A full publication writes everything. Otherwise the rows of the affected studies are replaced in
the files that may hold them, and all other rows are kept. See `affected` for these studies, and
`rows` and `marts` for what is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import duckdb

from cohortlake.history import change_kinds
from cohortlake.history.history_index import HistoryIndex
from cohortlake.history.views import HistoryViews
from cohortlake.privacy import Policy
from cohortlake.publish import affected as affected_rows
from cohortlake.publish import derived_values
from cohortlake.publish.affected import Reason, select_months
from cohortlake.publish.periods import Batch, Periods
from cohortlake.storage import engine

_TABLES = ("image_sets", "series", "studies", "history")
"""The tables that are cut into periods."""
_PATIENTS = "keyed_patients"

# DuckDB's memory holds two batches: one is written while the next one is loaded. See `publisher`.
_BATCH_ROWS = 120_000
_BATCH_ROWS_OF_CHANGES = 60_000


@dataclass(frozen=True)
class PublishPlan:
    """What a publication writes. Every file that it does not name is kept.

    Attributes:
        is_full: Whether every file is written, and every other file is removed.
        rows: The states to publish: a relation with the columns of `HistoryViews.history`. If the
            publication is not full, these are all states of the affected studies.
        periods: Table -> the periods whose file is written. `patients` has no periods: its file
            is always written.
        rewrite: The periods of which no row is kept. Of the others, the rows of studies that are
            not in `rows` are kept.
        batches: The rows of all these periods, cut so that those of a batch fit into memory.
        patients: The name of a temporary table: datastore_id, PatientID, patient_key and
            shift_days of the affected patients. `patients` keeps the rows of the others. None if
            all patients are affected, in a full publication.
        patient_rows: The current rows of these patients: a relation with the columns of
            `marts.PATIENT_SOURCE`.
        linked_rows: The name of a temporary table: those of `rows` whose study has rows in several
            months, or whose series has rows in several studies. A study or series of theirs may
            have rows in several batches.
        previous_states: The name of a temporary table with the columns `change_kinds.FORMER`:
            the states before those of `rows`, if they are not read with them.
    """

    is_full: bool
    rows: str
    periods: Mapping[str, frozenset[str]]
    rewrite: frozenset[str]
    batches: tuple[Batch, ...]
    patients: str | None
    patient_rows: str
    linked_rows: str
    previous_states: str


def make_plan(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    index: HistoryIndex,
    appended: str | None,
    policy: Policy,
    rewrite: frozenset[str] = frozenset(),
) -> PublishPlan:
    """Work out what a publication writes.

    Args:
        con: The connection of the views, with the macros of `keyed_hashes`.
        history: The version history.
        index: Its index; not read to publish everything.
        appended: The rows committed since the last publication; None to publish everything.
        policy: The privacy policy.
        rewrite: Periods to write from the version history alone.
    """
    if appended is None:
        return _plan_everything(con, history, policy)
    return _plan_changes(con, history, index, appended, policy, rewrite)


def _plan_everything(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, policy: Policy
) -> PublishPlan:
    periods = Periods.of(con, history.versions, policy)
    every = periods.of_months(periods.sizes)
    linked_rows = _find_linked_rows(con, history.versions, history.history)
    to_find = [_moved(history.versions), _of_another_study(history.versions), linked_rows]
    return PublishPlan(
        is_full=True,
        rows=history.history,
        periods=dict.fromkeys(_TABLES, every),
        rewrite=every,
        batches=tuple(periods.batches(every, _BATCH_ROWS)),
        patients=None,
        patient_rows=history.current,
        linked_rows=linked_rows,
        previous_states=_find_previous_states(con, history, to_find),
    )


def _plan_changes(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    index: HistoryIndex,
    appended: str,
    policy: Policy,
    rewrite: frozenset[str],
) -> PublishPlan:
    rewritten_months = Periods.of(con, history.versions, policy).months(rewrite) if rewrite else ()
    affected = affected_rows.find(con, history, index, appended, rewritten_months)
    periods = Periods.of(con, affected.rows, policy)

    def periods_of(rows: str) -> frozenset[str]:
        return periods.of_months(select_months(con, rows)) | rewrite

    studies = f"FROM {affected.rows} JOIN {affected.studies} USING (study_hash)"
    changed = periods_of(f"FROM {affected.changed}")
    of_changed = periods_of(f"{studies} WHERE reason = '{Reason.CHANGED}'")
    of_reordered = periods_of(f"{studies} WHERE reason = '{Reason.REORDERED}'")
    linked_rows = _find_linked_rows(con, affected.rows, affected.rows)
    to_find = [
        *(_moved(affected.rows), _of_another_study(affected.rows)),
        *(_without_previous(affected.rows), linked_rows),
    ]
    return PublishPlan(
        is_full=False,
        rows=affected.rows,
        periods={
            "image_sets": changed,
            "series": of_changed,
            "studies": of_changed | of_reordered,
            "history": of_changed,
        },
        rewrite=rewrite,
        batches=tuple(periods.batches(of_changed | of_reordered, _BATCH_ROWS_OF_CHANGES)),
        patients=derived_values.keyed_patients(con, affected.patients, _PATIENTS),
        patient_rows=affected.patient_rows,
        linked_rows=linked_rows,
        previous_states=_find_previous_states(con, history, to_find),
    )


def _find_linked_rows(con: duckdb.DuckDBPyConnection, versions: str, rows: str) -> str:
    """Look up the table of `PublishPlan.linked_rows`. There are few of these rows.

    Args:
        con: The connection of the relations.
        versions: The versions to look for: a relation.
        rows: Their states: a relation.
    """
    con.execute(f"""
        CREATE TEMP TABLE linked_keys AS
        SELECT interval_key, study_month FROM {versions}
        WHERE study_hash IN (
            SELECT study_hash FROM {versions}
            GROUP BY study_hash HAVING min(study_month) < max(study_month)
        ) OR series_hash IN (
            SELECT series_hash FROM {versions}
            GROUP BY series_hash HAVING min(study_hash) < max(study_hash)
        )
    """)
    months = engine.text_list(select_months(con, "FROM linked_keys"))
    con.execute(f"""
        CREATE TEMP TABLE linked_rows AS
        SELECT * FROM {rows} SEMI JOIN linked_keys USING (interval_key)
        WHERE study_month IN {months};
        DROP TABLE linked_keys;
    """)
    return "linked_rows"


def _moved(rows: str) -> str:
    """Return SQL for the rows whose state before is in another month. There are few."""
    return f"(FROM {rows} WHERE prior_study_month <> study_month)"


def _of_another_study(rows: str) -> str:
    """Return SQL for the rows whose state before was of another study. There are few.

    The state before may lie in another batch of the same month.
    """
    return f"""
        (SELECT own.prior_study_month, own.prior_state_key FROM {rows} own
         JOIN {rows} previous ON previous.state_key = own.prior_state_key
         WHERE own.prior_state_key IS NOT NULL AND previous.study_hash <> own.study_hash)
    """


def _without_previous(rows: str) -> str:
    """Return SQL for the rows whose state before is not among them. There are few."""
    return f"""
        (SELECT own.* FROM {rows} own
         ANTI JOIN {rows} previous ON previous.state_key = own.prior_state_key)
    """


def _find_previous_states(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, rows: Collection[str]
) -> str:
    """Look up the table of `PublishPlan.previous_states`.

    Args:
        con: The connection of the relations.
        history: The version history.
        rows: Relations. The states before their rows are looked up.
    """
    prior = (f"SELECT prior_study_month, prior_state_key FROM {each}" for each in rows)
    con.execute(f"""
        CREATE TEMP TABLE previous_keys AS
        SELECT DISTINCT prior_study_month AS study_month, prior_state_key AS state_key
        FROM ({" UNION ALL ".join(prior)}) WHERE prior_state_key IS NOT NULL
    """)
    months = engine.text_list(select_months(con, "FROM previous_keys"))
    con.execute(f"""
        CREATE TEMP TABLE previous_states AS
        SELECT {change_kinds.FORMER} FROM {history.versions}
        SEMI JOIN previous_keys USING (study_month, state_key) WHERE study_month IN {months};
        DROP TABLE previous_keys;
    """)
    return "previous_states"
