"""Compares the published files with the state of the emulator, and the tables with one another.

It shares no code with the library. It reads the files with pyarrow alone, and restores the values
that were sent from the typed columns. A difference names the table, the column and the image set,
never the value of a tag.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as pads

Row = dict[str, Any]

TABLES = ("image_sets", "series", "studies", "patients", "history")
_TAGS = {
    "PatientID": "DICOMPatientId",
    "PatientName": "DICOMPatientName",
    "PatientBirthDate": "DICOMPatientBirthDate",
    "PatientSex": "DICOMPatientSex",
    "StudyInstanceUID": "DICOMStudyInstanceUID",
    "StudyID": "DICOMStudyId",
    "StudyDescription": "DICOMStudyDescription",
    "NumberOfStudyRelatedSeries": "DICOMNumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances": "DICOMNumberOfStudyRelatedInstances",
    "AccessionNumber": "DICOMAccessionNumber",
    "SeriesInstanceUID": "DICOMSeriesInstanceUID",
    "Modality": "DICOMSeriesModality",
    "BodyPartExamined": "DICOMSeriesBodyPart",
    "SeriesNumber": "DICOMSeriesNumber",
    "StudyDate": "DICOMStudyDate",
    "StudyTime": "DICOMStudyTime",
}
_PARSED: dict[str, Callable[[Any], Any]] = {
    "PatientBirthDate": lambda value: value.strftime("%Y%m%d"),
    "StudyDate": lambda value: value.strftime("%Y%m%d"),
    "StudyTime": lambda value: value.strftime("%H%M%S.%f").removesuffix(".000000"),
    "NumberOfStudyRelatedSeries": int,
    "NumberOfStudyRelatedInstances": int,
    "SeriesNumber": int,
}
_FIELDS = {
    "imageSetId": "image_set_id",
    "version": "version",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "lastAccessedAt": "last_accessed_at",
    "storageTier": "storage_tier",
    "isPrimary": "is_primary",
}
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


def read(lake: Path) -> dict[str, list[Row]]:
    """Return all rows of all published tables, found by listing the folders."""
    return {
        table: pads.dataset(
            lake / "published" / table, format="parquet", partitioning="hive"
        ).to_table().to_pylist()
        for table in TABLES
    }  # fmt: skip


def views(lake: Path, tables: Mapping[str, list[Row]]) -> Iterator[str]:
    """Yield the views of `cohortlake.duckdb` that do not have the rows that `read` returned."""
    with duckdb.connect(lake / "published/cohortlake.duckdb", read_only=True) as con:
        for name, rows in tables.items():
            if (viewed := con.table(name).count("*").fetchall()) != [(len(rows),)]:
                yield f"{name}: a view of {viewed[0][0]} rows over {len(rows)}"


def differences(tables: Mapping[str, list[Row]], truth: Iterable[Row]) -> list[str]:
    """Return how published tables differ from a data store and from one another.

    Args:
        tables: What `read` returned.
        truth: The summaries of all image sets that exist.
    """
    return [
        *_from_the_data_store(tables, truth),
        *_derived(tables["image_sets"]),
        *_series(tables["image_sets"], tables["series"]),
        *_studies(tables["image_sets"], tables["studies"]),
        *_patients(tables["image_sets"], tables["patients"]),
        *_history(tables["image_sets"], tables["history"]),
    ]


def different_rows(one: Mapping[str, list[Row]], other: Mapping[str, list[Row]]) -> list[str]:
    """Return the tables in which two lakes differ, with the number of rows."""
    found = []
    for table in TABLES:
        rows, others = (Counter(_frozen(row) for row in t[table]) for t in (one, other))
        if rows != others:
            count = (rows - others).total() + (others - rows).total()
            found.append(f"{table}: {count} rows are in one of two lakes only")
    return found


def _frozen(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in row.items()))


# published/image_sets against the data store, as it was sent


def losses(tables: Mapping[str, list[Row]], truth: Iterable[Row]) -> Iterator[str]:
    """Yield what published/image_sets lacks of the data store; deleted image sets may be in it.

    Args:
        tables: What `read` returned.
        truth: The summaries of all image sets that exist.
    """
    published = {row["image_set_id"]: _sent(row) for row in tables["image_sets"]}
    for summary in truth:
        key, sent = summary["imageSetId"], _in_milliseconds(summary)
        if key not in published:
            yield f"image_sets: {key} is missing"
            continue
        for member in sent.keys() | published[key].keys():
            if sent.get(member) != published[key].get(member):
                yield f"image_sets: {key} differs in {member}"


def _from_the_data_store(tables: Mapping[str, list[Row]], truth: Iterable[Row]) -> Iterator[str]:
    there = list(truth)
    ids = Counter(row["image_set_id"] for row in tables["image_sets"])
    yield from (f"image_sets: {key} is there {n} times" for key, n in ids.items() if n > 1)
    gone = ids.keys() - {summary["imageSetId"] for summary in there}
    yield from (f"image_sets: {key} is too much" for key in gone)
    yield from losses(tables, there)


def _in_milliseconds(summary: Row) -> Row:
    """Return a summary without levels, and with instants as integers."""
    flat = {name: value for name, value in summary.items() if name != "DICOMTags"}
    flat |= summary["DICOMTags"]
    for name in ("createdAt", "updatedAt", "lastAccessedAt"):
        flat[name] = round(flat[name] * 1000)
    return flat


def _sent(row: Row) -> Row:
    """Restore what was sent, from the typed value or from the raw text beside it."""
    sent = {member: row[column] for member, column in _FIELDS.items()}
    for member in ("createdAt", "updatedAt", "lastAccessedAt"):
        sent[member] = round(sent[member].timestamp() * 1000)
    for column, member in _TAGS.items():
        text, value = row.get(f"{column}_raw"), row[column]
        if text is None and value is not None and column in _PARSED:
            value = _PARSED[column](value)
        sent[member] = value if text is None else text
    extra = json.loads(row["extra"]) if row["extra"] else {}
    return {k: v for k, v in (sent | extra).items() if v is not None}


# what is worked out for each row


def _derived(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        key, studied = row["image_set_id"], row["StudyDate"]
        if row["study_month"] != (studied.strftime("%Y-%m") if studied else "undated"):
            yield f"image_sets: {key} lies in a wrong month"
        for column, value in _meanings(row).items():
            if row[column] != value:
                yield f"image_sets: {key} has a wrong {column}"
    for column, hashed in (("PatientID", "patient_key"), ("AccessionNumber", "accession_key")):
        pairs = {(r[column] if (r[column] or "").strip() else None, r[hashed]) for r in rows}
        if not len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}):
            yield f"image_sets: {hashed} does not stand for {column}"


# What the emulated hospital examines; a SKELETON is no term of DICOM PS3.16 Table L-1.
_EXAMINED = {
    "ABDOMEN", "BRAIN", "BREAST", "CHEST", "HAND", "HEAD", "HEART", "HIP", "KNEE", "LSPINE",
    "THYROID", "WHOLEBODY",
}  # fmt: skip


def _meanings(row: Row) -> Row:
    """Return the derived values of a row."""
    sex, sex_status = _coded(row["PatientSex"], {"M", "F", "O"})
    body_part, body_part_status = _coded(row["BodyPartExamined"], _EXAMINED)
    age, age_status = _age(row)
    return {
        "sex": sex,
        "sex_status": sex_status,
        "body_part": body_part,
        "body_part_status": body_part_status,
        "age_at_study_years": age,
        "age_status": age_status,
    }


def _coded(sent: str | None, terms: set[str]) -> tuple[str | None, str]:
    if sent is None or not sent.strip():
        return None, "missing"
    return (sent, "ok") if sent in terms else (None, "invalid")


def _age(row: Row) -> tuple[int | None, str]:
    born, studied = row["PatientBirthDate"], row["StudyDate"]
    if born is None or studied is None:
        unread = [row[f"{c}_raw"] for c in ("PatientBirthDate", "StudyDate") if row[c] is None]
        return None, "invalid" if any((text or "").strip() for text in unread) else "missing"
    before_birthday = (studied.month, studied.day) < (born.month, born.day)
    years = studied.year - born.year - before_birthday
    return (min(90, years), "ok") if 0 <= years <= 120 else (None, "implausible")


def _age_band(age: int | None) -> str | None:
    if age is None or age == 90:
        return age and "90+"
    low = age - age % 10
    return "<1" if age == 0 else f"{max(low, 1)}-{low + 9}"


# series, studies and patients against image_sets


def _groups(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _distinct(rows: list[Row], column: str) -> list[Any]:
    return sorted({row[column] for row in rows if row[column] is not None})


def _series_key(row: Row) -> Any:
    return row["SeriesInstanceUID"] or row["image_set_id"]


def _study_key(row: Row) -> Any:
    return row["StudyInstanceUID"] or row["image_set_id"]


def _speaker(rows: list[Row]) -> Row:
    """Return the row that represents its group: the latest of the primary ones."""
    return max(
        rows, key=lambda r: (r["is_primary"], r["version"], r["updated_at"], r["image_set_id"])
    )


def _times(rows: list[Row]) -> Row:
    return {
        "n_image_sets": len(rows),
        "first_created_at": min(row["created_at"] for row in rows),
        "last_updated_at": max(row["updated_at"] for row in rows),
        "study_month": _speaker(rows)["study_month"],
    }


def _banded(rows: list[Row]) -> Row:
    speaker = _speaker(rows)
    day = speaker["StudyDate"]
    return {
        "age_band": _age_band(speaker["age_at_study_years"]),
        "study_year": day and day.year,
        "study_quarter": day and f"{day.year:04}-Q{(day.month + 2) // 3}",
    }


def _listed(rows: list[Row], name: str, column: str) -> Row:
    values = _distinct(rows, column)
    return {name: values, f"{name}_text": "\\".join(values) or None}


def _said(rows: list[Row], *columns: str) -> Row:
    speaker = _speaker(rows)
    return {column: speaker[column] for column in columns}


_OF_STUDY = (
    "StudyDate", "StudyTime", "StudyID", "StudyDescription", "patient_key", "PatientID",
    "PatientName", "PatientBirthDate", "PatientSex", "sex", "sex_status", "age_at_study_years",
    "age_status",
)  # fmt: skip


def _series(image_sets: list[Row], series: list[Row]) -> Iterator[str]:
    said = (*_OF_STUDY, "StudyInstanceUID", "SeriesInstanceUID", "Modality", "BodyPartExamined",
            "body_part", "body_part_status", "SeriesNumber", "image_set_id",
            "is_primary")  # fmt: skip
    expected = [
        _said(rows, *said) | _times(rows) | _banded(rows) | {"has_duplicates": len(rows) > 1}
        for rows in _groups(image_sets, _series_key).values()
    ]
    yield from _compared("series", expected, series)


def _studies(image_sets: list[Row], studies: list[Row]) -> Iterator[str]:
    said = (*_OF_STUDY, "StudyInstanceUID", "accession_key", "AccessionNumber",
            "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")  # fmt: skip
    places = _places(image_sets)
    expected = [
        _said(rows, *said) | _times(rows) | _banded(rows)
        | _listed(rows, "modalities", "Modality")
        | _listed(rows, "body_parts", "body_part")
        | _listed(rows, "body_parts_examined", "BodyPartExamined")
        | {
            "n_patients": len({*_distinct(rows, "patient_key")}),
            "n_series": len({_series_key(row) for row in rows}),
        }
        | places.get((_speaker(rows)["patient_key"], study), _NO_PLACE)
        for study, rows in _groups(image_sets, _study_key).items()
    ]  # fmt: skip
    yield from _compared("studies", expected, studies)


_NO_PLACE: Row = {"study_ordinal": None, "days_since_previous": None}


def _places(image_sets: list[Row]) -> dict[tuple[str, str], Row]:
    """Return the order of each patient's dated studies."""
    places = {}
    known = [row for row in image_sets if row["patient_key"] is not None]
    for patient, own in _groups(known, lambda row: row["patient_key"]).items():
        spoken = [(_speaker(rows), key) for key, rows in _groups(own, _study_key).items()]
        dated = sorted(
            (row["StudyDate"], row["StudyTime"] or time.max, key)
            for row, key in spoken
            if row["StudyDate"]
        )
        for place, (day, _, key) in enumerate(dated):
            since = (day - dated[place - 1][0]).days if place else None
            places[patient, key] = {"study_ordinal": place + 1, "days_since_previous": since}
    return places


