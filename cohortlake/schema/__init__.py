"""Describes every column of every table once.

A column has a name, a type, a meaning, its DICOM tag and VR, the service's name for it, and how far
it identifies a person. All other modules read this from here. See `flatten.values` for how a value
is parsed, and `privacy.policy` for which columns a policy shows.

A column that is a DICOM attribute carries the exact DICOM keyword; a column of the
service or of ours is snake_case with its unit last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa

from cohortlake.errors import UnknownTable
from cohortlake.schema import header_columns
from cohortlake.schema.column import (
    CANONICAL_VALUES,
    PARSED_VRS,
    RAW_SUFFIX,
    VR_TYPES,
    Column,
    Identifies,
)

# Of `column`, for those who ask `schema` for everything about columns.
__all__ = ["CANONICAL_VALUES", "PARSED_VRS", "RAW_SUFFIX", "Column", "Identifies"]

FORMAT_VERSION = 4
"""Version of the files' layout, written into each footer."""

INSTANT = pa.timestamp("us", tz="UTC")


def _tag(
    name: str,
    member: str,
    tag: str,
    vr: str,
    basic_profile: str | None,
    identifies: Identifies,
    description: str,
) -> Column:
    return Column(name, VR_TYPES[vr], description, identifies, member, tag, vr, basic_profile)


_D, _I, _N = Identifies.DIRECTLY, Identifies.INDIRECTLY, Identifies.NO
_DATE, _INSTANT, _UID = Identifies.DATE, Identifies.INSTANT, Identifies.UID
_NUMBER = Identifies.NUMBER
_CODED, _FREE, _SENT = Identifies.CODED, Identifies.FREE_TEXT, Identifies.AS_SENT
_BIRTH, _INTERVAL = Identifies.BIRTH_DATE, Identifies.INTERVAL

DICOM_TAGS: tuple[Column, ...] = (
    _tag("PatientID", "DICOMPatientId", "(0010,0020)", "LO", "Z/D", _D,
         "The patient's id, unique only within its issuer; pair it with datastore_id."),
    _tag("PatientName", "DICOMPatientName", "(0010,0010)", "PN", "Z", _D,
         "The patient's name, whole, with its component groups."),
    _tag("PatientBirthDate", "DICOMPatientBirthDate", "(0010,0030)", "DA", "Z", _BIRTH,
         "The patient's date of birth."),
    _tag("PatientSex", "DICOMPatientSex", "(0010,0040)", "CS", "Z", _CODED,
         "The patient's sex as sent, in upper case: M, F, O by the standard."),
    _tag("StudyInstanceUID", "DICOMStudyInstanceUID", "(0020,000D)", "UI", "U", _UID,
         "The study's unique id."),
    _tag("StudyID", "DICOMStudyId", "(0020,0010)", "SH", "Z", _D,
         "The id a person or a device gave the study."),
    _tag("StudyDescription", "DICOMStudyDescription", "(0008,1030)", "LO", "X", _FREE,
         "What the institution calls the study; free text."),
    _tag("NumberOfStudyRelatedSeries", "DICOMNumberOfStudyRelatedSeries",
         "(0020,1206)", "IS", None, _NUMBER,
         "Series in the whole study. Repeats on each of its rows: never add it up."),
    _tag("NumberOfStudyRelatedInstances", "DICOMNumberOfStudyRelatedInstances",
         "(0020,1208)", "IS", None, _NUMBER,
         "Instances in the whole study. Repeats on each of its rows: never add it up."),
    _tag("AccessionNumber", "DICOMAccessionNumber", "(0008,0050)", "SH", "Z", _D,
         "The departmental system's number of the order."),
    _tag("SeriesInstanceUID", "DICOMSeriesInstanceUID", "(0020,000E)", "UI", "U", _UID,
         "The series' unique id."),
    _tag("Modality", "DICOMSeriesModality", "(0008,0060)", "CS", None, _CODED,
         "The kind of device: CT, MR, MG and so on; PT\\CT where two were sent."),
    _tag("BodyPartExamined", "DICOMSeriesBodyPart", "(0018,0015)", "CS", None, _CODED,
         "The part of the body as sent, in upper case."),
    _tag("SeriesNumber", "DICOMSeriesNumber", "(0020,0011)", "IS", None, _NUMBER,
         "The series' number within its study."),
    _tag("StudyDate", "DICOMStudyDate", "(0008,0020)", "DA", "Z", _DATE,
         "The day the study started, in the modality's local time."),
    _tag("StudyTime", "DICOMStudyTime", "(0008,0030)", "TM", "Z", _INSTANT,
         "The time the study started, in the modality's local time, without a zone."),
)  # fmt: skip
"""The sixteen DICOM tags of a summary. Four members are not the keyword with DICOM in
front (DICOMPatientId, DICOMStudyId, DICOMSeriesModality, DICOMSeriesBodyPart), so the
map is written out. Source: botocore's medical-imaging model, shape DICOMTags."""

