"""Turns pages of summaries into one Arrow table with the columns of `schema.STATE`.

There are two ways, and a property test checks that both give the same rows:

- *by columns*: pyarrow's JSON reader with the expected schema. It refuses a batch with an unknown
  member or an unexpected JSON type.
- *by summaries*: one summary after the other in Python, for the rare batch that was refused. A
  member that the schema does not name, or of another JSON type, goes to `extra` as it was sent.

JSON null and an absent member mean the same. See `values` for how a text becomes a value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from cohortlake import schema
from cohortlake.epoch import epoch_seconds, is_instant
from cohortlake.flatten import values
from cohortlake.flatten.canonical import canonical_texts

# What the members are on the wire, before their values are parsed. Timestamps are epoch
# seconds; the service's integers fit int64.
_WIRE_TYPES = {
    schema.INSTANT: pa.float64(),
    pa.int32(): pa.int64(),
    pa.date32(): pa.string(),
    pa.time64("us"): pa.string(),
}
# Not `empty_table()`: that imports pandas, and whoever opens a lake imports this module.
_NO_STATES = pa.Table.from_batches([], schema.arrow_schema(schema.STATE))
_INT64 = range(-(2**63), 2**63)
_NULL = "\x1e"
# A text counts as it was sent, so that a release that reads it otherwise gives the same keys.
_TEXTS = {column.name: column.raw_name for column in schema.DICOM_TAGS if column.is_text}
_HASHED = [
    column.name
    for column in schema.STATE
    if column.name not in (*schema.VOLATILE, "state_key", *_TEXTS.values())
    and column not in schema.NAME_PARTS
]


def _wire_field(column: schema.Column) -> pa.Field:
    return pa.field(column.wire, _WIRE_TYPES.get(column.type, column.type))


_TAG_FIELDS = [_wire_field(column) for column in schema.DICOM_TAGS]
_SUMMARY = pa.struct(
    [
        *(_wire_field(c) for c in schema.SUMMARY_FIELDS),
        pa.field("DICOMTags", pa.struct(_TAG_FIELDS)),
    ]
)
_PAGE = pa.schema(
    [
        pa.field("imageSetsMetadataSummaries", pa.list_(_SUMMARY)),
        pa.field("sort", pa.struct([("sortField", pa.string()), ("sortOrder", pa.string())])),
        pa.field("nextToken", pa.string()),
    ]
)


def flatten_pages(bodies: Sequence[bytes], datastore_id: str) -> pa.Table:
    """Flatten answers of SearchImageSets, as the service sent them.

    Args:
        bodies: Whole response bodies, each a JSON object.
        datastore_id: The data store they come from.

    Returns:
        One row per summary, in the order sent, with the columns of `schema.STATE`.
    """
    try:
        wire = _by_columns(bodies)
    except pa.ArrowInvalid:
        pages = [json.loads(body) for body in bodies]
        summaries = [s for page in pages for s in page["imageSetsMetadataSummaries"]]
        return flatten_summaries(summaries, datastore_id)
    extra = pa.nulls(len(wire), pa.string())
    return _typed(wire, extra, datastore_id)


def flatten_summaries(summaries: Iterable[Mapping[str, Any]], datastore_id: str) -> pa.Table:
    """Flatten summaries one by one: as boto3 parses them, or as JSON objects.

    Args:
        summaries: Items of `imageSetsMetadataSummaries`; datetimes or epoch seconds.
        datastore_id: The data store they come from.

    Returns:
        One row per summary, in the order given, with the columns of `schema.STATE`.
    """
    rows, extras = [], []
    for summary in summaries:
        row, extra = _split(summary, schema.SUMMARY_FIELDS)
        tags = extra.pop("DICOMTags", None)
        if isinstance(tags, Mapping):
            row["DICOMTags"], tags = _split(tags, schema.DICOM_TAGS)
        if tags:
            extra["DICOMTags"] = tags
        rows.append(row)
        extras.append(json.dumps(extra, sort_keys=True, default=str) if extra else None)
    wire = pa.array(rows, _SUMMARY)
    return _typed(wire, pa.array(extras, pa.string()), datastore_id)


def read_again(states: pa.Table) -> pa.Table:
    """Read rows that an older release flattened again, by the rules of this release.

    Args:
        states: Columns of `schema.STATE`, perhaps without some of the raw ones.

    Returns:
        The same rows with all columns of a state. Other columns come last.
    """
    columns = {name: states[name].combine_chunks() for name in states.column_names}
    for column in schema.DICOM_TAGS:
        value, raw = columns[column.name], columns.get(column.raw_name)
        if column.is_text:
            sent = value if raw is None else pc.coalesce(raw, value)
            columns[column.name], columns[column.raw_name] = canonical_texts(str(column.vr), sent)
        elif column.vr in _PARSERS_OF_TEXT:
            read = _PARSERS_OF_TEXT[column.vr](raw).value
            columns[column.name] = pc.coalesce(value, read)
    columns |= _name_parts(columns["PatientName"])
    columns["state_key"] = _state_keys(pa.table(columns))
    own = [column.name for column in schema.STATE]
    others = [name for name in states.column_names if name not in own]
    return pa.table({name: columns[name] for name in (*own, *others)})


def _by_columns(bodies: Sequence[bytes]) -> pa.StructArray:
    # A line feed inside a body can only be insignificant white space, so a line is a page.
    lines = b"\n".join(body.replace(b"\n", b" ") for body in bodies)
    table = pj.read_json(
        pa.BufferReader(lines),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=pj.ParseOptions(explicit_schema=_PAGE, unexpected_field_behavior="error"),
    )
    summaries = table["imageSetsMetadataSummaries"].combine_chunks()
    wire = summaries.flatten() if isinstance(summaries, pa.ListArray) else pa.array([], _SUMMARY)
    for column in schema.SUMMARY_FIELDS:
        if column.type == schema.INSTANT:
            extremes = pc.min_max(wire.field(column.wire)).as_py()
            if not all(is_instant(end) for end in extremes.values() if end is not None):
                raise pa.ArrowInvalid("a timestamp is out of range")
    return wire


def _split(
    item: Mapping[str, Any], columns: Iterable[schema.Column]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the members of the expected JSON type from all others."""
    row: dict[str, Any] = {}
    rest = {name: value for name, value in item.items() if value is not None}
    for column in columns:
        value = _as_expected(rest.get(column.wire), column.type)
        if value is not None:
            row[column.wire] = value
            del rest[column.wire]
    return row, rest


