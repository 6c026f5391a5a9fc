"""Metadata documents that are not what was asked for, and how a test orders them."""

import gzip
import json
import zlib
from http.client import IncompleteRead

import pytest

from emulator import BAD_DOCUMENTS, AdminError
from emulator.service import bad_documents

CT = {"DICOMSeriesModality": "CT", "DICOMSeriesInstanceUID": "1.2.3"}


@pytest.fixture
def service(exactly):
    return exactly({"DICOMTags": CT}, {"DICOMTags": {}}, huge_document_mb=3)


@pytest.fixture
def image_set_id(service):
    return next(row["imageSetId"] for row in service.search() if row["DICOMTags"])


def read(service, image_set_id):
    answer = service.client.get_image_set_metadata(
        datastoreId=service.datastore, imageSetId=image_set_id
    )
    with answer["imageSetMetadataBlob"] as blob:
        return blob.read()


def spoiled(service, image_set_id, kind, **given):
    service.emulator.admin.spoil_documents([image_set_id], kind, **given)
    return read(service, image_set_id)


def test_a_cut_document(service, image_set_id):
    whole = read(service, image_set_id)
    cut = spoiled(service, image_set_id, "cut")
    assert cut == whole[: len(whole) // 2]
    with pytest.raises(EOFError):
        gzip.decompress(cut)


def test_an_empty_document(service, image_set_id):
    assert spoiled(service, image_set_id, "empty") == b""


def test_no_gzip(service, image_set_id):
    body = spoiled(service, image_set_id, "not-gzip")
    assert json.loads(body)["ImageSetID"] == image_set_id
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(body)


def test_no_json(service, image_set_id):
    body = gzip.decompress(spoiled(service, image_set_id, "not-json"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_no_metadata(service, image_set_id):
    body = gzip.decompress(spoiled(service, image_set_id, "not-metadata"))
    assert json.loads(body).keys() == {"message"}


def test_another_image_set(service, image_set_id):
    right = json.loads(gzip.decompress(read(service, image_set_id)))
    wrong = json.loads(gzip.decompress(spoiled(service, image_set_id, "other-image-set")))
    assert wrong["ImageSetID"] != image_set_id
    assert wrong | {"ImageSetID": image_set_id} == right


@pytest.mark.parametrize("kind", ["huge", "huge-body"])
def test_a_huge_document_is_whole(service, image_set_id, kind):
    body = gzip.decompress(spoiled(service, image_set_id, kind))
    assert 3e6 < len(body) < 4e6
    document = json.loads(body)
    assert document["ImageSetID"] == image_set_id
    assert len(document["Study"]["Series"]["1.2.3"]["Instances"]) > 1500


@pytest.mark.parametrize("noisy", [False, True])
def test_a_huge_document_comes_in_small_pieces(noisy):
    instances = b'"Series":{"1":{"DICOM":{},"Instances":{"1":{}}}}'
    start = b'{"Patient":{"DICOM":{}},"Study":{"DICOM":{},%b}}' % instances
    pieces = list(bad_documents._enlarged(start, 3, noisy=noisy))
    assert max(map(len, pieces)) < 1_000_000
    assert json.loads(b"".join(pieces))
    packed = b"".join(bad_documents.huge("huge-body" if noisy else "huge", start, 3))
    assert zlib.decompress(packed, wbits=31) == b"".join(pieces)
    assert (len(packed) > 1_500_000) == noisy


def test_gone_meanwhile(service, image_set_id):
    missing = service.client.exceptions.ResourceNotFoundException
    service.emulator.admin.spoil_documents([image_set_id], "gone")
    assert image_set_id in {row["imageSetId"] for row in service.search()}
    ids = {"datastoreId": service.datastore, "imageSetId": image_set_id}
    for operation in (service.client.get_image_set_metadata, service.client.get_image_set):
        with pytest.raises(missing):
            operation(**ids)


def test_only_so_many_times_and_only_these_image_sets(service, image_set_id):
    [other] = {row["imageSetId"] for row in service.search()} - {image_set_id}
    service.emulator.admin.spoil_documents([image_set_id], "empty", times=2)
    assert [read(service, image_set_id) == b"" for _ in range(4)] == [True, True, False, False]
    assert read(service, other)
    service.emulator.admin.spoil_documents([image_set_id], "gone", times=1)
    with pytest.raises(service.client.exceptions.ResourceNotFoundException):
        read(service, image_set_id)
    assert read(service, image_set_id)
    stats = service.emulator.admin.stats()["faults"]
    assert stats == {"document_empty": 2, "document_gone": 1}


def test_mending(service, image_set_id):
    assert spoiled(service, image_set_id, "empty") == b""
    service.emulator.admin.mend_documents()
    assert read(service, image_set_id)


def test_a_rate_draws_every_kind_that_needs_no_order(fresh):
    service = fresh(synthetic=40, seed=1, series_size=0.01, bad_document_rate=1)
    for row in service.search():
        read(service, row["imageSetId"])
    kinds = set(service.emulator.admin.stats()["faults"])
    assert kinds == {f"document_{kind}" for kind in bad_documents.AT_RANDOM}


def test_a_kind_that_is_none_is_refused(service, image_set_id):
    with pytest.raises(AdminError, match="huge"):
        service.emulator.admin.spoil_documents([image_set_id], "nonsense")
    assert "huge" in BAD_DOCUMENTS


@pytest.mark.parametrize("cut", ["short", "truncated", "empty"])
def test_cuts_reach_streams_too(service, image_set_id, monkeypatch, cut):
    monkeypatch.setattr("emulator.service.faults.CUTS", (cut,))
    service.emulator.admin.spoil_documents([image_set_id], "huge")
    service.emulator.admin.behave(cut_rate=1)
    path = f"/datastore/{service.datastore}/imageSet/{image_set_id}/getImageSetMetadata"
    broken = (EOFError, json.JSONDecodeError, IncompleteRead)
    with pytest.raises(broken) as caught:
        json.loads(gzip.decompress(service.raw("POST", path)[2]))
    assert (caught.type is IncompleteRead) == (cut == "short")


def test_a_given_document_is_served_under_the_tags_of_the_summary(service, image_set_id):
    instance = {"DICOM": {"KVP": "1,5"}, "DICOMVRs": {}, "ImageFrames": []}
    series = {"1.2.3": {"DICOM": {"Modality": "??"}, "Instances": {"1.2.3.4": instance}}}
    given = {"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": series}}
    service.emulator.admin.put_document(image_set_id, given)
    document = json.loads(gzip.decompress(read(service, image_set_id)))
    found = document["Study"]["Series"]["1.2.3"]
    assert found["Instances"] == {"1.2.3.4": instance}
    assert found["DICOM"] == {"Modality": "CT", "SeriesInstanceUID": "1.2.3"}
    with pytest.raises(AdminError, match=r"Study\.Series"):
        service.emulator.admin.put_document(image_set_id, {"Patient": {}})


def test_numbers_of_instances(exactly):
    study = {"DICOMNumberOfStudyRelatedInstances": 600, "DICOMNumberOfStudyRelatedSeries": 4}
    service = exactly({"DICOMTags": study}, {"DICOMTags": CT})
    admin = service.emulator.admin
    [large] = admin.import_summaries([{"DICOMTags": CT}], instances=2500)

    def count(image_set_id):
        document = json.loads(gzip.decompress(read(service, image_set_id)))
        [series] = document["Study"]["Series"].values()
        return len(series["Instances"])

    counts = sorted(count(row["imageSetId"]) for row in service.search())
    assert counts == [1, 150, 2500]
    assert len(gzip.decompress(read(service, large))) > 4_000_000


def test_the_plan_of_a_header(service, image_set_id):
    planned = service.emulator.admin.plan(image_set_id)
    assert planned.keys() == {"kind", "geometry", "fault"}