STUDY_DATE = next(tag for tag in DICOM_TAGS if tag.name == "StudyDate")

DATASTORE_ID = Column("datastore_id", pa.string(), "The data store's id.")

ARCHIVE = "ARCHIVE_INSTANT_ACCESS"
"""The storage tier of an image set that moves to the frequent tier when its document is read."""

SUMMARY_FIELDS: tuple[Column, ...] = (
    Column("image_set_id", pa.string(), "The image set's id.", _I, "imageSetId"),
    Column("version", pa.int64(), "The image set's version, from 1.", member="version"),
    Column("created_at", INSTANT, "When the image set was created.", _INSTANT, "createdAt"),
    Column("updated_at", INSTANT, "When this version came to be.", _INSTANT, "updatedAt"),
    Column("last_accessed_at", INSTANT, "When it was last read.", _INSTANT, "lastAccessedAt"),
    Column("storage_tier", pa.string(), f"FREQUENT_ACCESS or {ARCHIVE}.",
           member="storageTier"),
    Column("is_primary", pa.bool_(),
           "False for an image set that repeats a series whose re-import conflicted. Where the "
           "service does not say it, `image_sets/` has null, and the published tables true.",
           member="isPrimary"),
)  # fmt: skip
"""The other members of an ImageSetsMetadataSummary."""

RAW_COLUMNS: tuple[Column, ...] = tuple(
    Column(
        column.raw_name,
        pa.string(),
        f"{column.name} as sent, if the value does not give it back; else null.",
        _SENT,
    )
    for column in DICOM_TAGS
)
"""Beside each tag, what was sent where `flatten` reads it as another text or as none."""

NAME_PARTS: tuple[Column, ...] = (
    Column("patient_family_name", pa.string(), "Family name, of PatientName's first group.", _D),
    Column("patient_given_name", pa.string(), "Given name, of PatientName's first group.", _D),
)

EXTRA = Column(
    "extra",
    pa.string(),
    "JSON of all members that the schema does not name or whose JSON type is not the "
    "expected one, exactly as sent.",
    _FREE,
)

STATE_KEY = Column(
    "state_key",
    pa.int64(),
    "Hash of the state: of all columns but last_accessed_at and storage_tier.",
)

STATE: tuple[Column, ...] = (
    DATASTORE_ID,
    *SUMMARY_FIELDS,
    *DICOM_TAGS,
    *RAW_COLUMNS,
    *NAME_PARTS,
    EXTRA,
    STATE_KEY,
)
"""One state of an image set, as one search saw it. What `flatten` gives."""

VOLATILE = ("last_accessed_at", "storage_tier")
"""Columns that may change without the image set having changed."""

UNDATED = "undated"
YEAR_FORMAT = "%Y-XX"
"""A year as a folder's value: 2024-XX, as ISO 8601-2 writes an unspecified month. Readers read a
plain 2024 as a number, unless another folder is not a number."""
_IS_UNDATED = (
    "Without a date the folder is `undated`, and Cohortlake's readers and views give null."
)
STUDY_MONTH = Column(
    "study_month", pa.string(), f"YYYY-MM of StudyDate. {_IS_UNDATED}", Identifies.DATE
)
STUDY_YEAR = Column(
    "study_year_or_undated",
    pa.string(),
    f"YYYY-XX: year of StudyDate. {_IS_UNDATED}",
    Identifies.INDIRECTLY,
)
SHIFTED_YEAR = Column(
    "study_year_shifted",
    pa.string(),
    f"YYYY-XX: year of study_date_shifted. {_IS_UNDATED}",
    Identifies.INDIRECTLY,
)


