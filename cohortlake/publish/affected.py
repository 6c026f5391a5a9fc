"""What a commit affects: the studies whose published rows it changes, and their patients.

A publication replaces all rows of an affected study. Affected are the studies of the image sets
that changed, those whose position among their patient's studies changed, and those that share a
series with one of these. They may lie in any month, so the index of the version history finds them
by their hashes (`history.history_index`). If two studies share a hash, both are replaced.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import duckdb

from cohortlake.history import index_sections
from cohortlake.history.history_index import HistoryIndex
from cohortlake.history.views import (
    HistoryViews,
    current_sql,
    ends_of_sql,
    history_sql,
)
from cohortlake.publish import study_order
from cohortlake.storage import engine

_FEW_STUDIES = 20_000


class Reason(StrEnum):
    """Why a study is affected. Their order is that of the alphabet: the first that fits counts."""

    CHANGED = "changed"
    """One of its image sets changed, or one that shares a series with it."""
    REORDERED = "reordered"
    """Its position among its patient's studies changed."""
    REWRITTEN = "rewritten"
    """It lies in a month that is written again."""


@dataclass(frozen=True)
class Affected:
    """What a commit affects, as names of temporary relations.

    Attributes:
        changed: The versions of the image sets that changed, in the months in which they changed:
            study_month, study_hash, patient_hash.
        studies: The affected studies: study_hash and reason, one of `Reason`.
        rows: All states of these studies, with the columns of `HistoryViews.history`.
        patients: The patients of all these rows, now and before: datastore_id, PatientID.
        patient_rows: The current rows of these patients, with the columns of
            `marts.PATIENT_SOURCE`.
    """

    changed: str
    studies: str
    rows: str
    patients: str
    patient_rows: str


def find(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    index: HistoryIndex,
    appended: str,
    rewrite: Collection[str] = (),
) -> Affected:
    """Find what a commit affects.

    Args:
        con: The connection of the views.
        history: The version history.
        index: Its index.
        appended: The rows committed since the last publication.
        rewrite: Months of which all studies are published again.
    """
    changed = _find_changed(con, history, appended)
    of_changed = f"SELECT patient_hash FROM {changed}"
    versions = index.read(con, history, index_sections.PATIENTS, of_changed, "patient_versions")
    reordered = study_order.find_reordered(con, history, appended, versions)
    studies = _find_studies(con, history, changed, reordered, rewrite)
    rows = _read_rows(con, history, index, studies)
    # A study may have image sets of patients of whom nothing changed.
    others = f"SELECT patient_hash FROM {rows} ANTI JOIN {changed} USING (patient_hash)"
    index.read(con, history, index_sections.PATIENTS, others, "other_versions")
    ends = ends_of_sql(history.end_events, versions)
    con.execute(f"""
        INSERT INTO {versions} FROM other_versions;
        DROP TABLE other_versions;
        CREATE TEMP TABLE affected_patients AS
            SELECT DISTINCT datastore_id, PatientID FROM {versions};
        CREATE TEMP VIEW affected_patient_rows AS {current_sql(versions, f"({ends})")};
    """)
    return Affected(changed, studies, rows, "affected_patients", "affected_patient_rows")


def _find_changed(con: duckdb.DuckDBPyConnection, history: HistoryViews, appended: str) -> str:
    months = select_months(con, f"FROM {appended} WHERE study_month IS NOT NULL")
    con.execute(f"""
        CREATE TEMP TABLE changed AS
        SELECT DISTINCT study_month, study_hash, patient_hash FROM {history.versions}
        SEMI JOIN (SELECT DISTINCT image_set_key FROM {appended}) USING (image_set_key)
        WHERE study_month IN {engine.text_list(months)}
    """)
    return "changed"