def _patients(image_sets: list[Row], patients: list[Row]) -> Iterator[str]:
    known = [row for row in image_sets if row["patient_key"] is not None]
    said = ("patient_key", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "sex")
    expected = []
    for rows in _groups(known, lambda row: row["patient_key"]).values():
        dates, sexes = _distinct(rows, "StudyDate"), _distinct(rows, "sex")
        status = "conflicting" if len(sexes) > 1 else _speaker(rows)["sex_status"]
        expected.append(
            _said(rows, *said)
            | {
                "sex_status": status,
                "n_sexes": len(sexes),
                "first_study_date": dates[0] if dates else None,
                "last_study_date": dates[-1] if dates else None,
                "follow_up_days": (dates[-1] - dates[0]).days if dates else None,
                "n_studies": len({_study_key(row) for row in rows}),
                "n_series": len({_series_key(row) for row in rows}),
                "n_image_sets": len(rows),
            }
            | _listed(rows, "modalities", "Modality")
        )
    yield from _compared("patients", expected, patients)


def _compared(table: str, expected: list[Row], rows: list[Row]) -> Iterator[str]:
    """Compare the columns that are expected."""
    columns = expected[0].keys() if expected else ()
    wanted, found = (
        Counter(_frozen({column: row[column] for column in columns}) for row in some)
        for some in (expected, rows)
    )
    if wanted != found:
        yield f"{table}: {(wanted - found).total()} rows missing, {(found - wanted).total()} wrong"


