"""Changes of a metadata document, as UpdateImageSetMetadata and CopyImageSet make them.

It applies the DICOM constraints of HealthImaging's guide. A message names attributes, and never
holds a value. See `service.changes` for versions and conflicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from emulator.data.levels import (
    INTEGERS,
    PATIENT,
    PATIENT_LEVEL,
    SERIES,
    SERIES_LEVEL,
    STUDY,
    STUDY_LEVEL,
)
from emulator.wire import invalid

Document = dict[str, Any]

_OF_LEVEL = {"Patient": PATIENT, "Study": STUDY, "Series": SERIES}
_UIDS = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
_ONLY_FORCED = _UIDS | {"StudyID"}
_PRIVATE = re.compile("[0-9A-Fa-f]{8}")


def read(text: bytes | str) -> Document:
    """Reads attributes in the form of a document.

    Raises:
        ServiceError: `ValidationException` if it is not JSON or has other members.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("The attributes are not JSON") from None
    if not isinstance(given, dict) or given.keys() - {"SchemaVersion", "Patient", "Study"}:
        raise invalid("The attributes must have SchemaVersion, Patient and Study only")
    if not _has_form(given):
        raise invalid("The attributes must have the levels of a metadata document")
    return given


def update(document: Document, given: Document, *, force: bool) -> None:
    """Sets attributes of a document, in place.

    Args:
        document: The document.
        given: The new attributes, on the levels of a document.
        force: Whether to break the constraints that the flag `force` breaks.

    Raises:
        ServiceError: `ValidationException` if an attribute must not be updated.
    """
    for level, attributes, target in _pairs(document, given):
        for keyword, value in attributes.items():
            _check(level, keyword, value, force=force)
            target["DICOM"][keyword] = value
            if _PRIVATE.fullmatch(keyword):
                target.setdefault("DICOMVRs", {}).setdefault(keyword, "UN")
    # A level lies under its UID, which may have changed.
    for series in document["Study"]["Series"].values():
        series["Instances"] = _keyed(series["Instances"], "SOPInstanceUID")
    document["Study"]["Series"] = _keyed(document["Study"]["Series"], "SeriesInstanceUID")


def remove(document: Document, given: Document, *, force: bool) -> None:
    """Removes attributes, instances and series from a document, in place.

    An attribute is removed if its value is the given one. An instance or a series without
    attributes in `given` is removed as a whole.

    Raises:
        ServiceError: `ValidationException` if there is no such attribute, or nothing would be left.
    """
    for level, attributes, target in _pairs(document, given):
        for keyword, value in attributes.items():
            _check(level, keyword, None, force=force)
            if keyword not in target["DICOM"] or target["DICOM"][keyword] != value:
                raise invalid(f"{keyword} does not have the value that is to be removed")
            del target["DICOM"][keyword]
            target.get("DICOMVRs", {}).pop(keyword, None)
    series = document["Study"]["Series"]
    for series_uid, asked in given.get("Study", {}).get("Series", {}).items():
        if not asked:
            del series[series_uid]
            continue
        for sop_uid, attributes in asked.get("Instances", {}).items():
            if not attributes:
                del series[series_uid]["Instances"][sop_uid]
    if not instance_count(document):
        raise invalid("An image set must keep at least one instance; delete the image set instead")


def selected(document: Document, sop_uids: Iterable[str]) -> Document:
    """Returns a document with some of the instances only.

    Raises:
        ServiceError: `ValidationException` if there is no such instance.
    """
    wanted = set(sop_uids)
    chosen = {
        series_uid: series
        | {"Instances": {uid: one for uid, one in series["Instances"].items() if uid in wanted}}
        for series_uid, series in document["Study"]["Series"].items()
    }
    study = document["Study"] | {
        "Series": {uid: series for uid, series in chosen.items() if series["Instances"]}
    }
    found = document | {"Study": study}
    if not wanted or instance_count(found) != len(wanted):
        raise invalid("copiableAttributes must name instances of the source image set")
    return found


def merged(target: Document, source: Document, *, force: bool) -> Document:
    """Returns a document with the instances of two.

    Raises:
        ServiceError: `ValidationException` if they disagree above the instances and `force` is not
            given, or if an instance is in both.
    """
    agreed = target["Patient"] == source["Patient"] and (
        target["Study"]["DICOM"] == source["Study"]["DICOM"]
    )
    all_series = dict(target["Study"]["Series"])
    for series_uid, series in source["Study"]["Series"].items():
        known = all_series.setdefault(series_uid, series | {"Instances": {}})
        agreed = agreed and known["DICOM"] == series["DICOM"]
        if known["Instances"].keys() & series["Instances"].keys():
            raise invalid("Both image sets have the same SOPInstanceUID; copy other instances")
        all_series[series_uid] = known | {"Instances": known["Instances"] | series["Instances"]}
    if not agreed and not force:
        raise invalid("The image sets disagree at the Patient, Study or Series level; use force")
    return target | {"Study": target["Study"] | {"Series": all_series}}