def _find_studies(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    changed: str,
    reordered: str,
    rewrite: Collection[str],
) -> str:
    """Find the affected studies, without those that share a series with one of them."""
    con.execute(f"""
        CREATE TEMP TABLE affected_studies AS
        SELECT study_hash, min(reason) AS reason FROM (
            SELECT study_hash, '{Reason.CHANGED}' AS reason FROM {changed}
            UNION ALL
            SELECT study_hash, '{Reason.REORDERED}' FROM {reordered}
            UNION ALL
            SELECT study_hash, '{Reason.REWRITTEN}' FROM {history.versions}
            WHERE study_month IN {engine.text_list(rewrite)}
        ) GROUP BY study_hash
    """)
    return "affected_studies"


def _read_rows(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, index: HistoryIndex, studies: str
) -> str:
    """Read all states of the affected studies.

    If there are many studies, each batch reads its own rows from the version history: in a table
    they would take more memory than there is.

    Args:
        con: The connection of the views.
        history: The version history.
        index: Its index.
        studies: The affected studies. Those that share a series with one of them are added.

    Returns:
        The name of a temporary table or view with the columns of `HistoryViews.history`.
    """
    months = _add_linked_studies(con, history, index, studies)
    in_months = f"study_month IN {engine.text_list(months)}"
    if engine.count(con, f"SELECT count(*) FROM {studies}") > _FEW_STUDIES:
        con.execute(f"""
            CREATE TEMP VIEW affected_rows AS
            FROM {history.history} SEMI JOIN {studies} USING (study_hash) WHERE {in_months}
        """)
        return "affected_rows"
    con.execute(f"""
        CREATE TEMP TABLE affected_versions AS
        FROM {history.versions} SEMI JOIN {studies} USING (study_hash) WHERE {in_months}
    """)
    ends = ends_of_sql(f"(FROM {history.end_events} WHERE {in_months})", "affected_versions")
    con.execute(f"""
        CREATE TEMP TABLE affected_rows AS {history_sql("affected_versions", f"({ends})")};
        DROP TABLE affected_versions;
    """)
    return "affected_rows"


def _add_linked_studies(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, index: HistoryIndex, studies: str
) -> frozenset[str]:
    """Add the studies that share a series with one of some studies.

    Returns:
        The months of all these studies.
    """
    con.execute("""
        CREATE TEMP TABLE study_rows (study_hash BIGINT, study_month VARCHAR, series_hash BIGINT);
        CREATE TEMP TABLE series_rows (series_hash BIGINT, study_hash BIGINT);
    """)
    is_complete = False
    while not is_complete:
        new_studies = f"SELECT study_hash FROM {studies} ANTI JOIN study_rows USING (study_hash)"
        index.read(con, history, index_sections.STUDIES, new_studies, "found")
        con.execute("INSERT INTO study_rows FROM found")
        new_series = "SELECT series_hash FROM found ANTI JOIN series_rows USING (series_hash)"
        index.read(con, history, index_sections.SERIES, new_series, "found")
        con.execute(f"""
            INSERT INTO series_rows FROM found;
            CREATE OR REPLACE TEMP TABLE linked_studies AS
            SELECT study_hash, min(reason) AS reason FROM series_rows JOIN (
                SELECT series_hash, min(reason) AS reason
                FROM study_rows JOIN {studies} USING (study_hash) GROUP BY series_hash
            ) USING (series_hash) GROUP BY study_hash
        """)
        is_complete = not engine.count(
            con, f"SELECT count(*) FROM (FROM linked_studies EXCEPT FROM {studies})"
        )
        con.execute(f"""
            INSERT INTO {studies} FROM linked_studies;
            CREATE OR REPLACE TEMP TABLE {studies} AS
                SELECT study_hash, min(reason) AS reason FROM {studies} GROUP BY study_hash;
        """)
    months = select_months(con, "FROM study_rows")
    con.execute("DROP TABLE study_rows; DROP TABLE series_rows; DROP TABLE linked_studies")
    return months


def select_months(con: duckdb.DuckDBPyConnection, rows: str) -> frozenset[str]:
    """Return the study months of some rows.

    Args:
        con: The connection of the rows.
        rows: SQL for the rows, from the word FROM on.
    """
    found = con.sql(f"SELECT DISTINCT study_month {rows}").fetchall()
    return frozenset(str(month) for (month,) in found)
