"""Times: the service's epoch seconds, and DICOM's dates and times as sortable integers.

It owns how a timestamp is written and read on the wire and what makes a study date usable. Which
rows a date matches is for `search`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

UNSORTABLE = -1
"""The sort key of what has no usable time; it lies before every real key."""

DAY_US = 86_400_000_000

_DA = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_TM = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)


def to_wire(moment_ms: int) -> str:
    """Writes a moment as the service does: epoch seconds with millisecond precision."""
    return f"{moment_ms // 1000}.{moment_ms % 1000:03d}"


def seconds(moment_ms: int) -> float:
    """A moment as the number that stands for it in a JSON answer."""
    return moment_ms / 1000


def from_wire(value: object) -> int:
    """Reads epoch seconds into milliseconds; `UNSORTABLE` when it is no usable number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return UNSORTABLE
    return round(value * 1000)


def from_iso8601(text: str) -> int:
    """Reads an ISO 8601 time into milliseconds since the epoch; without a zone it is UTC.

    Raises:
        ValueError: If the text is no ISO 8601 date or time.
    """
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def day_number(text: object) -> int | None:
    """The proleptic Gregorian ordinal of a DICOM DA value, or `None` if it is not a real date."""
    match = _DA.fullmatch(text.strip(" ")) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])).toordinal()
    except ValueError:
        return None


def time_of_day_us(text: object) -> int | None:
    """The microseconds after midnight of a DICOM TM value, or `None` if it is not a real time."""
    match = _TM.fullmatch(text.strip(" ")) if isinstance(text, str) else None
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[2] or 0), int(match[3] or 0)
    # PS3.5 section 6.2 lets a TM's seconds reach 60, for the leap second.
    if hour > 23 or minute > 59 or second > 60:
        return None
    return (hour * 3600 + minute * 60 + second) * 1_000_000 + int((match[4] or "0").ljust(6, "0"))


def study_key(study_date: object, study_time: object) -> int:
    """The sort key of a study's date and time, in microseconds since the calendar began.

    A study time that cannot be read counts as 00:00, as an absent one does; a date that cannot be
    read makes the whole study `UNSORTABLE`.
    """
    day = day_number(study_date)
    if day is None:
        return UNSORTABLE
    return day * DAY_US + (time_of_day_us(study_time) or 0)
