"""Reads the typed columns of `series_headers` out of compact headers.

A value that is not what its VR asks for is null, and the row names its column: the header keeps it
as it was sent. What senders often get wrong is read where it has one meaning only: numbers with
blanks or too many digits, integers written with a decimal point, one value sent several times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from cohortlake.dicom_values import PADDING, SEPARATOR, canonical_text, number_of
from cohortlake.headers.compact import CompactHeader, Differing
from cohortlake.schema import header_columns
from cohortlake.schema.header_columns import HeaderColumn

_STANDARD_UIDS = "1.2.840.10008."
_CONTRAST = ("ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusVolume")
_STANDARD = ("SOPClassUID", "TransferSyntaxUID")
_decode = msgspec.json.Decoder(CompactHeader).decode

SCHEMA = pa.schema([pa.field(c.name, c.type) for c in header_columns.COLUMNS])


def read(headers: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the columns of some headers.

    Args:
        headers: Rows of a file of `headers/`, each with a header.

    Returns:
        One row for each, with the columns of `header_columns.COLUMNS`.
    """
    return pa.Table.from_pylist([_row(header) for header in headers], SCHEMA)


def _row(stored: Mapping[str, Any]) -> dict[str, Any]:
    header = _decode(stored["header"])
    values, differing = _values_of(header), header.differing
    row: dict[str, Any] = {}
    invalid: list[str] = []
    for each in header_columns.FROM_ATTRIBUTES:
        name, keyword = each.column.name, each.path[0]
        if keyword in differing:
            if each.spread:
                row |= _spread(each, differing[keyword])
                if row[f"{name}_min"] is None:
                    invalid.append(name)
        elif keyword in values:
            sent = _inside(values[keyword], each.path[1:])
            if not _is_blank(sent):
                row[name] = value = _typed(each, sent)
                if value is None and name not in _STANDARD:
                    invalid.append(name)
    if row.get("Laterality") is None:
        row["Laterality"] = _image_laterality(values)
    frames = [frame for instance in stored["instances"] for frame in instance["ImageFrames"]]
    sizes = [frame["FrameSizeInBytes"] for frame in frames]
    return row | {
        "has_contrast": any(name in differing or name in values for name in _CONTRAST),
        "instance_count": len(stored["instances"]),
        "frame_count": len(frames),
        "size_bytes": None if None in sizes else sum(sizes),
        "regularly_spaced_3d_volume": stored["regularly_spaced_3d_volume"],
        "not_regularly_spaced_because": stored["not_regularly_spaced_because"],
        "slice_spacing_mm": stored["slice_spacing_mm"],
        "invalid_fields": invalid,
    }


def _values_of(header: CompactHeader) -> dict[str, Any]:
    """Return what was sent for each attribute, of the lowest level that has a value."""
    levels = (header.study, header.series, header.frames, header.instances)
    return {name: v for level in levels for name, v in level.items() if not _is_blank(v)}


def _inside(value: Any, path: Sequence[str]) -> Any:
    """Return what the first items of sequences hold."""
    for keyword in path:
        item = value[0] if isinstance(value, list) and value else value
        value = item.get(keyword) if isinstance(item, Mapping) else None
    return value


def _is_blank(value: Any) -> bool:
    """Return whether nothing was sent: no value, or blanks only (PS3.5 section 7.4)."""
    if isinstance(value, str):
        return not value.strip(PADDING + SEPARATOR)
    return value is None or (isinstance(value, list) and all(map(_is_blank, value)))


def _image_laterality(values: Mapping[str, Any]) -> str | None:
    value = values.get("ImageLaterality") or values.get("FrameLaterality")
    return canonical_text("CS", value) if isinstance(value, str) else None


def _typed(each: HeaderColumn, value: Any) -> Any:
    if each.place is not None:
        values = _values(value)
        value = values[each.place] if len(values) == 2 else None
    read = _READ[str(each.column.vr)](value)
    if each.column.name in _STANDARD and not str(read).startswith(_STANDARD_UIDS):
        return None
    return read


def _spread(each: HeaderColumn, differing: Differing) -> dict[str, Any]:
    least, greatest = differing.minimum, differing.maximum
    name, read = each.column.name, _READ[str(each.column.vr)]
    if each.place is not None:
        pairs = [_values(least), _values(greatest)]
        is_pair = all(len(pair) == 2 for pair in pairs)
        least, greatest = (pair[each.place] for pair in pairs) if is_pair else (None, None)
    return {
        f"{name}_min": read(least),
        f"{name}_max": read(greatest),
        f"{name}_n_distinct": differing.distinct,
    }


def _values(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(SEPARATOR)
    return value if isinstance(value, list) else [value]


def _only(value: Any) -> float | None:
    """Return the number that all values of an attribute have. Blank ones count as not sent."""
    numbers = {number_of(each) for each in _values(value) if not _is_blank(each)}
    return numbers.pop() if len(numbers) == 1 else None


def _integer(value: Any) -> int | None:
    number = _only(value)
    is_whole = number is not None and number.is_integer() and abs(number) < 2**53
    return int(number) if is_whole and number is not None else None


def _text(vr: str) -> Callable[[Any], str | None]:
    def read(value: Any) -> str | None:
        values = value if isinstance(value, list) else [value]
        values = [each for each in values if not _is_blank(each)]
        if not all(isinstance(each, str) for each in values):
            return None
        return canonical_text(vr, SEPARATOR.join(values))

    return read


_READ: dict[str, Callable[[Any], Any]] = {
    "DS": _only,
    "FD": _only,
    "FL": _only,
    "IS": _integer,
    "US": _integer,
    "CS": _text("CS"),
    "LO": _text("LO"),
    "SH": _text("SH"),
    "UI": _text("UI"),
}