# history


def _history(image_sets: list[Row], history: list[Row]) -> Iterator[str]:
    current = {row["image_set_id"]: row for row in image_sets}
    lines = _groups(history, lambda row: row["image_set_id"])
    yield from (f"history: {key} has none" for key in current.keys() - lines.keys())
    for key, rows in lines.items():
        for fault in (*_line_faults(rows, current.get(key)), *_kind_faults(rows)):
            yield f"history: {key} {fault}"
    for study in _groups(history, lambda row: row["StudyInstanceUID"]).values():
        for row in study:
            if row["is_study_wide"] != _is_study_wide(row, study):
                yield f"history: {row['image_set_id']} is wrong about its whole study"


def _line_faults(rows: list[Row], current: Row | None) -> Iterator[str]:
    """Yield what is wrong with the intervals of one image set."""
    begins = [row["change"] for row in rows]
    if begins.count("created") != 1:
        yield "was not created once"
    standing = [row for row in rows if row["valid_to"] is None]
    if [row["version"] for row in standing] != ([current["version"]] if current else []):
        yield "does not end as it is now"
    if any((row["ended_by"] is None) != (row["valid_to"] is None) for row in rows):
        yield "ends without an instant, or the other way round"
    if any(row["observed_from"] < row["valid_from"] for row in rows):
        yield "was known before it was"
    yield from _interval_faults(rows, "valid")
    seen = [row for row in rows if not _was_overtaken(row)]
    yield from _interval_faults(seen, "observed")


