"""The rows of some months, ready to publish: with keyed hashes, derived values and changes.

The policy is applied here: what leaves this module holds no value that the policy hides. See
`marts` for the tables that are made of these rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from cohortlake.history import change_kinds
from cohortlake.privacy import Policy
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values
from cohortlake.publish.marts import STUDY
from cohortlake.publish.plan import PublishPlan
from cohortlake.storage import engine


@dataclass(frozen=True)
class PublishedRows:
    """The rows of some months, as SQL for relations.

    Attributes:
        states: All states, as the table `history` has them: the name of a table.
        current: The states that are true now.
        studies: The studies that they belong to, as they are published: datastore_id,
            StudyInstanceUID.
    """

    states: str
    current: str
    studies: str


def load(
    con: duckdb.DuckDBPyConnection,
    plan: PublishPlan,
    months: Collection[str],
    policy: Policy,
    shared: str,
) -> PublishedRows:
    """Load the rows of some months, and those of their studies and series in other months.

    Of the other months only current rows are loaded: the tables `series` and `studies` need them.

    Args:
        con: The connection of the plan's relations, with the macros of `keyed_hashes`.
        plan: What is published.
        months: Some months of the plan.
        policy: The privacy policy.
        shared: The schema of the table that is made. See `engine.shared_schema`.
    """
    batch = _with_changes(con, plan, months)
    columns = con.table(batch).columns
    name = f'"rows_of_{min(months, default="")}"'  # each month is loaded once
    keyed = keyed_sql(batch, _make_lookups(con, batch, plan.patients))
    con.execute(f"""
        CREATE TABLE {shared}.{name} AS {rows_sql(keyed, columns, policy)};
        DROP TABLE {batch};
    """)
    states = f"{shared}.{name}"
    return PublishedRows(
        states,
        f"(FROM {states} WHERE ended_by IS NULL)",
        f"(SELECT DISTINCT datastore_id, StudyInstanceUID FROM {states})",
    )


@dataclass(frozen=True)
class Lookups:
    """What rows are joined with, as names of relations.

    Attributes:
        patients: The keyed hash and the shift of each patient.
        accessions: The keyed hash of each accession number.
        sexes: What each PatientSex means.
        modalities: What each Modality means.
        body_parts: What each BodyPartExamined means.
    """

    patients: str
    accessions: str
    sexes: str
    modalities: str
    body_parts: str


def _make_lookups(con: duckdb.DuckDBPyConnection, rows: str, patients: str | None) -> Lookups:
    patients = patients or derived_values.keyed_patients(con, rows, "row_patients")
    tables = {
        "row_accessions": derived_values.keyed_accessions(con, rows),
        "row_sexes": derived_values.sexes(con, rows),
        "row_modalities": derived_values.modalities(con, rows),
        "row_body_parts": derived_values.body_parts(con, rows),
    }
    for name, table in tables.items():
        con.register(name, table)
    return Lookups(patients, *tables)


def keyed_sql(rows: str, lookups: Lookups) -> str:
    """Return SQL that adds the keyed hashes, the shift and the derived values to rows.

    The dates of rows without a patient are shifted by study, so that each study stays together.
    An image set is primary if the service does not say whether it is, as before June 2025.

    Args:
        rows: The rows: the name of a relation.
        lookups: What they are joined with.
    """
    return f"""
        SELECT r.* EXCLUDE (years) REPLACE (coalesce(is_primary, true) AS is_primary),
               {derived_values.AGE},
               sex, {derived_values.status("sex")}, {derived_values.status("modality")},
               body_part, {derived_values.status("body_part")},
               patients.patient_key, accessions.accession_key, hash({STUDY}) AS entity_hash,
               coalesce(patients.shift_days,
                        shift_days(datastore_id, coalesce(StudyInstanceUID, image_set_id))
               ) AS shift_days
        FROM (SELECT *, {derived_values.YEARS} FROM {rows}) r
        LEFT JOIN {lookups.patients} patients USING (datastore_id, PatientID)
        LEFT JOIN {lookups.accessions} accessions USING (datastore_id, AccessionNumber)
        LEFT JOIN {lookups.sexes} ON {derived_values.same("sex")}
        LEFT JOIN {lookups.modalities} ON {derived_values.same("modality")}
        LEFT JOIN {lookups.body_parts} ON {derived_values.same("body_part")}
    """


def _with_changes(
    con: duckdb.DuckDBPyConnection,
    plan: PublishPlan,
    months: Collection[str],
) -> str:
    """Load rows, and say of each state of the months what changed in it.

    Studies in which images sets were only created, nearly all, have no study-wide change.
    """
    listed = engine.text_list(months)
    multi_month = plan.multi_month_rows
    # The rows of a few changes are a table already.
    table_or_view = "TABLE" if plan.is_full else "VIEW"
    con.execute(f"""
        CREATE OR REPLACE TEMP {table_or_view} in_months AS
            SELECT * FROM {plan.rows} WHERE study_month IN {listed};
        CREATE OR REPLACE TEMP VIEW states AS
            FROM in_months UNION ALL
            FROM {multi_month} WHERE study_month NOT IN {listed};
        CREATE OR REPLACE TEMP VIEW former_states AS
            SELECT {change_kinds.FORMER} FROM in_months
            UNION ALL FROM {plan.previous_states};
    """)
    changes = change_kinds.find_changes(con, "states", "former_states")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE study_states AS
        SELECT datastore_id, StudyInstanceUID, image_set_id, interval_key,
               coalesce(kind, 'created') AS kind, valid_from, valid_to
        FROM states LEFT JOIN {changes} USING (interval_key) SEMI JOIN (
            SELECT DISTINCT datastore_id, StudyInstanceUID FROM states WHERE change <> 'created'
        ) USING (datastore_id, StudyInstanceUID)
    """)
    study_wide = change_kinds.find_study_wide(con, "study_states")
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE batch AS
        SELECT in_months.*, changed_fields, coalesce(kind, 'created') AS kind,
               interval_key IN (SELECT interval_key FROM {study_wide}) AS is_study_wide
        FROM in_months LEFT JOIN {changes} USING (interval_key)
        UNION ALL BY NAME
        SELECT * FROM {multi_month}
        WHERE study_month NOT IN {listed} AND ended_by IS NULL AND (
            study_hash IN (SELECT study_hash FROM {multi_month} WHERE study_month IN {listed})
            OR series_hash IN (SELECT series_hash FROM {multi_month} WHERE study_month IN {listed})
        );
        DROP {table_or_view} in_months CASCADE;
    """)
    return "batch"
