"""What each published table holds, as SQL over the memory.

Each query gives all columns of `schema.PUBLISHED` for its table, and the month of its
partition; a policy then leaves columns out. When and where they are written is
`lake.publish`'s.

The relation `present` holds current rows with these keys and the age, see `keyed`, and made safe;
`people` (datastore_id, PatientID, patient_key, shift_days) and `orders` (datastore_id,
AccessionNumber, accession_key) hold the keyed hashes.
"""

from __future__ import annotations

# Nobody is negative years old: a study before birth is an error in one of the two dates,
# and gives no age. (date_sub would give those born on 29 February a birthday on the 28th.)
_AGE = """
CASE WHEN StudyDate >= PatientBirthDate
     THEN least(90, year(StudyDate) - year(PatientBirthDate)
                    - (strftime(StudyDate, '%m%d') < strftime(PatientBirthDate, '%m%d'))::INT
          )::SMALLINT
END AS age_at_study_years
"""


def keyed(relation: str) -> str:
    """Return SQL that adds the keys, the shift and the age to rows of the memory.

    What belongs to no patient is shifted by study, so that it stays together.
    """
    return f"""
        SELECT r.*, {_AGE}, people.patient_key, orders.accession_key,
               coalesce(people.shift_days,
                        shift_days(datastore_id, coalesce(StudyInstanceUID, image_set_id))
               ) AS shift_days
        FROM {relation} r
        LEFT JOIN people USING (datastore_id, PatientID)
        LEFT JOIN orders USING (datastore_id, AccessionNumber)
    """


# A row without the UID of its level is an entity of its own: nothing is dropped, and
# nothing is thrown together that may not belong together.
_STUDY = "datastore_id, coalesce(StudyInstanceUID, image_set_id)"
_SERIES = "datastore_id, coalesce(SeriesInstanceUID, image_set_id)"

# Where an entity's image sets disagree, the primary one speaks, the latest first.
_SPEAKER = (
    "(coalesce(is_primary, true), coalesce(version, 0), "
    "coalesce(updated_at, to_timestamp(0)), image_set_id)"
)


def _mart(entity: str, said: tuple[str, ...], counted: str) -> str:
    """Return SQL with a row per entity: what its speaker says, and what is counted over all.

    One row is chosen and looked up: an aggregate for each column takes twenty times as long.
    """
    return f"""
        SELECT {", ".join(f"present.{column}" for column in said)}, counts.* EXCLUDE (interval_key)
        FROM (
            SELECT arg_max(interval_key, {_SPEAKER}) AS interval_key, {counted}
            FROM present GROUP BY {entity}
        ) counts JOIN present USING (interval_key)
    """


def _distinct(column: str) -> str:
    """Return SQL for a column's distinct values, sorted; an empty list where there are none."""
    return f"coalesce(list_sort(list(DISTINCT {column}) FILTER ({column} IS NOT NULL)), [])"


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
    "age_at_study_years",
)

_WHEN = "min(created_at) AS first_created_at, max(updated_at) AS last_updated_at"

SERIES = _mart(
    _SERIES,
    (
        *_STUDY_SAYS,
        "SeriesInstanceUID",
        "Modality",
        "BodyPartExamined",
        "SeriesNumber",
        "image_set_id",
        "is_primary",
    ),
    f"count(*) AS n_image_sets, {_WHEN}",
)

STUDIES = _mart(
    _STUDY,
    (
        *_STUDY_SAYS,
        "accession_key",
        "AccessionNumber",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    f"""
    {_distinct("Modality")} AS modalities,
    {_distinct("BodyPartExamined")} AS body_parts,
    count(DISTINCT coalesce(SeriesInstanceUID, image_set_id)) AS n_series,
    count(*) AS n_image_sets,
    {_WHEN}
    """,
)

PATIENT_COLUMNS = (
    *("interval_key", "datastore_id", "image_set_id", "version", "updated_at", "is_primary"),
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"),
    *("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
)
"""All that `patients` reads of the memory."""


# An image set without a PatientID belongs to no known patient; it is counted in studies.
# The UIDs of one patient are counted by their hashes: text takes five times the memory.
def patients(key: str = "patient_key") -> str:
    """Return SQL for the table `patients`.

    Args:
        key: SQL for what tells one patient from another.
    """
    return _mart(
        key,
        (
            "datastore_id",
            "patient_key",
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
        ),
        f"""
        count(DISTINCT PatientSex) AS n_sexes,
        min(StudyDate) AS first_study_date, max(StudyDate) AS last_study_date,
        count(DISTINCT hash(coalesce(StudyInstanceUID, image_set_id))) AS n_studies,
        count(DISTINCT hash(coalesce(SeriesInstanceUID, image_set_id))) AS n_series,
        count(*) AS n_image_sets,
        {_distinct("Modality")} AS modalities
        """,
    )
