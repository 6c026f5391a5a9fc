"""A metadata document as the summary that a search would have given."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import json_values

from cohortlake import schema
from cohortlake.flatten import flatten_summaries, invalid_values
from cohortlake.healthimaging import BrokenAnswer, NotMetadata, Version, summary_tags
from cohortlake.healthimaging import document as documents


def tags(body: bytes) -> dict[str, Any]:
    return summary_tags(documents.read(io.BytesIO(body)))


AT = datetime(2026, 1, 1, tzinfo=UTC)


def document(patient: Any = None, study: Any = None, series: Any = None) -> bytes:
    levels = {
        "SchemaVersion": "1.1",
        "Patient": {"DICOM": patient or {}},
        "Study": {"DICOM": study or {}, "Series": series},
    }
    return gzip.compress(json.dumps(levels).encode(), mtime=0)


def test_all_sixteen_tags_are_found_on_their_levels() -> None:
    told = tags(
        document(
            {"PatientID": "P", "PatientName": "A^B", "PatientBirthDate": "19500101",
             "PatientSex": "F"},
            {"StudyInstanceUID": "1.2", "StudyID": "S", "StudyDescription": "D ",
             "NumberOfStudyRelatedSeries": "3 ", "NumberOfStudyRelatedInstances": "12",
             "AccessionNumber": "A", "StudyDate": "20250101", "StudyTime": "101500.5",
             "PatientWeight": None},
            {"1.3": {"DICOM": {"Modality": "CT", "BodyPartExamined": "HEAD", "SeriesNumber": " 7"},
                     "Instances": {"1.4": {"DICOM": {"StudyDate": "19990101"}}}}},
        )
    )  # fmt: skip
    assert set(told) == {column.wire for column in schema.DICOM_TAGS}
    assert told["DICOMSeriesInstanceUID"] == "1.3", "the key, where the attributes do not say it"
    assert told["DICOMStudyDescription"] == "D ", "text stays as it came"
    numbers = ("DICOMNumberOfStudyRelatedSeries", "DICOMSeriesNumber")
    assert [told[name] for name in numbers] == [3, 7]
    states = flatten_summaries([Version("a" * 32, 1, False, AT, AT, True).summary(told)], "d" * 32)
    assert invalid_values(states) == {}
    assert states["SeriesNumber"].to_pylist() == [7]


@pytest.mark.parametrize(
    ("attribute", "value", "sent"),
    [
        ("PatientSex", None, None),
        ("PatientSex", "", None),
        ("SeriesNumber", "   ", None),
        ("SeriesNumber", "+5", 5),
        ("SeriesNumber", 5, 5),
        ("SeriesNumber", "five", "five"),
        ("SeriesNumber", "9" * 40, "9" * 40),
        ("PatientName", {"Alphabetic": "A^B"}, {"Alphabetic": "A^B"}),
        ("Modality", ["CT", "MR"], ["CT", "MR"]),
    ],
)
def test_a_value_is_passed_on_and_none_is_dropped(attribute: str, value: Any, sent: Any) -> None:
    column = next(c for c in schema.DICOM_TAGS if c.name == attribute)
    told = tags(document({attribute: value}))
    assert told == ({} if sent is None else {column.wire: sent})
    states = flatten_summaries([{"imageSetId": "a" * 32, "DICOMTags": told}], "d" * 32)
    kept = states[attribute].to_pylist()[0] or json.loads(states["extra"].to_pylist()[0] or "null")
    assert (kept is None) == (sent is None)


def test_of_several_series_only_common_values_are_taken() -> None:
    one = {"DICOM": {"Modality": "CT", "SeriesNumber": "1", "BodyPartExamined": "HEAD"}}
    two = {"DICOM": {"Modality": "CT", "SeriesNumber": "2"}}
    assert tags(document(series={"1.1": one, "1.2": two})) == {"DICOMSeriesModality": "CT"}


@pytest.mark.parametrize("series", [None, {}])
def test_without_a_series_its_tags_are_absent(series: Any) -> None:
    assert tags(document({"PatientID": "P"}, series=series)) == {"DICOMPatientId": "P"}


@pytest.mark.parametrize("body", [b"", b"{}", document()[:-9], document()[:20], b"\x1f\x8b"])
def test_a_cut_document_is_worth_another_call(body: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        tags(body)


@pytest.mark.parametrize(
    "text",
    [
        b"[]", b"null", b"{}", b'{"Patient": {}', b'{"Patient": {"DICOM": []}, "Study": {}}',
        b'{"Patient": {}, "Study": {"Series": {"1": "Canary"}}}',
        b'{"Patient": "\xff", "Study": {}}',
    ],
)  # fmt: skip
def test_what_is_whole_and_no_document_is_not(text: bytes) -> None:
    with pytest.raises(NotMetadata) as refused:
        tags(gzip.compress(text, mtime=0))
    assert "Canary" not in str(refused.value)
    assert refused.value.__suppress_context__


JSON = json_values(6)
ATTRIBUTES = st.none() | st.dictionaries(
    st.sampled_from([column.name for column in schema.DICOM_TAGS]) | st.text(), JSON
)


@given(ATTRIBUTES, ATTRIBUTES, st.dictionaries(st.text(), ATTRIBUTES))
def test_whatever_a_document_says_becomes_a_row(patient: Any, study: Any, series: Any) -> None:
    levels = {uid: {"DICOM": attributes} for uid, attributes in series.items()}
    told = tags(document(patient, study, levels))
    summary = Version("a" * 32, 2, False, AT, AT, None).summary(told)
    assert len(flatten_summaries([summary], "d" * 32)) == 1


@given(st.binary() | st.binary().map(gzip.compress) | JSON.map(json.dumps).map(str.encode))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    with suppress(BrokenAnswer, NotMetadata):
        tags(body)


def test_a_first_version_came_to_be_with_its_image_set() -> None:
    listed = {"imageSetId": "a" * 32, "versionId": "1", "imageSetState": "ACTIVE", "createdAt": AT}
    assert Version.from_properties(listed).updated_at == AT
    assert Version.from_properties(listed | {"versionId": "2"}).updated_at is None
