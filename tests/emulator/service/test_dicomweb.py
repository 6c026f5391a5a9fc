"""The DICOMweb operations: series as DICOM JSON, and frames by number."""

import base64
import gzip
import json
import re
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def service(serving):
    return serving(synthetic=40, seed=1, series_size=0.02, dicom=[FILES])


@pytest.fixture(scope="module")
def rows(service):
    return service.search()


def path(service, tags, rest):
    study, series = tags["DICOMStudyInstanceUID"], tags["DICOMSeriesInstanceUID"]
    return f"/datastore/{service.datastore}/studies/{study}/series/{series}/{rest}"


def document(service, row):
    answer = service.client.get_image_set_metadata(
        datastoreId=service.datastore, imageSetId=row["imageSetId"]
    )
    with answer["imageSetMetadataBlob"] as blob:
        found = json.loads(gzip.decompress(blob.read()))
    [series] = found["Study"]["Series"].values()
    return series["Instances"]


def test_the_metadata_of_a_series_is_dicom_json(service, rows):
    read = 0
    for row in rows:
        tags = row["DICOMTags"]
        target = path(service, tags, f"metadata?imageSetId={row['imageSetId']}")
        status, headers, body = service.raw("GET", target)
        assert (status, headers["Content-Type"]) == (200, "application/dicom+json")
        instances = json.loads(body)
        uids = [one["00080018"]["Value"][0] for one in instances]
        assert uids == list(document(service, row))
        assert all(list(one) == sorted(one) for one in instances)
        for one in instances[:2]:
            assert one["0020000D"] == {"vr": "UI", "Value": [tags["DICOMStudyInstanceUID"]]}
            name = one.get("00100010", {}).get("Value", [{}])[0]
            assert "=".join(name.values()) == tags.get("DICOMPatientName", "")
            for tag, element in one.items():
                assert re.fullmatch("[0-9A-F]{8}", tag)
                assert re.fullmatch("[A-Z]{2}", element["vr"])
                assert len(element.keys() & {"Value", "InlineBinary"}) <= 1
                base64.b64decode(element.get("InlineBinary", ""), validate=True)
            read += 1
    assert read > 60


def test_values_of_a_file(service):
    ct = pydicom.dcmread(FILES / "CT_small.dcm")
    tags = {
        "DICOMStudyInstanceUID": ct.StudyInstanceUID,
        "DICOMSeriesInstanceUID": ct.SeriesInstanceUID,
    }
    [one] = json.loads(service.raw("GET", path(service, tags, "metadata"))[2])
    found = Dataset.from_json(one)
    for keyword in ("Rows", "SliceThickness", "ImageType", "ImagePositionPatient", "SOPClassUID"):
        assert found[keyword].value == ct[keyword].value
    assert one["00431010"]["vr"] == "US"


def test_frames_by_number(service):
    ct = pydicom.dcmread(FILES / "CT_small.dcm")
    tags = {
        "DICOMStudyInstanceUID": ct.StudyInstanceUID,
        "DICOMSeriesInstanceUID": ct.SeriesInstanceUID,
    }
    target = path(service, tags, f"instances/{ct.SOPInstanceUID}/frames/1")
    status, headers, body = service.raw("GET", target)
    assert status == 200
    assert headers["Content-Type"].startswith('multipart/related; type="application/octet-stream"')
    start = body.index(b"\r\n\r\n") + 4
    assert body[start : start + len(ct.PixelData)] == ct.PixelData
    assert b"transfer-syntax=1.2.840.10008.1.2.1" in body[:start]


def test_several_frames(service, rows):
    for row in rows:
        for uid, instance in document(service, row).items():
            entries = instance["ImageFrames"]
            if len(entries) < 3:
                continue
            target = path(service, row["DICOMTags"], f"instances/{uid}/frames/")
            query = f"?imageSetId={row['imageSetId']}"
            _, _, body = service.raw("GET", f"{target}3,1{query}")
            sizes = [entries[place]["FrameSizeInBytes"] for place in (2, 0)]
            assert sum(sizes) < len(body) < sum(sizes) + 600
            assert service.raw("GET", f"{target}3%2C1{query}")[2] == body
            assert service.raw("GET", f"{target}1,1{query}")[0] == 400
            assert service.raw("GET", f"{target}{len(entries) + 1}{query}")[0] == 404
            assert service.raw("GET", f"{target}0{query}")[0] == 404
            return
    pytest.fail("no instance has three frames")


def test_only_the_primary_image_set_is_found_without_an_id(exactly):
    tags = {"DICOMStudyInstanceUID": "1.2", "DICOMSeriesInstanceUID": "1.2.3"}
    service = exactly({"DICOMTags": tags})
    [copy] = service.emulator.admin.import_summaries([{"DICOMTags": tags}], instances=2)
    count = {
        query: len(json.loads(service.raw("GET", path(service, tags, f"metadata{query}"))[2]))
        for query in ("", f"?imageSetId={copy}")
    }
    assert list(count.values()) == [1, 2]


def test_what_does_not_exist(service, rows):
    tags = rows[0]["DICOMTags"]
    other = tags | {"DICOMSeriesInstanceUID": "1.2.3.4.5"}
    asked = (
        path(service, other, "metadata"),
        path(service, other, f"metadata?imageSetId={rows[0]['imageSetId']}"),
        path(service, tags, f"metadata?imageSetId={'0' * 32}"),
        path(service, tags, "instances/1.2.3/frames/1"),
        path(service, tags, "instances/1.2.3/frames/x"),
        path(service, tags, "metadata").replace(service.datastore, "0" * 32),
    )
    for target in asked:
        assert service.raw("GET", target)[0] == 404, target
    assert service.raw("POST", path(service, tags, "metadata"))[0] == 404


def test_faults_and_counts_reach_dicomweb(fresh):
    tags = {"DICOMStudyInstanceUID": "1.2", "DICOMSeriesInstanceUID": "1.2.3"}
    old = {"storageTier": "ARCHIVE_INSTANT_ACCESS", "lastAccessedAt": 1.6e9}
    service = fresh(quotas="GetDICOMSeriesMetadata=0.001")
    service.emulator.admin.import_summaries([old | {"DICOMTags": tags}])
    target = path(service, tags, "metadata")
    assert [service.raw("GET", target)[0] for _ in range(3)] == [200, 429, 429]
    stats = service.emulator.admin.stats()
    assert stats["requests"] == {"GetDICOMSeriesMetadata": 3}
    assert stats["moved_to_frequent"] == 1
