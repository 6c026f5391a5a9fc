"""Each operation, over HTTP with boto3."""

import gzip
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

NOW = datetime(2024, 6, 3, 9, tzinfo=UTC)


def test_search_answers_as_the_model_says(hospital):
    answer = hospital.client.search_image_sets(datastoreId=hospital.datastore)
    assert len(answer["imageSetsMetadataSummaries"]) == 50
    assert answer["sort"] == {"sortField": "updatedAt", "sortOrder": "DESC"}
    first = answer["imageSetsMetadataSummaries"][0]
    assert set(first) <= set(
        hospital.client.meta.service_model.shape_for("ImageSetsMetadataSummary").members
    )
    updated = [row["updatedAt"] for row in answer["imageSetsMetadataSummaries"]]
    assert updated == sorted(updated, reverse=True)
    assert updated[0] <= NOW


def test_timestamps_have_milliseconds_on_the_wire(hospital):
    _, body = hospital.post(maxResults=50)
    stamps = [row["updatedAt"] for row in body["imageSetsMetadataSummaries"]]
    assert all(stamp == round(stamp, 3) for stamp in stamps)
    assert any(stamp % 1 for stamp in stamps)


def test_the_date_header_shows_the_simulated_clock(hospital):
    answer = hospital.client.get_datastore(datastoreId=hospital.datastore)
    date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
    assert parsedate_to_datetime(date) == NOW
    assert answer["ResponseMetadata"]["RequestId"]


def test_get_and_list_datastores(hospital):
    listed = hospital.client.list_datastores()["datastoreSummaries"]
    assert [one["datastoreId"] for one in listed] == list(hospital.emulator.datastores)
    got = hospital.client.get_datastore(datastoreId=hospital.datastore)["datastoreProperties"]
    assert got == listed[0]
    assert got["datastoreStatus"] == "ACTIVE"
    assert hospital.client.list_datastores(datastoreStatus="DELETED")["datastoreSummaries"] == []


def test_list_datastores_pages(hospital):
    pages = hospital.client.get_paginator("list_datastores").paginate(
        PaginationConfig={"PageSize": 1}
    )
    assert [len(page["datastoreSummaries"]) for page in pages] == [1, 1]


def test_image_set_and_its_versions(exactly):
    service = exactly({"DICOMTags": {"DICOMPatientId": "A"}})
    [row] = service.search()
    ids = {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}
    service.emulator.admin.advance(seconds=5)
    service.emulator.admin.update(row["imageSetId"], {"DICOMPatientId": "B"})

    newest = service.client.get_image_set(**ids)
    assert (newest["versionId"], newest["imageSetState"]) == ("2", "ACTIVE")
    assert newest["imageSetWorkflowStatus"] == "UPDATED"
    assert newest["createdAt"] == row["createdAt"]
    assert (newest["updatedAt"] - row["updatedAt"]).total_seconds() == 5
    assert newest["imageSetArn"].endswith(f"{service.datastore}/imageset/{row['imageSetId']}")
    assert service.client.get_image_set(**ids, versionId="1")["updatedAt"] == row["updatedAt"]

    pages = service.client.get_paginator("list_image_set_versions").paginate(
        **ids, PaginationConfig={"PageSize": 1}
    )
    versions = [one for page in pages for one in page["imageSetPropertiesList"]]
    assert [one["versionId"] for one in versions] == ["2", "1"]
    assert versions[0]["ImageSetWorkflowStatus"] == "UPDATED"
    assert versions[0]["updatedAt"] == newest["updatedAt"]
    assert "updatedAt" not in versions[1], "as in AWS's example"
    assert {one["createdAt"] for one in versions} == {row["createdAt"]}


def test_metadata_agrees_with_the_summary(hospital):
    row = hospital.search(size=50)[7]
    ids = {"datastoreId": hospital.datastore, "imageSetId": row["imageSetId"]}
    answer = hospital.client.get_image_set_metadata(**ids)
    assert answer["contentType"] == "text/plain"
    assert answer["contentEncoding"] == "gzip"
    with answer["imageSetMetadataBlob"] as blob:
        document = json.loads(gzip.decompress(blob.read()))
    tags = row["DICOMTags"]
    assert document["ImageSetID"] == row["imageSetId"]
    assert document["Patient"]["DICOM"]["PatientID"] == tags["DICOMPatientId"]
    assert document["Study"]["DICOM"]["StudyInstanceUID"] == tags["DICOMStudyInstanceUID"]
    series = document["Study"]["Series"][tags["DICOMSeriesInstanceUID"]]
    assert series["DICOM"]["SeriesNumber"].strip() == str(tags["DICOMSeriesNumber"])
    for uid, instance in series["Instances"].items():
        assert instance["DICOM"]["SOPInstanceUID"] == uid


