"""The rows of a batch, ready to publish: with keyed hashes, derived values and changes.

The policy is applied here: what leaves this module holds no value that the policy hides. See
`marts` for the tables that are made of these rows.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import duckdb

from cohortlake.history import change_kinds
from cohortlake.privacy import Policy
from cohortlake.privacy.treatments import rows_sql
from cohortlake.publish import derived_values
from cohortlake.publish.marts import STUDY
from cohortlake.publish.periods import Batch
from cohortlake.publish.plan import PublishPlan


@dataclass(frozen=True)
class PublishedRows:
    """The rows of a batch, as SQL for relations.

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
    batch: Batch,
    policy: Policy,
    shared: str,
) -> PublishedRows:
    """Load the rows of a batch, and those of their studies and series in other batches.

    Of the other batches only current rows are loaded: the tables `series` and `studies` need them.

    Args:
        con: The connection of the plan's relations, with the macros of `keyed_hashes`.
        plan: What is published.
        batch: One of its batches.
        policy: The privacy policy.
        shared: The schema of the table that is made. See `engine.shared_schema`.
    """
    rows = _with_changes(con, plan, batch)
    columns = con.table(rows).columns
    name = f"rows_of_{uuid.uuid4().hex}"
    keyed = keyed_sql(rows, _make_lookups(con, rows, plan.patients))
    con.execute(f"""
        CREATE TABLE {shared}.{name} AS {rows_sql(keyed, columns, policy)};
        DROP TABLE {rows};
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
    batch: Batch,
) -> str:
    """Load rows, and say of each state of the batch what changed in it.

    Studies in which images sets were only created, nearly all, have no study-wide change.
    """
    linked = plan.linked_rows
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE in_batch AS
            SELECT * FROM {plan.rows} WHERE {batch.sql};
        CREATE OR REPLACE TEMP VIEW states AS
            FROM in_batch UNION ALL
            FROM {linked} WHERE NOT {batch.sql};
        CREATE OR REPLACE TEMP VIEW former_states AS
            SELECT {change_kinds.FORMER} FROM in_batch
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
        SELECT in_batch.*, changed_fields, coalesce(kind, 'created') AS kind,
               interval_key IN (SELECT interval_key FROM {study_wide}) AS is_study_wide
        FROM in_batch LEFT JOIN {changes} USING (interval_key)
        UNION ALL BY NAME
        SELECT * FROM {linked}
        WHERE NOT {batch.sql} AND ended_by IS NULL AND (
            study_hash IN (SELECT study_hash FROM {linked} WHERE {batch.sql})
            OR series_hash IN (SELECT series_hash FROM {linked} WHERE {batch.sql})
        );
        DROP TABLE in_batch CASCADE;
    """)
    return "batch"
