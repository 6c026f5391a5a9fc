"""How one DICOM text is read: its canonical value, a date, a time (PS3.5 section 6.2).

One entity has one spelling, whoever sent it. By the standard, spaces around a value and a NUL at
the end of a UID are not part of it. Senders also leave a backslash at the end, or send the same
value twice. Only this module removes all of that. `flatten` reads whole columns by these rules,
`dicom_terms` reads coded values, and `healthimaging` reads the dates that it pages by.

The canonical value, by VR:

- all: the text is split at each backslash; blanks around each value are taken off; empty values
  and repeated ones are dropped; the others are joined again. Where nothing is left, the value is
  missing.
- CS: also in upper case.
- PN: also without blanks around each component, and without empty components and groups at the end.
- DA and TM: the one date or time that is left.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from datetime import date, time
from typing import Any, TypeVar

V = TypeVar("V")

PADDING = " \0"
"""What may surround a value without being part of it. NUL is for UI; some send it with others."""

SEPARATOR = "\\"
"""What stands between the values of an attribute that has several."""

# DA is YYYYMMDD; YYYY.MM.DD is ACR-NEMA's way, which readers shall accept (PS3.5 6.2 note).
_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
# TM is HH, HHMM, HHMMSS or HHMMSS.F to .FFFFFF; HH:MM:SS.FFFFFF is ACR-NEMA's way.
_TM = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_TM_COLONS = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?", re.ASCII)
# DS and IS, of whatever length.
_NUMBER = re.compile(
    rf"[{PADDING}]*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)[{PADDING}]*", re.ASCII
)


def distinct_values(text: str) -> list[str]:
    """Return the values in a text, without blanks around them, each once, in the order sent."""
    values = (value.strip(PADDING) for value in text.split(SEPARATOR))
    return list(dict.fromkeys(value for value in values if value))


@functools.lru_cache(maxsize=2**16)
def canonical_text(vr: str, text: str) -> str | None:
    r"""Return the canonical value of a text.

    Args:
        vr: Its value representation: LO, SH, PN, CS or UI.
        text: The text as sent.

    Returns:
        The value, or None where the text holds none.

    >>> canonical_text("LO", " P1 ")
    'P1'
    >>> canonical_text("CS", "ct\\CT")
    'CT'
    """
    values = distinct_values(text)
    if vr == "CS":  # upper() turns some other letters into plain ones, such as the dotless i
        values = [value.upper() if value.isascii() else value for value in values]
    elif vr == "PN":
        values = [_name(value) for value in values]
    return SEPARATOR.join(dict.fromkeys(value for value in values if value)) or None


def holds_value_sql(column: str) -> str:
    """Return SQL that tells whether a text as sent holds a value. It is null for null."""
    return f"trim({column}, ' ' || chr(0) || '{SEPARATOR}') <> ''"


@functools.lru_cache(maxsize=2**16)  # the same dates come in every batch
def read_da(text: str) -> tuple[date | None, str | None]:
    """Read a date.

    Args:
        text: A DA value as sent.

    Returns:
        The date, or None for a text that is not a date, such as `20240230`. Then the text, or
        None where the date gives it back, because it is written YYYYMMDD.
    """
    value = _only(map(_date, distinct_values(text)))
    is_canonical = value is not None and f"{value.year:04d}{value:%m%d}" == text
    return value, None if is_canonical else text


def read_tm(text: str) -> tuple[time | None, str | None]:
    """Read a time.

    Args:
        text: A TM value as sent.

    Returns:
        The time, or None for a text that is not a time, such as second 60 (a leap second).
        Then the text.
    """
    return _only(map(_time, distinct_values(text))), text


def _only(values: Iterable[V]) -> V | None:
    """Return the only value of a text, or None if it has two different ones."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _date(text: str) -> date | None:
    match = _DA.fullmatch(text)
    if not match:
        return None
    try:
        return date(*(int(part) for part in match.groups() if part is not None))
    except ValueError:
        return None


def _time(text: str) -> time | None:
    match = _TM.fullmatch(text) or _TM_COLONS.fullmatch(text)
    if not match:
        return None
    hours, minutes, seconds, fraction = match.groups(default="0")
    try:
        return time(int(hours), int(minutes), int(seconds), int(fraction.ljust(6, "0")))
    except ValueError:
        return None


def _name(value: str) -> str:
    """Return a person's name without blanks and empty parts."""
    groups = (
        "^".join(part.strip(PADDING) for part in group.split("^")).rstrip("^")
        for group in value.split("=")
    )
    return "=".join(groups).rstrip("=")


def number_of(value: Any) -> float | None:
    """Return a number that was sent as one or as text, such as DS and IS; None for all else.

    Digits are those of ASCII, as DICOM wants them: `float` takes others, and underscores.
    """
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        value = found[1] if found else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