def period_sql(form: str) -> str:
    """Return SQL for the value of a partition column, over rows with StudyDate.

    Args:
        form: How the period is written, in `strftime`: `%Y-%m`, or `YEAR_FORMAT`.
    """
    return f"coalesce(strftime(StudyDate, '{form}'), '{UNDATED}')"


STUDY_MONTH_SQL = period_sql("%Y-%m")
"""SQL for the study month of a row, over rows with StudyDate."""


def dated_sql(period: str) -> str:
    """Return SQL that turns the value `undated` of a partition column into null.

    DuckDB still skips the files of other folders.

    Args:
        period: SQL for the value.
    """
    return f"nullif({period}, '{UNDATED}')"


_OBSERVED_AT = Column(
    "observed_at", INSTANT, "When the search that saw this began, on the service's clock."
)
_RUN_ID = Column("run_id", pa.string(), "The run that saw this.")

_VERSIONS_UNSEEN = Column(
    "versions_unseen",
    pa.int64(),
    "Versions between this state and the one before that no search saw.",
)

_LAST_SEEN = Column(
    "last_seen_at",
    INSTANT,
    "For a deletion: when a search had last seen the image set, on the service's clock.",
    _INSTANT,
)

FOUND: tuple[Column, ...] = (
    *STATE,
    Column(
        "page",
        pa.int32(),
        "Which page of the search brought it, from 0; null for a version read by itself.",
    ),
    _OBSERVED_AT,
    _RUN_ID,
)
"""An increment: what one search window found."""

ABSENCE: tuple[Column, ...] = (
    DATASTORE_ID,
    SUMMARY_FIELDS[0],
    Column("confirmed_by", pa.string(), "The call that showed it: GetImageSet or SearchImageSets."),
    _LAST_SEEN,
    _OBSERVED_AT,
    _RUN_ID,
)
"""An increment of absences: image sets that a search did not find, a sweep's or one that an
event asked for, and that a second call confirmed gone."""

UNREAD: tuple[Column, ...] = (
    DATASTORE_ID,
    SUMMARY_FIELDS[0],
    Column("below_version", pa.int64(), "The versions below it were read. Those that the lake "
           "still lacks cannot be read, and are not asked for again."),
    Column("why", pa.string(), "JSON: version -> why it could not be read, or `list` -> why they "
           "could not be listed. One that is not named was not listed."),
    _OBSERVED_AT,
    _RUN_ID,
)  # fmt: skip
"""An increment of what cannot be read: image sets of which the service does not give all older
versions, or does not give them any more."""

IMAGE_SETS: tuple[Column, ...] = (
    Column("row_kind", pa.string(), "`version`: a state was seen for the first time. `closure`: an "
           "end event, a state ended."),
    *STATE,
    STUDY_MONTH,
    Column("image_set_key", pa.int64(), "Hash of datastore_id and image_set_id, to find the rows "
           "of an image set."),
    Column("study_hash", pa.int64(), "version: hash of datastore_id and StudyInstanceUID, to find "
           "the rows of a study; the same for all rows of a data store without one."),
    Column("series_hash", pa.int64(), "version: hash of datastore_id and SeriesInstanceUID; null "
           "without one."),
    Column("patient_hash", pa.int64(), "version: hash of datastore_id and PatientID; null without "
           "one."),
    Column("interval_key", pa.int64(), "Hash of the state, when and how it began and the state "
           "before it. It links an end event to the version that ends."),
    Column("change", pa.string(), "version: created, updated or reappeared. closure: "
           "superseded or deleted; restated if a late increment shows another end; "
           "reopened if it shows that the state has not ended."),
    Column("prior_state_key", pa.int64(), "version: `state_key` of the state before; null for "
           "created."),
    Column("prior_study_month", pa.string(), "version: `study_month` of the state before."),
    _VERSIONS_UNSEEN,
    Column("revision", pa.int64(), "closure: the greatest one of an interval_key counts."),
    Column("effective_at", INSTANT, "When the state began or ended, on the service's clock."),
    _LAST_SEEN,
    _OBSERVED_AT,
    _RUN_ID,
)  # fmt: skip
"""The version history, `image_sets/`: version rows and end events, only ever appended."""