def _was_overtaken(row: Row) -> bool:
    """Return whether a state was first seen after a later one."""
    return row["observed_to"] is not None and row["observed_to"] <= row["observed_from"]


def _interval_faults(rows: list[Row], clock: str) -> Iterator[str]:
    begins, ends = f"{clock}_from", f"{clock}_to"
    ordered = sorted(rows, key=lambda row: (row[begins], row[ends] or _FAR))
    if any(row[begins] > (row[ends] or _FAR) for row in rows):
        yield f"has a {clock} interval that ends before it begins"
    for earlier, later in itertools.pairwise(ordered):
        end = earlier[ends] or _FAR
        if end > later[begins]:
            yield f"has {clock} intervals that overlap"
        if end < later[begins] and earlier["ended_by"] != "deleted":
            yield f"has a hole between {clock} intervals"


# what kind of change each state was

_MINUTE = timedelta(seconds=60)
_NO_FIELDS = {
    *("last_accessed_at", "storage_tier", "patient_family_name", "patient_given_name"),
    *("patient_key", "accession_key", "age_at_study_years", "age_status", "study_month"),
    *("sex", "sex_status", "body_part", "body_part_status"),
    *("valid_from", "valid_to", "last_seen_at", "observed_from", "observed_to", "ended_by"),
    *("change", "kind", "is_study_wide", "changed_fields", "versions_unseen"),
}
_OF_PATIENT = {"PatientID", "PatientName", "PatientBirthDate", "PatientSex"}
_WITH_EACH_VERSION = {"version", "created_at", "updated_at"}
_COUNTS = {"NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"}


def _kind_faults(rows: list[Row]) -> Iterator[str]:
    """Yield what is wrong with the changes between the states of one image set."""
    ordered = sorted(rows, key=lambda row: (row["valid_from"], row["version"]))
    for earlier, later in itertools.pairwise([None, *ordered]):
        assert later is not None
        changed = {
            name for name in later.keys() - _NO_FIELDS if earlier and later[name] != earlier[name]
        }
        if set(later["changed_fields"] or ()) != changed:
            yield "does not name what changed"
        if later["kind"] != _kind(later["change"], changed):
            yield "is of another kind"
        before = earlier["version"] if earlier else 0
        if later["versions_unseen"] != max(0, later["version"] - before - 1):
            yield "counts wrongly what nobody saw"


def _kind(change: str, changed: set[str]) -> str:
    columns = {name.removesuffix("_raw") for name in changed}
    if change != "updated":
        return change
    if "StudyDate" in columns:
        return "moved"
    if columns & _OF_PATIENT:
        return "demographic"
    if "is_primary" in columns:
        return "primary_flip"
    return "updated" if columns - _WITH_EACH_VERSION - _COUNTS else "reimported"


def _is_study_wide(row: Row, study: list[Row]) -> bool:
    """Return whether half of a study, and more than one image set, changed alike in a minute."""
    at = row["valid_from"]
    alike = {
        other["image_set_id"]
        for other in study
        if other["kind"] == row["kind"] and abs(other["valid_from"] - at) <= _MINUTE
    }
    there = {
        other["image_set_id"]
        for other in study
        if other["valid_from"] <= at < (other["valid_to"] or _FAR)
    }
    has_study = row["kind"] != "created" and row["StudyInstanceUID"] is not None
    return has_study and len(alike) > 1 and 2 * len(alike) >= len(there)
