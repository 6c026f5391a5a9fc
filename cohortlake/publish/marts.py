"""What each published table holds, as SQL over the memory.

Each query gives all columns of `schema.PUBLISHED` for its table, and the month of its
partition; a policy then leaves columns out. When and where they are written is
`publish.publisher`'s.

The relation `present` holds current rows with their keys and what their values mean, see
`keyed`, and made safe; `people` (datastore_id, PatientID, patient_key, shift_days) and `orders`
(datastore_id, AccessionNumber, accession_key) hold the keyed hashes, `sexes`, `modalities` and
`body_parts` what `normalised` reads, `visits` what `publish.study_order` gives of all patients in
question.
"""

from __future__ import annotations

from collections.abc import Collection

from cohortlake import dicom_terms
from cohortlake.dicom_values import SEPARATOR
from cohortlake.publish import derived_values


def keyed(relation: str) -> str:
    """Return SQL that adds the keys, the shift and what the values mean to rows of the memory.

    What belongs to no patient is shifted by study, so that it stays together. An image set of which
    the service does not say whether it is primary, as of all before June 2025, is primary.
    """
    return f"""
        SELECT r.* EXCLUDE (years) REPLACE (coalesce(is_primary, true) AS is_primary),
               {derived_values.AGE},
               sex, {derived_values.status("sex")}, {derived_values.status("modality")},
               body_part, {derived_values.status("body_part")},
               people.patient_key, orders.accession_key, hash({STUDY}) AS study_hash,
               coalesce(people.shift_days,
                        shift_days(datastore_id, coalesce(StudyInstanceUID, image_set_id))
               ) AS shift_days
        FROM (SELECT *, {derived_values.YEARS} FROM {relation}) r
        LEFT JOIN people USING (datastore_id, PatientID)
        LEFT JOIN orders USING (datastore_id, AccessionNumber)
        LEFT JOIN sexes ON {derived_values.same("sex")}
        LEFT JOIN modalities ON {derived_values.same("modality")}
        LEFT JOIN body_parts ON {derived_values.same("body_part")}
    """


# A row without the UID of its level is an entity of its own: nothing is dropped, and
# nothing is thrown together that may not belong together.
STUDY = "datastore_id, coalesce(StudyInstanceUID, image_set_id)"
_SERIES = "datastore_id, coalesce(SeriesInstanceUID, image_set_id)"

# Where an entity's image sets disagree, the primary one speaks, the latest first.
SPEAKER = (
    "(coalesce(is_primary, true), coalesce(version, 0), "
    "coalesce(updated_at, to_timestamp(0)), image_set_id)"
)


_LISTS = {"modalities": "Modality", "body_parts_examined": "BodyPartExamined"}
"""Column that lists the values of several rows -> the column that they are of."""


def _mart(entity: str, said: tuple[str, ...], counted: str, lists: Collection[str] = ()) -> str:
    """Return SQL with a row per entity: what its speaker says, and what is counted over all.

    One row is chosen and looked up: an aggregate for each column takes twenty times as long.

    Args:
        entity: SQL for what tells one entity from another.
        said: The columns that the speaker says.
        counted: SQL for what is counted.
        lists: Those of `_LISTS` that are among it.
    """
    lacking = "".join(
        f", bool_or(list_contains(withheld_fields, '{_LISTS[name]}')) AS lacking_{name}"
        for name in lists
    )
    own = ", ".join(f"'{name}'" for name in said)
    withheld = " || ".join(
        (
            f"list_filter(coalesce(present.withheld_fields, []), lambda field: field IN ({own}))",
            *(f"CASE WHEN lacking_{name} THEN ['{name}'] ELSE [] END" for name in lists),
        )
    )
    no_more = ", ".join(("interval_key", *(f"lacking_{name}" for name in lists)))
    return f"""
        SELECT {", ".join(f"present.{column}" for column in said)},
               {withheld} AS withheld_fields, counts.* EXCLUDE ({no_more})
        FROM (
            SELECT arg_max(interval_key, {SPEAKER}) AS interval_key, {counted}{lacking}
            FROM present GROUP BY {entity}
        ) counts JOIN present USING (interval_key)
    """


def _distinct(column: str) -> str:
    """Return SQL for a column's distinct values, sorted; an empty list where there are none.

    A row may hold several of them.
    """
    texts = f"string_agg(DISTINCT {column}, '{SEPARATOR}')"
    return f"coalesce(list_sort(list_distinct(string_split({texts}, '{SEPARATOR}'))), [])"


_STUDY_SAYS = (
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

_WHEN = "min(created_at) AS first_created_at, max(updated_at) AS last_updated_at"

_SERIES_SAYS = (
    *_STUDY_SAYS,
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

SERIES = f"""
    SELECT *, n_image_sets > 1 AS has_duplicates, {derived_values.AGE_BAND}
    FROM ({_mart(_SERIES, _SERIES_SAYS, f"count(*) AS n_image_sets, {_WHEN}")})
"""

_STUDIES = _mart(
    STUDY,
    (
        *_STUDY_SAYS,
        "study_hash",
        "accession_key",
        "AccessionNumber",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    f"""
    {_distinct("Modality")} AS modalities,
    {_distinct("body_part")} AS body_parts,
    {_distinct("BodyPartExamined")} AS body_parts_examined,
    count(DISTINCT coalesce(SeriesInstanceUID, image_set_id)) AS n_series,
    count(*) AS n_image_sets,
    {_WHEN}
    """,
    lists=("modalities", "body_parts_examined"),
)

# An undated study, and one of nobody known, has no place among a patient's.
STUDIES = f"""
    SELECT s.*, study_ordinal, days_since_previous, {derived_values.AGE_BAND}
    FROM ({_STUDIES}) s LEFT JOIN visits
    ON patient_hash = hash(patient_key) AND visits.study_hash = s.study_hash
"""

PATIENT_COLUMNS = (
    *("interval_key", "datastore_id", "image_set_id", "version", "updated_at", "is_primary"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "PatientSex_raw"),
    *("StudyDate", "StudyTime"),
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
)
"""All that `patients`, and the order of their studies, read of the memory."""


# An image set without a PatientID belongs to no known patient; it is counted in studies.
# The UIDs of one patient are counted by their hashes: text takes five times the memory.
def patients(key: str = "patient_key") -> str:
    """Return SQL for the table `patients`.

    Args:
        key: SQL for what tells one patient from another.
    """
    spoken = _mart(
        key,
        (
            "datastore_id",
            "patient_key",
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "sex",
            "sex_status",
        ),
        f"""
        count(DISTINCT sex) AS n_sexes,
        min(StudyDate) AS first_study_date, max(StudyDate) AS last_study_date,
        count(DISTINCT hash(coalesce(StudyInstanceUID, image_set_id))) AS n_studies,
        count(DISTINCT hash(coalesce(SeriesInstanceUID, image_set_id))) AS n_series,
        count(*) AS n_image_sets,
        {_distinct("Modality")} AS modalities
        """,
        lists=("modalities",),
    )
    return f"""
        SELECT * REPLACE (
                   CASE WHEN n_sexes > 1 THEN '{dicom_terms.CONFLICTING}' ELSE sex_status END
                   AS sex_status
               ),
               last_study_date - first_study_date AS follow_up_days
        FROM ({spoken})
    """