COVERAGE: tuple[Column, ...] = (
    Column("increment", pa.string(), "Path of the increment below the root."),
    DATASTORE_ID,
    Column("axis", pa.string(), "updated_at, study_date, created_at, absence, versions or unread."),
    Column("partition", pa.string(),
           "The UTC day, the study month, `undated`, `events`, `versions`, or `erasures` or "
           "`late-erasures` with the axis of the search that met the rows."),
    Column("start", INSTANT, "First instant of the window."),
    Column("end", INSTANT, "First instant after the window."),
    Column("searched_at", INSTANT, "When the search began, on the service's clock."),
    Column("duration_seconds", pa.float64(), "How long the search took."),
    Column("complete", pa.bool_(), "Whether the search reached its last token."),
    Column("pages", pa.int64(), "Pages read."),
    Column("rows", pa.int64(), "Image sets found in the window."),
    Column("kept_rows", pa.int64(), "Rows in the increment: 0 if all were known."),
    Column("requests", pa.int64(), "Requests sent, retries included."),
    Column("throttles", pa.int64(), "Requests that the service throttled."),
    Column("content_hash", pa.int64(), "Sum of the rows' state_key modulo 2^63."),
    Column(
        "missing",
        pa.int64(),
        "For a sweep: image sets that it did not find and that were not closed, because they were "
        "too many, or because GetImageSet is denied, which alone proves that they are gone. Null "
        "if nothing was compared.",
    ),
    Column("invalid_values", pa.string(), "JSON: column -> values that could not be parsed."),
    Column("erased_rows", pa.int64(), "Rows of erased patients, left out of all other counts."),
    Column("counted", pa.bool_(), "False if rows and content_hash cannot be compared with the "
           "lake: an erasure set them to 0, or an image set changed while the sweep ran."),
    Column("run_id", pa.string(), "The run that wrote it."),
)  # fmt: skip
"""The coverage, `coverage/`: one row per window searched."""

FRAMES = pa.list_(pa.struct([("ID", pa.string()), ("FrameSizeInBytes", pa.int64())]))

HEADER: tuple[Column, ...] = (
    DATASTORE_ID,
    *SUMMARY_FIELDS[:2],
    Column("PatientID", pa.string(), "The patient's id in the document, to erase a patient.", _D),
    Column("header", pa.string(), "JSON: every attribute, see `headers.compact`. Null where the "
           "document could not be read.", _FREE),
    Column("instances", pa.list_(pa.struct([("SOPInstanceUID", pa.string()), ("ImageFrames", FRAMES)
           ])), "The instances and their frames, in the document's order.", _UID),
    Column("regularly_spaced_3d_volume", pa.bool_(), "Whether its slices are a volume."),
    Column("not_regularly_spaced_because", pa.string(), "Why they are not; null where they are."),
    Column("slice_spacing_mm", pa.float64(), "Median distance between slices along the normal."),
    Column("document_bytes", pa.int64(), "Size of the document as sent."),
    Column("failure", pa.string(), "Why the document could not be read; null where it was."),
    Column("fetched_at", INSTANT, "When the run began that read it, on the service's clock."),
    _RUN_ID,
)  # fmt: skip
"""A file of `headers/`: one row for each version of an image set whose header was asked for."""