def instance_uids(given: Document) -> Iterator[str]:
    """Yields the UIDs of the instances in a document."""
    for series in given.get("Study", {}).get("Series", {}).values():
        yield from series.get("Instances", {})


def instance_count(document: Document) -> int:
    """Returns the number of instances in a document."""
    return sum(1 for _ in instance_uids(document))


def tags(document: Document) -> dict[str, Any]:
    """Returns `DICOMTags` as the document says them. What is absent or empty is `None`."""
    series = next(iter(document["Study"]["Series"].values()))
    levels = (
        (document["Patient"], PATIENT_LEVEL),
        (document["Study"], STUDY_LEVEL),
        (series, SERIES_LEVEL),
    )
    found: dict[str, Any] = {}
    for level, names in levels:
        for member, keyword in names.items():
            value = level["DICOM"].get(keyword)
            if isinstance(value, list):
                value = "\\".join(map(str, value))
            if member in INTEGERS and value is not None:
                value = int(value) if re.fullmatch(r" *[+-]?\d{1,9} *", str(value)) else None
            found[member] = value
    return found


def _keyed(levels: dict[str, Any], keyword: str) -> dict[str, Any]:
    """Returns series or instances under the UID that each of them has now.

    Raises:
        ServiceError: `ValidationException` if two have the same.
    """
    keyed = {str(one["DICOM"].get(keyword) or uid): one for uid, one in levels.items()}
    if len(keyed) < len(levels):
        raise invalid(f"Another one has this {keyword} already")
    return keyed


def _pairs(
    document: Document, given: Document
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yields each level of `given` as its name, its attributes, and the same place in a document.

    Raises:
        ServiceError: `ValidationException` if the document has no such series or instance.
    """
    yield "Patient", given.get("Patient", {}).get("DICOM", {}), document["Patient"]
    study = given.get("Study", {})
    yield "Study", study.get("DICOM", {}), document["Study"]
    for series_uid, series in study.get("Series", {}).items():
        known = document["Study"]["Series"].get(series_uid)
        if known is None:
            raise invalid("The image set has no series with this SeriesInstanceUID")
        yield "Series", series.get("DICOM", {}), known
        for sop_uid, instance in series.get("Instances", {}).items():
            if sop_uid not in known["Instances"]:
                raise invalid("The series has no instance with this SOPInstanceUID")
            yield "Instance", instance.get("DICOM", {}), known["Instances"][sop_uid]


def _has_form(given: Document) -> bool:
    """Returns whether all levels that are there are objects, and have known members only."""
    patient, study = given.get("Patient", {}), given.get("Study", {})
    if not _is_level(patient, "DICOM") or not _is_level(study, "DICOM", "Series"):
        return False
    return all(
        _is_level(series, "DICOM", "Instances")
        and all(_is_level(one, "DICOM") for one in series.get("Instances", {}).values())
        for series in study.get("Series", {}).values()
    )


def _is_level(level: object, *members: str) -> bool:
    return (
        isinstance(level, dict)
        and not level.keys() - set(members)
        and all(isinstance(value, dict) for value in level.values())
    )


def _check(level: str, keyword: str, value: Any, *, force: bool) -> None:
    """Checks one attribute against the constraints.

    Raises:
        ServiceError: `ValidationException`, which names the attribute if it is a keyword of DICOM.
    """
    if _PRIVATE.fullmatch(keyword):
        if level != "Instance" or not force:
            raise invalid("Private elements change with force only, and at the instance level")
        return
    tag = tag_for_keyword(keyword)
    if tag is None:
        if not force:
            raise invalid("An attribute is not in the DICOM standard; use force")
        return
    if keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        raise invalid(f"{keyword} cannot be updated")
    if any(keyword in known for name, known in _OF_LEVEL.items() if name != level):
        raise invalid(f"{keyword} belongs to another level than {level}")
    if force:
        return
    vr = dictionary_VR(tag)
    if keyword in _ONLY_FORCED:
        raise invalid(f"{keyword} changes with force only")
    if vr == "SQ" or isinstance(value, list | dict):
        raise invalid(f"{keyword} is a sequence or has several values, and changes with force only")
    if isinstance(value, str):
        try:
            validate_value(vr, value, config.RAISE)
        except ValueError:
            raise invalid(f"The value does not fit the VR of {keyword}; use force") from None