@pytest.mark.parametrize("version", [{}, {"versionId": "1"}, {"versionId": "2"}])
def test_reading_metadata_moves_an_archived_image_set_back(exactly, version):
    old = NOW.timestamp() - 90 * 86_400
    service = exactly({"storageTier": "ARCHIVE_INSTANT_ACCESS", "lastAccessedAt": old})
    service.emulator.admin.update(service.search()[0]["imageSetId"], {"DICOMPatientId": "P"})
    [before] = service.search()
    assert before["storageTier"] == "ARCHIVE_INSTANT_ACCESS"
    ids = {"datastoreId": service.datastore, "imageSetId": before["imageSetId"]}
    for _ in range(2):
        service.client.get_image_set_metadata(**ids, **version)["imageSetMetadataBlob"].close()
    [after] = service.search()
    assert (after["storageTier"], after["lastAccessedAt"]) == ("FREQUENT_ACCESS", NOW)
    assert after["updatedAt"] == before["updatedAt"]
    assert service.client.get_image_set(**ids)["storageTier"] == "FREQUENT_ACCESS"
    assert service.emulator.admin.stats()["moved_to_frequent"] == 1


def test_metadata_of_an_earlier_version(exactly):
    service = exactly({"DICOMTags": {"DICOMPatientName": "Old^Name"}})
    [row] = service.search()
    ids = {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}
    service.emulator.admin.update(row["imageSetId"], {"DICOMPatientName": ""})
    names = []
    for version in ("1", "2"):
        answer = service.client.get_image_set_metadata(**ids, versionId=version)
        with answer["imageSetMetadataBlob"] as blob:
            document = json.loads(gzip.decompress(blob.read()))
        names.append(document["Patient"]["DICOM"]["PatientName"])
    assert names == ["Old^Name", None]


def test_deleted_image_sets_are_gone(exactly):
    service = exactly({}, {})
    gone, kept = (row["imageSetId"] for row in service.search())
    ids = {"datastoreId": service.datastore, "imageSetId": gone}
    answer = service.client.delete_image_set(**ids)
    assert (answer["imageSetState"], answer["imageSetWorkflowStatus"]) == ("LOCKED", "DELETING")
    assert [row["imageSetId"] for row in service.search()] == [kept]
    assert [row["imageSetId"] for row in service.emulator.admin.truth()] == [kept]
    missing = service.client.exceptions.ResourceNotFoundException
    for operation in (
        "get_image_set", "get_image_set_metadata", "list_image_set_versions", "delete_image_set"
    ):  # fmt: skip
        with pytest.raises(missing):
            getattr(service.client, operation)(**ids)
    service.emulator.admin.behave(deleted_found=True)
    found = service.client.get_image_set(**ids)
    assert (found["imageSetState"], found["deletedAt"]) == ("DELETED", NOW)
    listed = service.client.list_image_set_versions(**ids)["imageSetPropertiesList"]
    assert [one["imageSetState"] for one in listed] == ["DELETED", "ACTIVE"]
    with pytest.raises(missing):
        service.client.get_image_set_metadata(**ids, versionId="1")


@pytest.mark.parametrize("operation", ["get_image_set", "get_image_set_metadata"])
@pytest.mark.parametrize("version", ["7", "0", "9" * 30])
def test_versions_that_do_not_exist(hospital, operation, version):
    ids = {"datastoreId": hospital.datastore, "imageSetId": hospital.search()[0]["imageSetId"]}
    with pytest.raises(hospital.client.exceptions.ResourceNotFoundException):
        getattr(hospital.client, operation)(**ids, versionId=version)


def test_unknown_resources(hospital):
    missing = hospital.client.exceptions.ResourceNotFoundException
    with pytest.raises(missing):
        hospital.client.search_image_sets(datastoreId="0" * 32)
    with pytest.raises(missing):
        hospital.client.get_image_set(datastoreId=hospital.datastore, imageSetId="0" * 32)
    with pytest.raises(missing):
        hospital.client.list_image_set_versions(datastoreId=hospital.datastore, imageSetId="0" * 32)


def test_what_is_not_emulated_says_so(hospital):
    with pytest.raises(hospital.client.exceptions.ClientError, match="not emulated") as caught:
        hospital.client.delete_datastore(datastoreId=hospital.datastore)
    assert caught.value.response["Error"]["Code"] == "NotEmulated"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_paths_that_are_no_operation(hospital):
    for path in ("/", "/datastores", "/datastore//searchImageSets", "/_emulator/nothing"):
        status, headers, _ = hospital.raw("GET", path)
        assert (status, headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")
