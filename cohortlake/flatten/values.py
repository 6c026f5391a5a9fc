"""Parsers of dates, times and integers (VR DA, TM and IS; PS3.5 section 6.2).

Each parser takes an Arrow array of texts as sent, and returns the typed array and the raw texts. A
raw text is kept only where the typed value does not give it back: it could not be parsed, or it is
not written in the canonical way. So both together always reproduce what was sent. See
`flatten.canonical` for texts, and `flatten.table` for how pages become arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.dicom_values import SEPARATOR, read_da, read_tm

T = TypeVar("T", bound=tuple[date | time | None, str | None])

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_PLAIN_TM = r"^[0-9]{6}(\.[0-9]{1,6})?$"


class Parsed(NamedTuple):
    """A typed column, and the raw text where the value does not give it back."""

    value: pa.Array
    raw: pa.Array


def parse_da(texts: pa.Array) -> Parsed:
    """Parse dates into date32. `20240230` is not a date: it becomes null, and the text is kept."""
    return _by_distinct(texts, read_da, pa.date32())


def parse_tm(texts: pa.Array) -> Parsed:
    """Parse times into time64[us]. Python has no second 60 (a leap second): the text is kept."""
    plain = _plain_times(texts)
    is_done = pc.or_(pc.is_valid(plain.value), pc.is_null(texts))
    if pc.all(is_done).as_py() is not False:
        return plain
    odd = _by_distinct(pc.if_else(is_done, None, texts), read_tm, pa.time64("us"))
    return Parsed(pc.coalesce(plain.value, odd.value), pc.coalesce(odd.raw, plain.raw))


def parse_is(integers: pa.Array) -> Parsed:
    """Narrow integers to int32, the range of IS. A number outside it is kept as text."""
    fits = pc.and_(pc.greater_equal(integers, INT32_MIN), pc.less_equal(integers, INT32_MAX))
    value = pc.if_else(fits, integers, None).cast(pa.int32())
    raw = pc.if_else(pc.invert(fits), integers.cast(pa.string()), None)
    return Parsed(value, raw)


def name_parts(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return family and given name of the first component group that has any.

    Takes canonical names, see `flatten.canonical`.

    PN is `family^given^middle^prefix^suffix`, in up to three groups parted by `=`:
    alphabetic, ideographic, phonetic (PS3.5 section 6.2.1).
    """
    encoded = pc.dictionary_encode(names)
    parts = [_split_name(text) for text in encoded.dictionary.to_pylist()]
    family, given = (
        pa.array([part[i] for part in parts], pa.string()).take(encoded.indices) for i in (0, 1)
    )
    return family, given


def _by_distinct(texts: pa.Array, parse: Callable[[str], T], typ: pa.DataType) -> Parsed:
    """Parse each distinct text once, because dates and odd times repeat often."""
    encoded = pc.dictionary_encode(texts)
    parsed = [parse(text) for text in encoded.dictionary.to_pylist()]
    value, raw = zip(*parsed, strict=True) if parsed else ((), ())
    return Parsed(
        pa.array(value, typ).take(encoded.indices),
        pa.array(raw, pa.string()).take(encoded.indices),
    )


def _plain_times(texts: pa.Array) -> Parsed:
    """Parse HHMMSS and HHMMSS.F to .FFFFFF by columns. All other texts stay null."""
    plain = pc.if_else(pc.match_substring_regex(texts, _PLAIN_TM), texts, None)
    hours, minutes, seconds = (_digits(plain, start, start + 2) for start in (0, 2, 4))
    fraction = pc.utf8_rpad(pc.utf8_slice_codeunits(plain, 7), 6, "0").cast(pa.int64())
    whole = pc.add(pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60), seconds)
    microseconds = pc.add(pc.multiply(whole, 1_000_000), fraction)
    is_time = pc.and_(pc.less(hours, 24), pc.and_(pc.less(minutes, 60), pc.less(seconds, 60)))
    value = pc.if_else(is_time, microseconds, None).cast(pa.time64("us"))
    length = pc.utf8_length(plain)
    is_canonical = pc.or_(
        pc.equal(length, 6), pc.and_(pc.equal(length, 13), pc.greater(fraction, 0))
    )
    return Parsed(value, pc.if_else(pc.and_(pc.is_valid(value), is_canonical), None, plain))


def _digits(texts: pa.Array, start: int, stop: int) -> pa.Array:
    return pc.utf8_slice_codeunits(texts, start, stop).cast(pa.int64())


def _split_name(text: str) -> tuple[str | None, str | None]:
    for group in text.split(SEPARATOR)[0].split("="):
        family, given, *_ = [part or None for part in group.split("^")] + [None, None]
        if family or given:
            return family, given
    return None, None