def _as_expected(value: Any, typ: pa.DataType) -> Any:
    if typ == schema.INSTANT:
        return epoch_seconds(value)
    wire = _WIRE_TYPES.get(typ, typ)
    if wire == pa.string():
        return value if isinstance(value, str) and _is_text(value) else None
    if wire == pa.bool_():
        return value if isinstance(value, bool) else None
    is_integer = isinstance(value, int) and not isinstance(value, bool) and value in _INT64
    return value if is_integer else None


def _is_text(value: str) -> bool:
    # JSON may carry a lone surrogate, which no UTF-8 column can hold.
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _typed(wire: pa.StructArray, extra: pa.Array, datastore_id: str) -> pa.Table:
    if not len(wire):  # a window without rows: most of a backfill's days
        return _NO_STATES
    columns: dict[str, pa.Array] = {
        "datastore_id": pa.repeat(pa.scalar(datastore_id), len(wire)),
        "extra": extra,
    }
    for column in schema.SUMMARY_FIELDS:
        member = wire.field(column.wire)
        columns[column.name] = _instants(member) if column.type == schema.INSTANT else member
    tags = pc.struct_field(wire, "DICOMTags")
    for column in schema.DICOM_TAGS:
        _add_tag(columns, column, pc.struct_field(tags, column.wire))
    columns |= _name_parts(columns["PatientName"])
    columns["state_key"] = _state_keys(pa.table(columns))
    target = schema.arrow_schema(schema.STATE)
    return pa.table([columns[name] for name in target.names], schema=target)


_PARSERS_OF_TEXT = {"DA": values.parse_da, "TM": values.parse_tm}
_PARSERS = {**_PARSERS_OF_TEXT, "IS": values.parse_is}


def _add_tag(columns: dict[str, pa.Array], column: schema.Column, texts: pa.Array) -> None:
    vr = str(column.vr)
    read = _PARSERS[vr](texts) if vr in _PARSERS else canonical_texts(vr, texts)
    columns[column.name], columns[column.raw_name] = read


def _name_parts(names: pa.Array) -> dict[str, pa.Array]:
    family, given = values.name_parts(names)
    return {"patient_family_name": family, "patient_given_name": given}


def _instants(seconds: pa.Array) -> pa.Array:
    """Turn epoch seconds into microseconds. A double holds present instants to 0.24 of one."""
    microseconds = pc.round(pc.multiply(seconds, 1e6)).cast(pa.int64())
    return microseconds.cast(schema.INSTANT)


def _state_keys(states: pa.Table) -> pa.Array:
    """Hash each row as sent with BLAKE2b, to 63 bits: not all readers know unsigned integers.

    Dates, times and instants count as integers, so that no library's way to print one is
    part of the key; a null counts as a record separator, which no DICOM text holds.
    """
    texts = [_hashable(_as_sent(states, name)) for name in _HASHED]
    rows = pc.binary_join_element_wise(*texts, "\x1f").combine_chunks()
    digests = b"".join(
        hashlib.blake2b(row.encode(), digest_size=8).digest() for row in rows.to_pylist()
    )
    return pa.array((np.frombuffer(digests, ">u8") >> np.uint64(1)).astype(np.int64))


def _as_sent(states: pa.Table, name: str) -> pa.ChunkedArray:
    raw = states[_TEXTS[name]] if name in _TEXTS else None
    if raw is None or raw.null_count == len(raw):
        return states[name]
    return pc.coalesce(raw, states[name])


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray | str:
    if column.null_count == len(column):
        return _NULL
    if not pa.types.is_string(column.type):
        narrow = column.cast(pa.int32()) if column.type == pa.date32() else column
        column = narrow.cast(pa.int64()).cast(pa.string())
    return pc.fill_null(column, _NULL) if column.null_count else column
