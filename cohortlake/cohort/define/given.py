"""Reads the values that people give in Python, and returns plain ones for a condition.

pandas, NumPy, Arrow and Polars have types of their own for text, numbers, days and missing values.
Criteria are data, so they hold plain values only. All values given in Python come through here; see
`values` for which value fits which column. No message holds a value.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np

from cohortlake.cohort.define.steps import Condition, Split, Value
from cohortlake.errors import BadCondition, BadCriteria

_MOST_OF_RANGE = 10_000
_MISSING = ("NAType", "NaTType")
"""The types of `pandas.NA` and `pandas.NaT`. pandas is not imported to ask; see `flatten.frame`."""
_SPANS = ("Interval", "Period")
_COARSE = frozenset(("generic", "Y", "M", "W"))
"""Units of numpy.datetime64 that name no single day, and the unit of a NaT that has none."""
_RANKS: dict[type, int] = {bool: 0, int: 1, float: 1, str: 2, date: 3, datetime: 4, type(None): 5}


def label(text: str, joined: Iterable[Iterable[str]]) -> str:
    """Return the label of a step.

    Args:
        text: The label; may be empty.
        joined: The columns of each table that the cohort joins.

    Raises:
        BadCriteria: A joined table has a column `label`, which may be meant instead.
    """
    if text and any("label" in columns for columns in joined):
        raise BadCriteria(
            "`label` is the text of the step here, and a column of a joined table: for the "
            "column write a condition in SQL, as \"label = 'x'\"; for the text use a YAML file"
        )
    return text


def split(seed: object, parts: Mapping[str, object]) -> Split:
    """Return the split that somebody wrote as arguments in Python.

    Args:
        seed: Its seed.
        parts: Part -> its share, or what its patients meet.

    Raises:
        BadCriteria: The shares do not add up to 1, or are no numbers.
        BadCondition: A condition is none.
    """
    held_out = {
        name: condition((), part) if isinstance(part, Mapping) else condition((part,), {})
        for name, part in parts.items()
        if isinstance(part, Mapping | str)
    }
    shares: Any = tuple(
        (name, plain(name, part)) for name, part in parts.items() if name not in held_out
    )
    number: Any = plain("seed", seed)  # `Split` checks their types
    return Split(shares, number, tuple(held_out.items()))


def condition(texts: Iterable[object], values: Mapping[str, object]) -> Condition:
    """Return the condition that somebody wrote as arguments in Python.

    Args:
        texts: Conditions in SQL.
        values: Column -> a value, or several of which a row has one.

    Raises:
        BadCondition: One of them is no condition or no value.
    """
    listed = tuple((column, several(column, given)) for column, given in values.items())
    return Condition(listed, tuple(_sql(text) for text in texts))


def several(column: str, given: object) -> tuple[Value, ...]:
    """Return the plain values of a value, or of several: a list, a set, a range, a Series.

    Args:
        column: The name of the column, for the error.
        given: One value, or anything with several. A value that occurs twice is returned once.

    Raises:
        BadCondition: It is neither.
    """
    if isinstance(given, range) and len(given) > _MOST_OF_RANGE:
        _refuse_span(column, "a range of so many numbers")
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given[()]
    if isinstance(given, Mapping):
        raise BadCondition(f"{column}: a mapping is no value; give a list of values")
    if hasattr(given, "columns"):
        raise BadCondition(
            f"{column}: a table is no value; give one column of it, as frame[{column!r}]"
        )
    if isinstance(given, str | bytes | np.generic) or not isinstance(given, Iterable):
        return (plain(column, given),)
    found = [plain(column, value) for value in given]
    if isinstance(given, Set):  # its order differs from one process to the next
        found.sort(key=_rank)
    return tuple({(type(value), value): value for value in found}.values())


def plain(column: str, given: object) -> Value:
    """Return one value as text, a number, true or false, a date, an instant, or None.

    None stands for a missing value, as do `pandas.NA`, `pandas.NaT` and a NaN. Midnight without a
    time zone is its date, and an instant is in UTC.

    Args:
        column: The name of the column, for the error.
        given: The value.

    Raises:
        BadCondition: It is of a type that no column holds.
    """
    if hasattr(given, "as_py"):  # an Arrow scalar
        given = given.as_py()
    if isinstance(given, np.generic):
        given = _of_numpy(column, given)
    if given is None or type(given).__name__ in _MISSING:
        return None
    if isinstance(given, bool):
        return given
    if isinstance(given, str):
        return str.__str__(given)
    if isinstance(given, int):
        return int(given)
    if isinstance(given, float | Decimal):
        return _number(column, given)
    if isinstance(given, datetime):
        return _instant(column, given)
    if isinstance(given, date):
        return date(given.year, given.month, given.day)
    if isinstance(given, time) and given.tzinfo is None:
        return given.isoformat()
    _refuse(column, given)


def _rank(value: Value) -> tuple[int, Any]:
    kind = type(value)
    return _RANKS[kind], str(value) if kind in (datetime, type(None)) else value


def _of_numpy(column: str, given: np.generic) -> object:
    if isinstance(given, np.datetime64) and not np.isnat(given):
        unit = np.datetime_data(given.dtype)[0]
        if unit in _COARSE:
            _refuse_span(column, "a month or a year")
        exact = given if unit == "D" else given.astype("datetime64[us]")
        if exact != given:
            _refuse_precision(column)
        return exact.item()  # of nanoseconds it would be a number
    return None if isinstance(given, np.datetime64) else given.item()


def _number(column: str, given: float | Decimal) -> Value:
    if given != given:  # a NaN
        return None
    number = float(given)
    if isinstance(given, Decimal) and given.is_finite():
        if given == given.to_integral_value():
            return int(given)
        if Decimal(repr(number)) != given:
            raise BadCondition(f"{column}: a number has more digits than a column holds; round it")
    return number


def _instant(column: str, given: datetime) -> Value:
    if getattr(given, "nanosecond", 0):
        _refuse_precision(column)
    at = datetime.combine(given.date(), given.time(), given.tzinfo)
    if at.tzinfo is None:
        return at.date() if at.time() == time() else at.replace(fold=0)
    with contextlib.suppress(OverflowError):
        return at.astimezone(UTC)
    raise BadCondition(f"{column}: an instant is before year 1 or after year 9999 in UTC")


def _sql(text: object) -> str:
    if isinstance(text, str):
        return str.__str__(text)
    if callable(text):
        what = "a function is no condition, because a cohort is stored as data: write"
    elif isinstance(text, Mapping):
        what = "a mapping is no condition: write where(Modality='CT'), or"
    elif isinstance(text, list | tuple | Set):
        what = "a list is no condition: give each condition as an argument of its own, as in"
    else:
        what = (
            f"a {type(text).__name__} is no condition, because a cohort must also select from rows "
            "that come later: write"
        )
    raise BadCondition(f'{what} a text over columns, where("age_at_study_years >= 50")')


def _refuse(column: str, given: object) -> NoReturn:
    if isinstance(given, slice) or type(given).__name__ in _SPANS:
        _refuse_span(column, type(given).__name__)
    if isinstance(given, re.Pattern):
        remedy = f"write a condition in SQL, \"regexp_matches({column}, '...')\""
    elif callable(given):
        remedy = f'a cohort is stored as data: write a value, or a condition in SQL, "{column} > 0"'
    elif isinstance(given, bytes):
        remedy = "decode it to text"
    else:
        remedy = "give text, a number, True, False, a date, an instant, None, or a list of these"
    kind = "a function" if callable(given) else type(given).__name__
    raise BadCondition(f"{column}: {kind} is no value; {remedy}")


def _refuse_span(column: str, what: str) -> NoReturn:
    raise BadCondition(
        f'{column}: {what} is no value; write a condition in SQL, "{column} between ... and ..."'
    )


def _refuse_precision(column: str) -> NoReturn:
    raise BadCondition(f"{column}: an instant is exact to microseconds; round it to these")
