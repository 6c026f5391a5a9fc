"""Times: the service's epoch seconds, and DICOM's dates and times as sortable integers.

It reads and writes timestamps in wire form, and decides whether a study date is usable. See
`service.search` for the rows that a date matches.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

UNSORTABLE = -1
"""The sort key of a row without a usable time. It is lower than every real key."""

DAY_US = 86_400_000_000

_DA = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_TM = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)


def to_wire(moment_ms: int) -> str:
    """Returns a moment as the service writes it: epoch seconds with millisecond precision."""
    return f"{moment_ms // 1000}.{moment_ms % 1000:03d}"


def seconds(moment_ms: int) -> float:
    """Returns a moment as the number of epoch seconds in a JSON answer."""
    return moment_ms / 1000


def from_wire(value: object) -> int:
    """Returns epoch seconds as milliseconds, or `UNSORTABLE` for an unusable number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNSORTABLE
    return round(value * 1000)


def from_iso8601(text: str) -> int:
    """Returns an ISO 8601 time as milliseconds since the epoch. Without a zone it is UTC.

    Raises:
        ValueError: If the text is not an ISO 8601 date or time.
    """
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def day_number(text: object) -> int | None:
    """Returns the Gregorian ordinal of a DICOM DA value, or `None` if it is not a real date."""
    match = _DA.fullmatch(text.strip(" ")) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])).toordinal()
    except ValueError:
        return None


def time_of_day_us(text: object) -> int | None:
    """Returns a DICOM TM value as microseconds after midnight; `None` if it is not a real time."""
    match = _TM.fullmatch(text.strip(" ")) if isinstance(text, str) else None
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    # PS3.5 section 6.2 allows 60 seconds in a TM value, for the leap second.
    if hour > 23 or minute > 59 or second > 60:
        return None
    return (hour * 3600 + minute * 60 + second) * 1_000_000 + int((match[4] or "0").ljust(6, "0"))


def study_key(study_date: object, study_time: object) -> int:
    """Returns the sort key of a study's date and time, in microseconds since the year 1.

    An absent or unreadable study time counts as 00:00. If the date is unreadable, the key is
    `UNSORTABLE`.
    """
    day = day_number(study_date)
    if day is None:
        return UNSORTABLE
    return day * DAY_US + (time_of_day_us(study_time) or 0)
