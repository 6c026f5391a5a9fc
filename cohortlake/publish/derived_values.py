"""The columns that are derived from what was sent: keyed hashes, and the meaning of values.

Sex, modality, body part and age each get a column with their meaning and one with its status. The
distinct values are mapped and then joined with the rows, because there are few of them. See
`dicom_terms` for which spelling means which term.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pyarrow as pa

from cohortlake import dicom_terms
from cohortlake.dicom_terms import Term
from cohortlake.dicom_values import holds_value_sql

_HAS_STUDY_DATE, _HAS_BIRTH_DATE = map(holds_value_sql, ("StudyDate_raw", "PatientBirthDate_raw"))
_OLDEST_YEARS, _POOLED_FROM_YEARS = 120, 90

# Compared as numbers, month and day: date_sub would give those born on 29 February a birthday
# on the 28th.
YEARS = """
year(StudyDate) - year(PatientBirthDate)
- (100 * month(StudyDate) + day(StudyDate)
   < 100 * month(PatientBirthDate) + day(PatientBirthDate))::INT AS years
"""
"""SQL for the years from birth to study, below 0 for a study before birth."""

AGE = f"""
CASE WHEN years BETWEEN 0 AND {_OLDEST_YEARS}
     THEN least({_POOLED_FROM_YEARS}, years)::SMALLINT END AS age_at_study_years,
CASE WHEN years BETWEEN 0 AND {_OLDEST_YEARS} THEN '{dicom_terms.OK}'
     WHEN years IS NOT NULL THEN '{dicom_terms.IMPLAUSIBLE}'
     WHEN StudyDate IS NULL AND {_HAS_STUDY_DATE} THEN '{dicom_terms.INVALID}'
     WHEN PatientBirthDate IS NULL AND {_HAS_BIRTH_DATE} THEN '{dicom_terms.INVALID}'
     ELSE '{dicom_terms.MISSING}' END AS age_status
"""
"""SQL for the age and its status, over `YEARS`."""

AGE_BAND = f"""
CASE WHEN age_at_study_years = 0 THEN '<1'
     WHEN age_at_study_years < 10 THEN '1-9'
     WHEN age_at_study_years >= {_POOLED_FROM_YEARS} THEN '{_POOLED_FROM_YEARS}+'
     WHEN age_at_study_years IS NOT NULL
     THEN concat(age_at_study_years // 10, '0-', age_at_study_years // 10, '9') END AS age_band
"""
"""SQL for the band of ten years that an age lies in."""

CALENDAR = """
year(StudyDate)::SMALLINT AS study_year,
strftime(StudyDate, '%Y-Q') || quarter(StudyDate) AS study_quarter
"""
"""SQL for the year and the quarter of a study, over rows with StudyDate."""


# The text as it was sent is mapped, because its spelling decides the status.
_AS_SENT = {
    name: f"coalesce({column}_raw, {column})"
    for name, column in (
        ("sex", "PatientSex"),
        ("modality", "Modality"),
        ("body_part", "BodyPartExamined"),
    )
}


def keyed_patients(con: duckdb.DuckDBPyConnection, source: str, name: str) -> str:
    """Make a table of the patients of a relation, with the keyed hash and the shift of each.

    Args:
        con: A connection with the macros of `keyed_hashes`.
        source: The relation.
        name: The name of the temporary table to make: datastore_id, PatientID, patient_key,
            shift_days.

    Returns:
        The name.
    """
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE {name} AS
        SELECT *, keyed_hash('PatientID', datastore_id, PatientID) AS patient_key,
               shift_days(datastore_id, PatientID) AS shift_days
        FROM (SELECT DISTINCT datastore_id, PatientID FROM {source} WHERE PatientID IS NOT NULL)
    """)
    return name


def keyed_accessions(con: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    """Return the accession numbers of a relation, with the keyed hash of each.

    Args:
        con: A connection with the macros of `keyed_hashes`.
        source: The relation.

    Returns:
        One row per accession number: datastore_id, AccessionNumber, accession_key.
    """
    return con.sql(f"""
        SELECT *, keyed_hash('AccessionNumber', datastore_id, AccessionNumber) AS accession_key
        FROM (
            SELECT DISTINCT datastore_id, AccessionNumber FROM {source}
            WHERE AccessionNumber IS NOT NULL
        )
    """).to_arrow_table()


def sexes(con: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    """Return what each PatientSex of a relation means.

    Returns:
        One row per text as sent: sent_sex, sex, sex_status.
    """
    return _meanings(con, source, "sex", dicom_terms.sex)


def modalities(con: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    """Return what each Modality of a relation means.

    Returns:
        One row per text as sent: sent_modality, modality_status.
    """
    return _meanings(con, source, "modality", dicom_terms.modality).drop_columns("modality")


def body_parts(con: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    """Return what each BodyPartExamined of a relation means.

    Returns:
        One row per text as sent: sent_body_part, body_part, body_part_status.
    """
    return _meanings(con, source, "body_part", dicom_terms.body_part)


def _meanings(
    con: duckdb.DuckDBPyConnection,
    source: str,
    name: str,
    meaning: Callable[[str | None], Term],
) -> pa.Table:
    text = _AS_SENT[name]
    query = f"SELECT DISTINCT {text} AS sent_{name} FROM {source} WHERE {text} IS NOT NULL"
    sent = con.sql(query).to_arrow_table()
    terms = [meaning(text) for text in sent[f"sent_{name}"].to_pylist()]
    values, statuses = ([term[place] for term in terms] for place in (0, 1))
    return sent.append_column(name, pa.array(values, pa.string())).append_column(
        f"{name}_status", pa.array(statuses, pa.string())
    )


def same(name: str) -> str:
    """Return the condition that joins rows with the meanings of their values.

    Args:
        name: `sex`, `modality` or `body_part`.
    """
    return f"sent_{name} = {_AS_SENT[name]}"


def status(name: str) -> str:
    """Return SQL for the status of a value: `missing` where none was sent."""
    return f"coalesce({name}_status, '{dicom_terms.MISSING}') AS {name}_status"
