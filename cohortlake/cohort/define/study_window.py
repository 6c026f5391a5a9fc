"""Windows of study dates in words: "last 24 months of data", "2024", "2023-Q4 to 2024-Q3".

A window becomes two dates when a cohort is drawn. The criteria keep the dates and not the words,
so that the same criteria always mean the same days. Nothing here reads the clock.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta
from typing import Any

from cohortlake.cohort.define.numbers import NUMBER, number
from cohortlake.cohort.define.values import read_day
from cohortlake.errors import BadCriteria

KEYWORD = "study_date_in"
"""The word that takes a window in the place of a column: `where(study_date_in="2024")`."""

_LAST = re.compile(
    rf"(?:the )?last (?:(?P<number>{NUMBER}) )?(?P<unit>day|week|month|year)s?"
    r"(?P<of_data> of (?:the )?data)?"
)
_YEAR = re.compile(r"(\d{4})")
_QUARTER = re.compile(r"(\d{4})-?Q([1-4])")
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_TO = re.compile(r"\s+to\s+|\.\.")
_LONGEST_YEARS = 200
_FORMS = (
    "write 'last 24 months of data', '2024', '2024-Q3', '2024-03', or two of these or two dates, "
    "as '2024-01-15 to 2024-06-30'"
)


def counts_back(words: object) -> bool:
    """Return whether a window ends with the latest study, so that `read` needs its day."""
    found = _LAST.fullmatch(_text(words))
    return bool(found and found["of_data"])


def read(words: object, latest: date | None = None) -> tuple[date, date]:
    """Return the first and the last day of a window.

    Args:
        words: The window. A number is a year, and a date is one day.
        latest: The day of the latest study.

    Raises:
        BadCriteria: It is no window, ends before it begins, or there is no study to count from.
    """
    text = _text(words)
    if found := _LAST.fullmatch(text):
        if not found["of_data"]:
            raise BadCriteria(
                f"{KEYWORD}: say of what, as in 'last 24 months of data'. It counts back from the "
                "latest study of the lake, and never from today, so that a cohort does not "
                "depend on the day on which it is drawn"
            )
        if latest is None:
            raise BadCriteria(f"{KEYWORD}: no study has a date, so there is nothing to count from")
        return _back(latest, number(found["number"] or "1"), found["unit"]), latest
    parts = [_days(part) for part in _TO.split(text)]
    if not 1 <= len(parts) <= 2 or None in parts:
        raise BadCriteria(f"{KEYWORD} is no window of study dates that can be read; {_FORMS}")
    known = [days for days in parts if days]
    first, last = known[0][0], known[-1][1]
    if first > last:
        raise BadCriteria(f"{KEYWORD}: the earlier date comes first")
    return first, last


def _text(words: object) -> str:
    return " ".join(str(words).split()) if isinstance(words, str | int | date) else ""


def _back(latest: date, count: int, unit: str) -> date:
    """Return the first day of so many units that end with a day."""
    years = {"day": 1 / 366, "week": 1 / 53, "month": 1 / 12, "year": 1}[unit] * count
    if not 0 < years <= _LONGEST_YEARS:
        raise BadCriteria(f"{KEYWORD}: give a number above 0; {_LONGEST_YEARS} years is the most")
    days = count * {"day": 1, "week": 7}.get(unit, 0)
    months = count * {"month": 1, "year": 12}.get(unit, 0)
    year, month = divmod(12 * latest.year + latest.month - 1 - months, 12)
    if year <= _LONGEST_YEARS:
        return date.min
    last_of_month = calendar.monthrange(year, month + 1)[1]
    before = date(year, month + 1, min(latest.day, last_of_month))
    return before - timedelta(days=days) + timedelta(days=1)


def _days(text: str) -> tuple[date, date] | None:
    """Return the first and the last day of a year, a quarter, a month or a day."""
    try:
        if found := _YEAR.fullmatch(text):
            return _months(int(found[1]), 1, 12)
        if found := _QUARTER.fullmatch(text.upper()):
            end = 3 * int(found[2])
            return _months(int(found[1]), end - 2, end)
        if found := _MONTH.fullmatch(text):
            return _months(int(found[1]), int(found[2]), int(found[2]))
    except ValueError:
        return None
    day = read_day(text)
    return (day, day) if day else None


def _months(year: int, first: int, last: int) -> tuple[date, date]:
    first_day = date(year, first, 1)
    return first_day, date(year, last, calendar.monthrange(year, last)[1])


def sql(column: str, windows: Any) -> str:
    """Return a condition for whether a date lies in one of some windows."""
    parts = [f"{column} BETWEEN '{first}' AND '{last}'" for first, last in windows]
    return " OR ".join(parts)
