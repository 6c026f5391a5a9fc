"""What each published table holds, as SQL over the current rows of a batch.

Each query gives all columns of `schema.PUBLISHED` for its table. The policy decides which of them
are shown when the table is written. See `rows` for how the current rows are made, and `publisher`
for which table is written when.
"""

from __future__ import annotations

from collections.abc import Collection

from cohortlake import dicom_terms
from cohortlake.dicom_values import SEPARATOR
from cohortlake.publish import derived_values

# A row without the UID of its level is an entity of its own: no row is dropped, and no rows are
# joined that may not belong together.
STUDY = "datastore_id, coalesce(StudyInstanceUID, image_set_id)"
_SERIES = "datastore_id, coalesce(SeriesInstanceUID, image_set_id)"

# On disagreement, use the primary image set, then the latest.
REPRESENTATIVE_ORDER = (
    "(coalesce(is_primary, true), coalesce(version, 0), "
    "coalesce(updated_at, to_timestamp(0)), image_set_id)"
)
"""SQL by which the greatest row represents all rows of a study, a series or a patient."""

_LISTS = {"modalities": "Modality", "body_parts_examined": "BodyPartExamined"}
"""Column that lists the values of several rows -> the column whose values it lists."""

_STUDY_COLUMNS = (
    "datastore_id",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "patient_key",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "sex",
    "sex_status",
    "age_at_study_years",
    "age_status",
)

_SERIES_COLUMNS = (
    *_STUDY_COLUMNS,
    "SeriesInstanceUID",
    "Modality",
    "modality_status",
    "BodyPartExamined",
    "body_part",
    "body_part_status",
    "SeriesNumber",
    "image_set_id",
    "is_primary",
)

_PATIENT_COLUMNS = (
    "datastore_id",
    "patient_key",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "sex",
    "sex_status",
)

PATIENT_SOURCE = (
    *("interval_key", "datastore_id", "image_set_id", "version", "updated_at", "is_primary"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientSex_raw"),
    *("StudyDate", "StudyTime"),
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
)
"""All columns of the version history that `patients` and `study_order.of` need."""

_WHEN = "min(created_at) AS first_created_at, max(updated_at) AS last_updated_at"


def series(current: str, *more: str) -> str:
    """Return SQL for the table `series`.

    Args:
        current: The current rows: the name of a relation.
        *more: More columns of the representative row to give.
    """
    counts = f"count(*) AS n_image_sets, {_WHEN}"
    return f"""
        SELECT *, n_image_sets > 1 AS has_duplicates, {derived_values.AGE_BAND},
               {derived_values.CALENDAR}
        FROM ({_mart(current, _SERIES, (*_SERIES_COLUMNS, *more), counts)})
    """


def studies(current: str, study_order: str, *more: str) -> str:
    """Return SQL for the table `studies`.

    A study without a date or without a known patient has no position among a patient's studies.

    Args:
        current: The current rows: the name of a relation.
        study_order: The positions of the studies: the name of a relation. See `study_order.of`.
        *more: More columns of the representative row to give.
    """
    counts = f"""
        {_distinct("Modality")} AS modalities,
        {_distinct("body_part")} AS body_parts,
        {_distinct("BodyPartExamined")} AS body_parts_examined,
        count(DISTINCT patient_key) AS n_patients,
        count(DISTINCT coalesce(SeriesInstanceUID, image_set_id)) AS n_series,
        count(*) AS n_image_sets,
        {_WHEN}
    """
    columns = (
        *_STUDY_COLUMNS,
        "entity_hash",
        "accession_key",
        "AccessionNumber",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        *more,
    )
    lists = ("modalities", "body_parts_examined")
    return f"""
        SELECT s.*, study_ordinal, days_since_previous, {derived_values.AGE_BAND},
               {derived_values.CALENDAR}, {_as_text(*lists, "body_parts")}
        FROM ({_mart(current, STUDY, columns, counts, lists)}) s
        LEFT JOIN {study_order} positions
        ON person_hash = hash(patient_key) AND positions.entity_hash = s.entity_hash
    """


def patients(current: str, key: str = "patient_key") -> str:
    """Return SQL for the table `patients`.

    An image set without a PatientID belongs to no known patient: it is counted in `studies` only.
    UIDs are counted by their hashes, because text takes five times the memory.

    Args:
        current: The current rows: the name of a relation.
        key: SQL for what tells one patient from another.
    """
    counts = f"""
        count(DISTINCT sex) AS n_sexes,
        min(StudyDate) AS first_study_date, max(StudyDate) AS last_study_date,
        count(DISTINCT hash(coalesce(StudyInstanceUID, image_set_id))) AS n_studies,
        count(DISTINCT hash(coalesce(SeriesInstanceUID, image_set_id))) AS n_series,
        count(*) AS n_image_sets,
        {_distinct("Modality")} AS modalities
    """
    return f"""
        SELECT * REPLACE (
                   CASE WHEN n_sexes > 1 THEN '{dicom_terms.CONFLICTING}' ELSE sex_status END
                   AS sex_status
               ),
               last_study_date - first_study_date AS follow_up_days,
               {_as_text("modalities")}
        FROM ({_mart(current, key, _PATIENT_COLUMNS, counts, ("modalities",))})
    """


def _mart(
    current: str,
    entity: str,
    representative_columns: tuple[str, ...],
    counts: str,
    lists: Collection[str] = (),
) -> str:
    """Return SQL with one row per entity: values of its representative row, and counts of all rows.

    The representative row is chosen first and then joined. An aggregate for each column would
    take twenty times as long.

    Args:
        current: The current rows: the name of a relation.
        entity: SQL for what tells one entity from another.
        representative_columns: The columns that are taken from the representative row.
        counts: SQL for what is counted over all rows.
        lists: Which of `_LISTS` are among the counts.
    """
    lacking = "".join(
        f", bool_or(list_contains(withheld_fields, '{_LISTS[name]}')) AS lacking_{name}"
        for name in lists
    )
    own = ", ".join(f"'{name}'" for name in representative_columns)
    withheld = " || ".join(
        (
            f"list_filter(coalesce(one.withheld_fields, []), lambda field: field IN ({own}))",
            *(
                f"CASE WHEN lacking_{name} THEN ['{name}', '{name}_text'] ELSE [] END"
                for name in lists
            ),
        )
    )
    no_more = ", ".join(("interval_key", *(f"lacking_{name}" for name in lists)))
    return f"""
        SELECT {", ".join(f"one.{column}" for column in representative_columns)},
               {withheld} AS withheld_fields, counts.* EXCLUDE ({no_more})
        FROM (
            SELECT arg_max(interval_key, {REPRESENTATIVE_ORDER}) AS interval_key, {counts}{lacking}
            FROM {current} GROUP BY {entity}
        ) counts JOIN {current} one USING (interval_key)
    """


def _distinct(column: str) -> str:
    """Return SQL for a column's distinct values, sorted; an empty list if there are none.

    One row may hold several values.
    """
    texts = f"string_agg(DISTINCT {column}, '{SEPARATOR}')"
    return f"coalesce(list_sort(list_distinct(string_split({texts}, '{SEPARATOR}'))), [])"


def _as_text(*lists: str) -> str:
    """Return SQL that adds lists as texts: null if a list is empty, or lacks a withheld value."""
    return ", ".join(
        f"CASE WHEN len({name}) > 0 AND NOT list_contains(withheld_fields, '{name}') "
        f"THEN array_to_string({name}, '{SEPARATOR}') END AS {name}_text"
        for name in lists
    )
