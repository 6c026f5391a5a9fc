"""A document is read the same whatever its size, and a bad one is told apart from a cut one."""

import gzip
import json

import pytest
from documents import instance, of_instances, packed, parts
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.healthimaging import BrokenAnswer, NotMetadata, document
from cohortlake.healthimaging.document import End, ImageSetId, InstancePart, Level

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
INSTANCES = st.lists(
    st.dictionaries(st.sampled_from(["Rows", "KVP", "00091001", "DICOM", "Instances"]), VALUES),
    max_size=4,
)


@given(INSTANCES)
def test_a_large_document_is_read_as_a_small_one(attributes):
    body = packed(of_instances(*(instance(**own) for own in attributes)))
    small = parts(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_SMALL_BYTES", 10)
        patch.setattr(document, "_CHUNK_BYTES", 7)
        large = parts(body)
    assert large == small
    assert [part.uid for part in small if isinstance(part, InstancePart)] == [
        f"1.2.{number}" for number in range(len(attributes))
    ]


def test_all_parts_come_in_the_document_s_order():
    found = parts(packed(of_instances(instance(Rows=5))))
    assert found[0] == ImageSetId("i" * 32)
    assert [part.name for part in found if isinstance(part, Level)] == [
        "Patient",
        "Study",
        "Series",
    ]
    assert isinstance(found[-1], End)
    assert found[-1].size_bytes == len(packed(of_instances(instance(Rows=5))))


@pytest.mark.parametrize("small_bytes", [10, document._SMALL_BYTES])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_document_is_asked_for_again(monkeypatch, small_bytes, share):
    monkeypatch.setattr(document, "_SMALL_BYTES", small_bytes)
    body = packed(of_instances(*(instance(Rows=number) for number in range(50))))
    with pytest.raises(BrokenAnswer) as error:
        parts(body[: int(len(body) * share)])
    assert error.value.transient


@pytest.mark.parametrize("small_bytes", [10, document._SMALL_BYTES])
@pytest.mark.parametrize("body", [b"no gzip at all, and long enough", b"\x1f\x8b" + b"x" * 50])
def test_what_is_no_gzip_is_asked_for_again(monkeypatch, small_bytes, body):
    monkeypatch.setattr(document, "_SMALL_BYTES", small_bytes)
    with pytest.raises(BrokenAnswer):
        parts(body)


OTHER = [
    b"no JSON, and long enough to be large",
    b"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
    b'"a text that is long enough to be large"',
    b'{"Patient": {"DICOM": {}}, "Other": [1, 2, 3]}',
    b'{"Patient": {"DICOM": []}, "Study": {"DICOM": {}}}',
    b'{"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": {"1": {"Instances": {"2": 3}}}}}',
    b'{"Patient": {"DICOM": {}}, "Study": {"DICOM": {"StudyID": "cut',
    b'{"Patient": {"DICOM": {"PatientID": "\xff\xfe"}}, "Study": {"DICOM": {}}}',
]


@pytest.mark.parametrize("small_bytes", [10, document._SMALL_BYTES])
@pytest.mark.parametrize("text", OTHER)
def test_another_document_is_not_asked_for_again(monkeypatch, small_bytes, text):
    monkeypatch.setattr(document, "_SMALL_BYTES", small_bytes)
    with pytest.raises(NotMetadata) as error:
        parts(gzip.compress(text))
    assert not error.value.transient


def test_what_is_no_part_is_skipped(monkeypatch):
    monkeypatch.setattr(document, "_SMALL_BYTES", 10)
    content = of_instances(instance(Rows=5))
    content |= {"New": {"Study": {"DICOM": {"Rows": 1}}, "List": [[{"DICOM": 1}]]}}
    content["Study"]["Other"] = {"deep": {"deep": {"deep": {"DICOM": {"Rows": 2}}}}}
    found = parts(gzip.compress(json.dumps(content).encode()))
    assert [part.uid for part in found if isinstance(part, InstancePart)] == ["1.2.0"]
    assert len([part for part in found if isinstance(part, Level)]) == 3