PATIENT_KEY = Column("patient_key", pa.string(), "Keyed hash of datastore_id and PatientID.", _I)
ACCESSION_KEY = Column(
    "accession_key", pa.string(), "Keyed hash of datastore_id and AccessionNumber.", _I
)
AGE = Column(
    "age_at_study_years", pa.int16(),
    "Whole years from PatientBirthDate to StudyDate; 90 stands for 90 and over. Null where "
    "age_status is not ok.", _I,
)  # fmt: skip
AGE_STATUS = Column(
    "age_status", pa.string(),
    "ok; missing or invalid where one of the dates is; implausible where the study is before "
    "birth or after the age of 120.",
)  # fmt: skip
SEX = Column("sex", pa.string(), "PatientSex read as M, F or O; null where it cannot be.", _I)
SEX_STATUS = Column(
    "sex_status", pa.string(),
    "ok; respelled where sex was sent in another spelling, such as lower case; missing; invalid "
    "where it cannot be read.",
)  # fmt: skip
MODALITY_STATUS = Column(
    "modality_status", pa.string(),
    "ok; respelled where Modality was sent in lower case; several where it holds more than one, "
    "such as PT\\CT; missing; invalid where it is not a term of the standard.",
)  # fmt: skip
BODY_PART = Column(
    "body_part", pa.string(),
    "BodyPartExamined read as a term of DICOM PS3.16 Table L-1; null where no term is certain.",
)  # fmt: skip
BODY_PART_STATUS = Column(
    "body_part_status", pa.string(),
    "ok; respelled where body_part was sent in another spelling; several where it holds more than "
    "one; missing; invalid where it cannot be read.",
)  # fmt: skip
MEANINGS = (SEX, SEX_STATUS, MODALITY_STATUS, BODY_PART, BODY_PART_STATUS, AGE_STATUS)
"""Columns with the meaning of a DICOM attribute of the same row, and whether it can be trusted."""


def _named(*names: str) -> tuple[Column, ...]:
    by_name = {column.name: column for column in (*STATE, STUDY_MONTH)}
    return tuple(by_name[name] for name in names)


_PATIENT = (PATIENT_KEY, *_named("PatientID", "PatientName", "PatientBirthDate", "PatientSex"))
_STUDY = _named("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription")
_N_IMAGE_SETS = Column("n_image_sets", pa.int64(), "Image sets, primary or not.")
_N_SERIES = Column("n_series", pa.int64(), "Series found in the lake.")
_FIRST_SEEN = Column(
    "first_created_at", INSTANT, "Earliest created_at of its image sets.", _INSTANT
)
_LAST_CHANGED = Column("last_updated_at", INSTANT, "Latest updated_at of its image sets.", _INSTANT)

_AGE_BAND = Column(
    "age_band", pa.string(), "Band of age_at_study_years: <1, 1-9, 10-19 and so on, 90+.", _I
)

STUDY_CALENDAR: tuple[Column, ...] = (
    Column("study_year", pa.int16(), "Year of the study's date as the policy shows it: of "
           "StudyDate, or of study_date_shifted.", Identifies.CALENDAR),
    Column("study_quarter", pa.string(), "Quarter of the same date: 2024-Q3.",
           Identifies.CALENDAR),
)  # fmt: skip
"""The calendar year and quarter of a study. A policy that shows years alone shows `study_year` in
place of StudyDate, and no quarter."""


def _text_of(list_: Column) -> Column:
    meaning = f"{list_.name} as one text, with \\ between values. Null where the list is empty."
    return Column(f"{list_.name}_text", pa.string(), meaning)


_STUDY_LISTS = (
    Column("modalities", pa.list_(pa.string()), "Its series' modalities, sorted."),
    Column("body_parts", pa.list_(pa.string()), "Its image sets' body_part, sorted."),
    Column("body_parts_examined", pa.list_(pa.string()),
           "Its image sets' BodyPartExamined, sorted."),
)  # fmt: skip
_PATIENT_LISTS = (
    Column("modalities", pa.list_(pa.string()), "Modalities over all series, sorted."),
)
TEXT_OF_LIST = {f"{list_.name}_text": list_.name for list_ in (*_STUDY_LISTS, *_PATIENT_LISTS)}
"""Column with a list as one text -> the column with the list."""

_IS_STUDY_WIDE = Column(
    "is_study_wide",
    pa.bool_(),
    "Whether at least half of the study's image sets, and two or more, changed in the same way "
    "within a minute. Never for `created`.",
)

WITHHELD_FIELDS = Column(
    "withheld_fields", pa.list_(pa.string()),
    "Columns whose value in this row the policy does not show. They are null; a list leaves the "
    "value out.",
)  # fmt: skip
MAY_BE_WITHHELD = frozenset(
    ("modalities", "modalities_text", "body_parts_examined", "body_parts_examined_text"),
).union(
    column.name
    for column in (*STATE, *header_columns.COLUMNS)
    if column.identifies in (Identifies.NUMBER, Identifies.CODED, Identifies.FREE_TEXT)
)
"""The columns that `withheld_fields` may name: a policy may show some of their values only."""


