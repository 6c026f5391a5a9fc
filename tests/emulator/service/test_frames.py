"""GetImageFrame of synthetic image sets: sizes, repeatability, tiers, errors and faults."""

import gzip
import json
from http.client import IncompleteRead

import pytest

from emulator.data.headers.series import frame_id

MG = {
    "DICOMSeriesModality": "MG",
    "DICOMSeriesInstanceUID": "1.2.3",
    "DICOMStudyInstanceUID": "1.2",
}
OLD = {"storageTier": "ARCHIVE_INSTANT_ACCESS", "lastAccessedAt": 1.6e9}


@pytest.fixture
def service(exactly):
    return exactly(OLD | {"DICOMTags": MG})


@pytest.fixture
def ids(service):
    [row] = service.search()
    return {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}


def frames(service, ids):
    with service.client.get_image_set_metadata(**ids)["imageSetMetadataBlob"] as blob:
        document = json.loads(gzip.decompress(blob.read()))
    [series] = document["Study"]["Series"].values()
    return [one for instance in series["Instances"].values() for one in instance["ImageFrames"]]


def read(service, ids, frame_id):
    answer = service.client.get_image_frame(**ids, imageFrameInformation={"imageFrameId": frame_id})
    with answer["imageFrameBlob"] as blob:
        return answer, blob.read()


def test_a_frame_has_the_size_of_the_document_and_the_same_bytes_each_time(service, ids):
    [frame] = frames(service, ids)
    answer, body = read(service, ids, frame["ID"])
    assert answer["contentType"] == "image/jph"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-length"] == str(len(body))
    assert len(body) == frame["FrameSizeInBytes"] > 1_000_000
    assert read(service, ids, frame["ID"])[1] == body


def test_reading_a_frame_moves_the_image_set_to_the_frequent_tier(service, ids):
    read(service, ids, frame_id("1.2.3", 1, 0, 100))
    assert service.search()[0]["storageTier"] == "FREQUENT_ACCESS"
    assert service.emulator.admin.stats()["moved_to_frequent"] == 1


def test_frames_that_do_not_exist(service, ids):
    missing = service.client.exceptions.ResourceNotFoundException
    [frame] = frames(service, ids)
    for wrong in ("0" * 32, frame["ID"][:-1] + "9", frame["ID"][:31] + "z"):
        with pytest.raises(missing, match="Image frame"):
            read(service, ids, wrong)
    with pytest.raises(missing, match="Image set"):
        read(service, ids | {"imageSetId": "f" * 32}, frame["ID"])
    with pytest.raises(service.client.exceptions.ValidationException, match="imageFrameId"):
        read(service, ids, "no id")
    service.emulator.admin.spoil_documents([ids["imageSetId"]], "gone")
    with pytest.raises(missing):
        read(service, ids, frame["ID"])


def test_a_frame_of_another_image_set(service, ids):
    [other] = service.emulator.admin.import_summaries([{"DICOMTags": {}}])
    [frame] = frames(service, ids | {"imageSetId": other})
    with pytest.raises(service.client.exceptions.ResourceNotFoundException):
        read(service, ids, frame["ID"])


def test_frames_of_a_given_document(service, ids):
    instance = {"DICOM": {}, "ImageFrames": [{"ID": "a" * 32, "FrameSizeInBytes": 12}]}
    series = {"1.2.3": {"DICOM": {}, "Instances": {"1.2.3.4": instance}}}
    given = {"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": series}}
    service.emulator.admin.put_document(ids["imageSetId"], given)
    assert len(read(service, ids, "a" * 32)[1]) == 12


def test_faults_reach_frames(service, ids):
    [frame] = frames(service, ids)
    path = f"/datastore/{ids['datastoreId']}/imageSet/{ids['imageSetId']}/getImageFrame"
    body = json.dumps({"imageFrameId": frame["ID"]}).encode()
    service.emulator.admin.behave(error_rate=1)
    assert service.raw("POST", path, body)[0] == 500
    service.emulator.admin.behave(error_rate=0, reset_rate=1)
    with pytest.raises(ConnectionResetError):
        service.raw("POST", path, body)
    service.emulator.admin.behave(reset_rate=0, cut_rate=1)
    sizes = set()
    for _ in range(9):
        try:
            sizes.add(len(service.raw("POST", path, body)[2]))
        except IncompleteRead as error:
            sizes.add(-len(error.partial))
    half = frame["FrameSizeInBytes"] // 2
    assert sizes == {0, half, -half}


def test_a_quota_of_its_own(service, ids):
    [frame] = frames(service, ids)
    service.emulator.admin.behave(quotas="GetImageFrame=0.001")
    read(service, ids, frame["ID"])
    with pytest.raises(service.client.exceptions.ThrottlingException):
        read(service, ids, frame["ID"])
    frames(service, ids)


def test_every_frame_of_a_small_hospital(fresh):
    service = fresh(synthetic=60, seed=2, series_size=0.01)
    modalities = set()
    for row in service.search():
        ids = {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}
        for frame in frames(service, ids)[:2]:
            assert len(read(service, ids, frame["ID"])[1]) == frame["FrameSizeInBytes"]
        modalities.add(row["DICOMTags"]["DICOMSeriesModality"])
    assert len(modalities) > 4
