"""Flatten loses no row and no field, and both its ways give the same."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from cohortlake import schema
from cohortlake.flatten import flatten_pages, flatten_summaries, invalid_values, to_frame

DATASTORE = "d" * 32
GOLDEN = Path(__file__).parent / "golden"


def _page(summaries: list[Any]) -> bytes:
    return json.dumps({"imageSetsMetadataSummaries": summaries, "nextToken": "t"}).encode()


def _golden_rows() -> list[dict[str, Any]]:
    table = flatten_pages([(_page(json.loads((GOLDEN / "summaries.json").read_text())))], DATASTORE)
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def test_golden() -> None:
    rows = json.loads(json.dumps(_golden_rows(), default=str))
    assert rows == json.loads((GOLDEN / "rows.json").read_text())


def test_a_whole_summary() -> None:
    row = _golden_rows()[0]
    assert row["created_at"] == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)
    assert row["StudyDate"] == date(2023, 11, 15)
    assert row["StudyTime"] == time(9, 30, 12, 250000)
    assert (row["patient_family_name"], row["patient_given_name"]) == ("Yamada", "Tarou")
    assert row["PatientName"] == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_odd_values_are_counted_by_column() -> None:
    table = flatten_pages([_page(json.loads((GOLDEN / "summaries.json").read_text()))], DATASTORE)
    assert invalid_values(table) == {"extra": 2, "StudyDate": 1, "StudyTime": 1, "SeriesNumber": 1}


def test_no_page_and_an_empty_page() -> None:
    expected = schema.arrow_schema(schema.STATE)
    for pages in ([], [_page([])]):
        table = flatten_pages(pages, DATASTORE)
        assert (len(table), table.schema) == (0, expected)


def test_a_frame_has_a_column_of_its_dtype_for_each_of_the_schema() -> None:
    frame = to_frame(flatten_pages([_page([{"imageSetId": "a" * 32}])], DATASTORE))
    assert list(frame.columns) == [column.name for column in schema.STATE]
    expected = {"version": "Int64", "StudyDate": "datetime64[us]", "PatientID": "string",
                "is_primary": "boolean", "updated_at": "datetime64[us, UTC]"}  # fmt: skip
    assert {name: str(frame[name].dtype) for name in expected} == expected


def test_volatile_members_do_not_make_another_state() -> None:
    before = {"imageSetId": "a" * 32, "version": 1, "storageTier": "FREQUENT_ACCESS"}
    after = before | {"storageTier": "ARCHIVE_INSTANT_ACCESS", "lastAccessedAt": 1.0}
    changed = before | {"isPrimary": False}
    keys = flatten_summaries([before, after, changed], DATASTORE)["state_key"].to_pylist()
    assert keys[0] == keys[1] != keys[2]


# What the service may send for each member: mostly what it should, sometimes anything.
_TEXT = st.text(max_size=12) | st.sampled_from(
    ["20240105", "20240230", " 20240105", "2019.03.07", "0930", "093000.5", "A^B=C^D", ""]
)
_ODD = st.none() | st.booleans() | st.integers() | st.lists(st.integers(), max_size=2)
_SECONDS = st.integers(0, 2_000_000_000_000).map(lambda ms: ms / 1000)
_PROPER = {
    schema.INSTANT: _SECONDS,
    schema.pa.int64(): st.integers(-(2**63), 2**63 - 1),
    schema.pa.int32(): st.integers(-(2**40), 2**40),
    schema.pa.bool_(): st.booleans(),
}


def _members(columns: tuple[schema.Column, ...]) -> dict[str, st.SearchStrategy[Any]]:
    return {c.wire: _PROPER.get(c.type, _TEXT) for c in columns if c.name != "image_set_id"}


def _objects(odd: bool) -> st.SearchStrategy[dict[str, Any]]:
    unknown = {"newMember": _ODD} if odd else {}
    mixed = {
        level: {
            name: (proper | _ODD) if odd else proper for name, proper in _members(columns).items()
        }
        for level, columns in (("top", schema.SUMMARY_FIELDS), ("tags", schema.DICOM_TAGS))
    }
    tags = st.fixed_dictionaries({}, optional=mixed["tags"] | unknown)
    return st.fixed_dictionaries(
        {"imageSetId": st.integers(0, 10**9).map(lambda n: f"{n:032d}")},
        optional=mixed["top"] | unknown | {"DICOMTags": tags},
    )


def _sent_again(row: dict[str, Any]) -> dict[str, Any]:
    """Rebuild from a flat row what the service sent."""
    extra = json.loads(row["extra"] or "{}")
    odd_tags = extra.pop("DICOMTags", {})
    summary = {c.wire: _wire(row, c) for c in schema.SUMMARY_FIELDS} | extra
    tags = {c.wire: _wire(row, c) for c in schema.DICOM_TAGS}
    summary["DICOMTags"] = _present(tags) | odd_tags
    return _present(summary)


def _wire(row: dict[str, Any], column: schema.Column) -> Any:
    raw = row.get(column.raw_name)
    if raw is not None:
        return int(raw) if column.vr == "IS" else raw
    value = row[column.name]
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, date):
        return f"{value.year:04d}{value:%m%d}"
    if isinstance(value, time):
        return f"{value:%H%M%S}" + (f".{value.microsecond:06d}" if value.microsecond else "")
    return value


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, {})}


def _normal(summary: dict[str, Any]) -> dict[str, Any]:
    tags = summary.get("DICOMTags")
    with_tags = {"DICOMTags": _present(tags)} if isinstance(tags, dict) else {}
    return _present(summary | with_tags)


def _same(left: Any, right: Any) -> bool:
    # JSON has one kind of number: true is not 1, but 1.0 is 1.
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    return isinstance(left, bool) == isinstance(right, bool) and left == right


@settings(max_examples=examples(150, quick=25), deadline=None)
@given(st.lists(_objects(odd=True), max_size=6))
def test_nothing_is_lost(summaries: list[dict[str, Any]]) -> None:
    table = flatten_pages([_page(summaries[:3]), _page(summaries[3:])], DATASTORE)
    again = [_sent_again(row) for row in table.to_pylist()]
    assert len(again) == len(summaries)
    for sent, rebuilt in zip(summaries, again, strict=True):
        assert _same(_normal(sent), rebuilt)


@settings(max_examples=examples(150, quick=25), deadline=None)
@given(st.lists(_objects(odd=False), max_size=6))
def test_both_ways_give_the_same(summaries: list[dict[str, Any]]) -> None:
    by_columns = flatten_pages([_page(summaries)], DATASTORE)
    assert by_columns.equals(flatten_summaries(summaries, DATASTORE))


@pytest.mark.parametrize("body", [b'{"imageSetsMetadataSummaries": [{"imageSetId"', b"", b"[]"])
def test_a_broken_body_is_no_empty_page(body: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        flatten_pages([body], DATASTORE)