def _headers_of(image_set: str) -> tuple[Column, ...]:
    return (
        DATASTORE_ID,
        *_named("SeriesInstanceUID", "StudyInstanceUID"),
        PATIENT_KEY,
        Column("image_set_id", pa.string(), image_set, _I),
        Column("version", pa.int64(), "Its version whose header this is."),
        *header_columns.COLUMNS,
        WITHHELD_FIELDS,
        STUDY_MONTH,
    )


PUBLISHED: dict[str, tuple[Column, ...]] = {
    "image_sets": (
        DATASTORE_ID,
        *SUMMARY_FIELDS,
        PATIENT_KEY,
        ACCESSION_KEY,
        AGE,
        *MEANINGS,
        *DICOM_TAGS,
        *RAW_COLUMNS,
        *NAME_PARTS,
        EXTRA,
        WITHHELD_FIELDS,
        STUDY_MONTH,
    ),
    "series": (
        DATASTORE_ID,
        *_named("SeriesInstanceUID"),
        *_STUDY,
        *_PATIENT,
        SEX,
        SEX_STATUS,
        AGE,
        _AGE_BAND,
        AGE_STATUS,
        *STUDY_CALENDAR,
        *_named("Modality"),
        MODALITY_STATUS,
        *_named("BodyPartExamined"),
        BODY_PART,
        BODY_PART_STATUS,
        *_named("SeriesNumber"),
        _N_IMAGE_SETS,
        Column("has_duplicates", pa.bool_(),
               "Whether the series has more than one image set."),
        Column("image_set_id", pa.string(),
               "The image set that represents the series: the primary one, latest first.", _I),
        Column("is_primary", pa.bool_(), "Whether that image set is primary."),
        _FIRST_SEEN,
        _LAST_CHANGED,
        WITHHELD_FIELDS,
        STUDY_MONTH,
    ),
    "studies": (
        DATASTORE_ID,
        *_STUDY,
        *_PATIENT,
        SEX,
        SEX_STATUS,
        AGE,
        _AGE_BAND,
        AGE_STATUS,
        *STUDY_CALENDAR,
        Column("study_ordinal", pa.int64(),
               "Position among the patient's dated studies, from 1, by StudyDate, StudyTime and "
               "StudyInstanceUID. Null without a patient or a date.", _I),
        Column("days_since_previous", pa.int64(),
               "Days since the patient's study before it; null for the first.", _INTERVAL),
        ACCESSION_KEY,
        *_named("AccessionNumber"),
        *(column for list_ in _STUDY_LISTS for column in (list_, _text_of(list_))),
        Column("n_patients", pa.int64(), "Known patients that have an image set of the study: "
               "nearly always 1; several if some image sets were filed under another id."),
        _N_SERIES,
        _N_IMAGE_SETS,
        *_named("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
        _FIRST_SEEN,
        _LAST_CHANGED,
        WITHHELD_FIELDS,
        STUDY_MONTH,
    ),
    "patients": (
        DATASTORE_ID,
        *_PATIENT,
        SEX,
        Column("sex_status", pa.string(), "As in `image_sets`, or conflicting where n_sexes is "
               "above 1. sex is then that of the patient's latest primary image set."),
        Column("n_sexes", pa.int64(), "Different values of sex over all image sets."),
        Column("first_study_date", pa.date32(), "Earliest StudyDate.", _DATE),
        Column("last_study_date", pa.date32(), "Latest StudyDate.", _DATE),
        Column("follow_up_days", pa.int64(), "Days from the first study date to the last.",
               _INTERVAL),
        Column("n_studies", pa.int64(), "Studies found in the lake."),
        _N_SERIES,
        _N_IMAGE_SETS,
        *(column for list_ in _PATIENT_LISTS for column in (list_, _text_of(list_))),
        WITHHELD_FIELDS,
    ),
    "history": (
        DATASTORE_ID,
        *SUMMARY_FIELDS,
        PATIENT_KEY,
        ACCESSION_KEY,
        AGE,
        *MEANINGS,
        *DICOM_TAGS,
        *RAW_COLUMNS,
        *NAME_PARTS,
        EXTRA,
        Column("valid_from", INSTANT, "When the state began, on the service's clock.",
               _INSTANT),
        Column("valid_to", INSTANT, "When it ended, on the service's clock; null while true. For "
               "a deletion: when its absence was confirmed.", _INSTANT),
        _LAST_SEEN,
        Column("observed_from", INSTANT, "When the lake first saw it.", _INSTANT),
        Column("observed_to", INSTANT, "When the lake first saw a later state or an absence; "
               "null while true. Not after observed_from if it was found too late.",
               _INSTANT),
        Column("change", pa.string(), "How it began: created, updated or reappeared."),
        Column("kind", pa.string(), "What kind of change that was: created, reappeared, moved, "
               "demographic, primary_flip, updated or reimported; the first that fits."),
        _IS_STUDY_WIDE,
        Column("changed_fields", pa.list_(pa.string()), "Columns changed by it."),
        _VERSIONS_UNSEEN,
        Column("ended_by", pa.string(), "How it ended: superseded or deleted; null while true."),
        WITHHELD_FIELDS,
        STUDY_MONTH,
    ),
    "series_headers": _headers_of("The image set that represents the series, as in `series`."),
    "earlier_headers": _headers_of("The image set."),
}  # fmt: skip
"""What notebooks and BI read, `published/`, before a privacy policy leaves columns out."""


IDS = frozenset(
    ("image_set_id", "StudyInstanceUID", "SeriesInstanceUID", "patient_key", "accession_key",
     "PatientID", "AccessionNumber")
)  # fmt: skip
"""The published columns by which single rows are looked up."""


def shifted(column: Column) -> Column:
    """Return the column that a policy shows instead of a date, with shifted dates."""
    meaning = (
        f"{column.name}, moved 1 to 365 days into the past; by the same number for all dates of "
        "one patient, so days between them are true."
    )
    return Column(f"{_snake(column.name)}_shifted", column.type, meaning, _I)


def year_of(column: Column) -> Column:
    """Return the column that a policy shows instead of a date, with the year alone."""
    name = _snake(column.name).replace("_date", "_year")
    return Column(name, pa.int16(), f"Year of {column.name}.", _I)


def forms(column: Column) -> tuple[Column, ...]:
    """Return a published column, and the columns that a policy may show instead."""
    if column == STUDY_MONTH:
        return (STUDY_MONTH, STUDY_YEAR, SHIFTED_YEAR)
    if column.identifies is Identifies.DATE:
        return (column, shifted(column), year_of(column))
    return (column,)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


CHANGES: tuple[Column, ...] = (
    *_named("datastore_id", "image_set_id", "version"),
    Column("kind", pa.string(), "As in `history`, or `deleted`."),
    _IS_STUDY_WIDE,
    Column("changed_at", INSTANT, "When it changed, on the clock that was asked.", _INSTANT),
    Column("field", pa.string(), "Which column changed; null where an image set began or ended, or "
           "where no column that the policy shows differs."),
    Column("before", pa.string(), "Its value before, as text.", _D),
    Column("after", pa.string(), "Its value after, as text.", _D),
)  # fmt: skip
"""What `Lake.changes` and `Lake.diff` give: one row per image set, change and field."""

SNAPSHOTS: tuple[Column, ...] = (
    Column("published_at", INSTANT, "When, on the publishing machine's clock."),
    Column("image_sets_version", pa.int64(), "The version of `image_sets/` that it showed."),
    Column("policy", pa.string(), "The privacy policy that was applied."),
    Column("observed_until", INSTANT, "When the last search began that taught it something, on the "
           "service's clock."),
    *(Column(f"n_{table}", pa.int64(), f"Rows of `{table}`.") for table in PUBLISHED),
    Column("tags", pa.list_(pa.string()), "Its tags, sorted."),
)  # fmt: skip
"""What `Lake.snapshots` gives: one row per publication."""


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of some columns."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


def published(table: str) -> tuple[Column, ...]:
    """Return the columns of a published table.

    Raises:
        UnknownTable: No table has that name.
    """
    if table not in PUBLISHED:
        raise UnknownTable(table, PUBLISHED)
    return PUBLISHED[table]
