"""Checks the values that a condition compares with a column against the type of the column.

No other module decides which Python or YAML value fits which type. Nothing is guessed: YAML reads
`0123` as a number and `NO` as false. A database that casts them to text, or the text to a number,
finds other patients. A value of another kind is refused. The message names the column, and never
the value.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import TypeAlias

import pyarrow as pa

from cohortlake.cohort.define.steps import Value
from cohortlake.errors import BadCondition, InstantError
from cohortlake.instants import instant

Parameter: TypeAlias = Value | time
"""The parameter that DuckDB gets for a value."""

_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{4})(\d{2})(\d{2})", re.ASCII)
_TIME = re.compile(r"(\d{2}):?(\d{2}):?(\d{2})(\.\d{1,6})?|(\d{2}):(\d{2})", re.ASCII)
_AS_DATE = (
    "write a date as 2024-01-31 or '20240131', without a time of day and a time zone, or a span of "
    "study dates as study_date_in='2024'"
)
_IN_SQL = 'compare it in SQL, as in where("age_at_study_years >= 50")'
_GREATEST = 2**63
"""Whole numbers of a column are below it."""


def parameter(column: str, type_: pa.DataType, value: Value) -> Parameter:
    """Return the parameter that a column is compared with; of a list, its items are.

    Args:
        column: Its name.
        type_: Its type.
        value: The value as it was given, not None.

    Raises:
        BadCondition: The value is of another kind than the column.
    """
    name, read, remedy = _kind(value_type(type_))
    found = read(value)
    if found is None:
        raise BadCondition(f"{column} holds {name}, and a value given is something else: {remedy}")
    return found


def value_type(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values that a column of a type holds: a list's items, a category."""
    while pa.types.is_dictionary(type_) or pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
    return type_


def is_text(type_: pa.DataType) -> bool:
    """Return whether values of a type are text."""
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )


def is_list(type_: pa.DataType) -> bool:
    """Return whether each value of a column of a type is a list."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def read_day(text: str) -> date | None:
    """Read a day as ISO 8601 (2024-01-31) or DICOM (20240131) writes it; None where it is none."""
    if found := _DAY.fullmatch(text):
        with contextlib.suppress(ValueError):
            year, month, day = (int(part) for part in found.groups() if part)
            return date(year, month, day)
    return None


_Kind: TypeAlias = tuple[str, Callable[[Value], Parameter], str]
"""What the column holds, the function that reads a value of it, and what to write instead."""


def _kind(type_: pa.DataType) -> _Kind:
    if is_text(type_):
        return "text", _text, "quote it, as in '0123'"
    if pa.types.is_boolean(type_):
        return "true and false", _truth, "write true or false, without quotes"
    if pa.types.is_integer(type_):
        return "whole numbers", _whole, f"write a whole number without quotes, or {_IN_SQL}"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "numbers", _number, f"write a number without quotes, or {_IN_SQL}"
    if pa.types.is_date(type_):
        return "dates", _day, _AS_DATE
    if pa.types.is_time(type_):
        return "times of day", _time, "write a time in quotes, as '10:15:00'"
    if pa.types.is_timestamp(type_):
        has_zone = type_.tz is not None
        read = _instant if has_zone else _local
        return (
            "instants",
            read,
            "write a date as 2024-01-31, or an instant as '2024-01-31T10:15:00Z'",
        )
    return "neither text, numbers nor times", lambda _: None, "write a condition in SQL"


def _text(value: Value) -> Parameter:
    return value if isinstance(value, str) else None


def _truth(value: Value) -> Parameter:
    return value if isinstance(value, bool) else None


def _number(value: Value) -> Parameter:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Value) -> Parameter:
    number = _number(value)
    if isinstance(number, float):
        number = int(number) if number.is_integer() else None
    return number if isinstance(number, int) and -_GREATEST <= number < _GREATEST else None


def _day(value: Value) -> Parameter:
    if isinstance(value, datetime):
        return value.date() if value.tzinfo is None and value.time() == time() else None
    if isinstance(value, str):
        return read_day(value)
    return value if isinstance(value, date) else None


def _time(value: Value) -> Parameter:
    if isinstance(value, str) and _TIME.fullmatch(value):
        with contextlib.suppress(ValueError):
            return time.fromisoformat(value)
    return None


def _instant(value: Value) -> Parameter:
    if isinstance(value, str):
        with contextlib.suppress(InstantError):
            return instant(value)
        return None
    return instant(value) if isinstance(value, date) else None


def _local(value: Value) -> Parameter:
    """Read a time that has no zone, for a column that has none."""
    found = _instant(value)
    return found.replace(tzinfo=None) if isinstance(found, datetime) else None
