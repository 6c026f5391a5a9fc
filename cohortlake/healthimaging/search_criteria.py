"""`searchCriteria`, parsed from text that a person types.

The API takes one or two filters, EQUAL on one value or BETWEEN two, over the attributes
below. Both the service's names and the DICOM keywords are understood. A date without a time
is its whole day, which the service would take for the midnight at which it begins.
Source: SearchImageSets in the API reference, shape SearchByAttributeValue.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from cohortlake.errors import SettingError, did_you_mean
from cohortlake.schema import DICOM_TAGS

_INSTANTS = ("createdAt", "updatedAt")
_STUDY = "DICOMStudyDateAndTime"
_SORTABLE = (*_INSTANTS, _STUDY)
_TEXTS = (
    "DICOMPatientId",
    "DICOMAccessionNumber",
    "DICOMStudyId",
    "DICOMStudyInstanceUID",
    "DICOMSeriesInstanceUID",
)
ATTRIBUTES = (*_TEXTS, *_SORTABLE, "isPrimary")
"""The attributes that can be searched. Modality, body part, name and sex are not among them."""

_BY_KEYWORD = {c.name: c.wire for c in DICOM_TAGS} | {"StudyDate": _STUDY}
_NAMES = {name: name for name in ATTRIBUTES} | {
    keyword: member for keyword, member in _BY_KEYWORD.items() if member in ATTRIBUTES
}
_MOST_FILTERS = 2


def parse_criteria(
    equal: Sequence[str], between: Sequence[str], sort: str | None = None
) -> dict[str, Any]:
    """Return criteria for filters as text.

    Args:
        equal: Each `ATTRIBUTE=VALUE`; a date becomes the range of its day.
        between: Each `ATTRIBUTE=FROM..TO`; a date as TO is in it to its last instant.
        sort: `updatedAt`, `createdAt` or `DICOMStudyDateAndTime`, with `:DESC` for descending.

    Raises:
        SettingError: The service does not take it; the message says what it takes.
    """
    filters = [_filter("EQUAL", text) for text in equal]
    filters += [_filter("BETWEEN", text) for text in between]
    if not 1 <= len(filters) <= _MOST_FILTERS:
        raise SettingError(
            f"a search takes one or two filters, not {len(filters)}; "
            "add --equal ATTRIBUTE=VALUE or --between ATTRIBUTE=FROM..TO"
        )
    return {"filters": filters} | ({"sort": _sort(sort)} if sort else {})


def _filter(operator: str, text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    form = "ATTRIBUTE=VALUE" if operator == "EQUAL" else "ATTRIBUTE=FROM..TO"
    if not equals:
        raise SettingError(f"a filter is written {form}")
    attribute = _attribute(name.strip(), _NAMES)
    parts = [value] if operator == "EQUAL" else value.split("..")
    if attribute not in _TEXTS:  # a text is sent as it is given: blanks may be part of an id
        parts = [part.strip() for part in parts]
    if operator == "BETWEEN" and len(parts) != 2:
        raise SettingError(f"a range of {attribute} is written {form}")
    if operator == "EQUAL" and attribute in _SORTABLE and _day(parts[0]):
        operator, parts = "BETWEEN", parts * 2
    ends = (time.min, time.max)
    return {
        "operator": operator,
        "values": [
            {attribute: _value(attribute, part, end)}
            for part, end in zip(parts, ends, strict=False)
        ],
    }


def _attribute(name: str, known: dict[str, str]) -> str:
    if name not in known:
        raise SettingError(
            f"{name!r} cannot be searched for{did_you_mean(name, known)} "
            f"(the service takes {', '.join(known)})"
        )
    return known[name]


def _day(text: str) -> date | None:
    with contextlib.suppress(ValueError):
        return date.fromisoformat(text)
    return None


def _value(attribute: str, text: str, end_of_day: time) -> Any:
    if attribute in _TEXTS:
        return text
    if attribute == "isPrimary":
        if text not in ("true", "false"):
            raise SettingError("isPrimary is true or false")
        return text == "true"
    day = _day(text)
    try:
        instant = datetime.combine(day, end_of_day) if day else datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(
            f"{attribute} takes dates and times like 2024-01-31 or 2024-01-31T13:45:00"
        ) from None
    if attribute == _STUDY:
        if instant.tzinfo:
            raise SettingError(
                "a study's date and time are the modality's local ones and have no zone; leave "
                "the offset (or Z) out"
            )
        # Not %Y, which writes the year 1 as "1".
        day_text = f"{instant.year:04d}{instant:%m%d}"
        return {"DICOMStudyDate": day_text, "DICOMStudyTime": f"{instant:%H%M%S.%f}"}
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _sort(text: str) -> dict[str, str]:
    name, _, order = text.partition(":")
    order = order.upper() or "ASC"
    if order not in ("ASC", "DESC"):
        raise SettingError("a sort order is ASC or DESC, as in updatedAt:DESC")
    sortable = {name: member for name, member in _NAMES.items() if member in _SORTABLE}
    return {"sortField": _attribute(name, sortable), "sortOrder": order}
