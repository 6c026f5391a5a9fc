"""One parser per DICOM value representation (PS3.5 section 6.2).

Each takes what the service sent as an Arrow array and returns the typed array and the
raw text. The raw text is kept exactly where the typed value cannot give it back: it could
not be parsed, or it was written in another way than the canonical one. So the two
together always reproduce what was sent. How pages become arrays is `flatten.table`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, time
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T", date, time)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# DA is YYYYMMDD; YYYY.MM.DD is ACR-NEMA's way, which readers shall accept (PS3.5 6.2 note).
_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
# TM is HH, HHMM, HHMMSS or HHMMSS.F to .FFFFFF; HH:MM:SS.FFFFFF is ACR-NEMA's way.
_TM = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_TM_COLONS = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?", re.ASCII)


class Parsed(NamedTuple):
    """A typed column, and the raw text wherever the value cannot give it back."""

    value: pa.Array
    raw: pa.Array


def parse_da(texts: pa.Array) -> Parsed:
    """Parse dates into date32. `20240230` is no date: null, with the text kept."""
    return _by_distinct(texts, _date, _canonical_date, pa.date32())


def parse_tm(texts: pa.Array) -> Parsed:
    """Parse times into time64[us]. Seconds of 60 (a leap second) are no `time`: kept as text."""
    return _by_distinct(texts, _time, _canonical_time, pa.time64("us"))


def parse_is(integers: pa.Array) -> Parsed:
    """Narrow integers to int32, the range of IS. What lies outside is kept as text."""
    fits = pc.and_(pc.greater_equal(integers, INT32_MIN), pc.less_equal(integers, INT32_MAX))
    value = pc.if_else(fits, integers, None).cast(pa.int32())
    raw = pc.if_else(pc.invert(fits), integers.cast(pa.string()), None)
    return Parsed(value, raw)


def name_parts(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return family and given name of the first component group that has any.

    PN is `family^given^middle^prefix^suffix`, in up to three groups parted by `=`:
    alphabetic, ideographic, phonetic (PS3.5 section 6.2.1).
    """
    encoded = pc.dictionary_encode(names)
    parts = [_split_name(text) for text in encoded.dictionary.to_pylist()]
    family, given = (
        pa.array([part[i] for part in parts], pa.string()).take(encoded.indices) for i in (0, 1)
    )
    return family, given


def _by_distinct(
    texts: pa.Array,
    parse: Callable[[str], T | None],
    canonical: Callable[[T], str],
    typ: pa.DataType,
) -> Parsed:
    """Parse each distinct text once; dates and times repeat a great deal."""
    encoded = pc.dictionary_encode(texts)
    distinct = encoded.dictionary.to_pylist()
    values = [parse(text) for text in distinct]
    raws = [
        None if value is not None and canonical(value) == text else text
        for text, value in zip(distinct, values, strict=True)
    ]
    return Parsed(
        pa.array(values, typ).take(encoded.indices),
        pa.array(raws, pa.string()).take(encoded.indices),
    )


def _date(text: str) -> date | None:
    match = _DA.fullmatch(text.strip(" "))
    if not match:
        return None
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _time(text: str) -> time | None:
    stripped = text.strip(" ")
    match = _TM.fullmatch(stripped) or _TM_COLONS.fullmatch(stripped)
    if not match:
        return None
    hours, minutes, seconds, fraction = match.groups(default="0")
    try:
        return time(int(hours), int(minutes), int(seconds), int(fraction.ljust(6, "0")))
    except ValueError:
        return None


def _canonical_date(value: date) -> str:
    return f"{value.year:04d}{value:%m%d}"


def _canonical_time(value: time) -> str:
    return value.strftime("%H%M%S") + (f".{value.microsecond:06d}" if value.microsecond else "")


def _split_name(text: str) -> tuple[str | None, str | None]:
    for group in text.split("="):
        family, given, *_ = [part.strip() or None for part in group.split("^")] + [None, None]
        if family or given:
            return family, given
    return None, None
