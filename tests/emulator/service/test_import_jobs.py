"""Import jobs: their states by the clock, lists and pages, and what they import."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from emulator import AdminError

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NOW = datetime(2024, 6, 3, 9, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/import"


@pytest.fixture
def bucket(tmp_path):
    folder = tmp_path / "clinic" / "today"
    folder.mkdir(parents=True)
    shutil.copy(FILES / "CT_small.dcm", folder)
    shutil.copy(FILES / "MR_small.dcm", folder)
    return tmp_path


def start(service, prefix="clinic/today/", attempt="once", **more):
    return service.client.start_dicom_import_job(
        datastoreId=service.datastore,
        jobName="morning",
        dataAccessRoleArn=ROLE,
        clientToken=attempt,
        inputS3Uri=f"s3://{prefix}",
        outputS3Uri="s3://clinic/out/",
        **more,
    )


def job(service, job_id):
    return service.client.get_dicom_import_job(datastoreId=service.datastore, jobId=job_id)[
        "jobProperties"
    ]


def listed(service, size=50, **given):
    pages = service.client.get_paginator("list_dicom_import_jobs").paginate(
        datastoreId=service.datastore, PaginationConfig={"PageSize": size}, **given
    )
    return [one for page in pages for one in page["jobSummaries"]]


def test_a_job_waits_runs_and_imports(fresh, bucket):
    service = fresh(s3_root=bucket, import_ms=40_000)
    started = start(service)
    assert (started["jobStatus"], started["submittedAt"]) == ("SUBMITTED", NOW)
    states = []
    for _ in range(5):
        found = job(service, started["jobId"])
        states.append((found["jobStatus"], "endedAt" in found, len(service.search())))
        service.emulator.admin.advance(seconds=10)
    assert states == [
        ("SUBMITTED", False, 0),
        ("IN_PROGRESS", False, 0),
        ("IN_PROGRESS", False, 0),
        ("IN_PROGRESS", False, 0),
        ("COMPLETED", True, 2),
    ]
    assert found["inputS3Uri"] == "s3://clinic/today/"
    assert (found["endedAt"] - NOW).total_seconds() == 40
    assert {row["createdAt"] for row in service.search()} == {found["endedAt"]}
    row = service.search()[0]
    ids = {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}
    assert service.client.get_image_set_metadata(**ids)["contentEncoding"] == "gzip"


def test_the_same_files_again_add_nothing(fresh, bucket):
    service = fresh(s3_root=bucket)
    start(service)
    service.emulator.admin.advance(seconds=60)
    before = service.search()
    again = start(service, attempt="again")["jobId"]
    service.emulator.admin.advance(seconds=60)
    assert job(service, again)["jobStatus"] == "COMPLETED"
    assert service.search() == before


def test_a_changed_series_becomes_a_further_image_set(fresh, bucket):
    service = fresh(s3_root=bucket)
    start(service)
    service.emulator.admin.advance(seconds=60)
    [gone] = [row for row in service.search() if row["DICOMTags"]["DICOMSeriesModality"] == "MR"]
    service.client.delete_image_set(datastoreId=service.datastore, imageSetId=gone["imageSetId"])
    path = bucket / "clinic" / "today" / "CT_small.dcm"
    changed = pydicom.dcmread(path)
    changed.PatientName = "Other^Name"
    changed.save_as(path)
    start(service, attempt="again")
    service.emulator.admin.advance(seconds=60)
    rows = service.search()
    found = sorted((row["DICOMTags"]["DICOMSeriesModality"], row["isPrimary"]) for row in rows)
    assert found == [("CT", False), ("CT", True), ("MR", True)]
    assert gone["imageSetId"] not in {row["imageSetId"] for row in rows}


def test_a_token_starts_one_job(fresh, bucket):
    service = fresh(s3_root=bucket)
    first, second, other = (start(service, attempt=attempt) for attempt in ("a", "a", "b"))
    assert first["jobId"] == second["jobId"] != other["jobId"]
    assert len(listed(service)) == 2


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("clinic/nothing/", "cannot be read"),
        ("clinic/empty/", "contains no DICOM"),
        ("clinic/../../", "does not exist"),
    ],
)
def test_jobs_that_fail_say_why(fresh, bucket, prefix, message):
    (bucket / "clinic" / "empty").mkdir()
    service = fresh(s3_root=bucket)
    job_id = start(service, prefix)["jobId"]
    service.emulator.admin.advance(seconds=61)
    found = job(service, job_id)
    assert found["jobStatus"] == "FAILED"
    assert message in found["message"]
    assert service.search() == []


def test_without_buckets_every_job_fails(fresh):
    service = fresh()
    job_id = start(service)["jobId"]
    service.emulator.admin.advance(seconds=61)
    assert "--s3-root" in job(service, job_id)["message"]


def test_jobs_survive_a_restart(fresh, bucket, tmp_path):
    path = tmp_path / "state.db"
    first = fresh(db=path, s3_root=bucket)
    job_id = start(first)["jobId"]
    second = fresh(db=path, s3_root=bucket, now="2024-06-03T09:02:00Z")
    assert job(second, job_id)["jobStatus"] == "COMPLETED"
    assert len(second.search()) == 2


def test_the_synthetic_hospital_has_jobs_in_every_state(hospital):
    jobs = listed(hospital)
    submitted = [one["submittedAt"] for one in jobs]
    assert submitted == sorted(submitted, reverse=True)
    states = [one["jobStatus"] for one in jobs]
    assert (states.count("SUBMITTED"), states.count("IN_PROGRESS")) == (1, 1)
    assert 1 <= states.count("FAILED") < 12 < states.count("COMPLETED")
    for one in jobs:
        ended = one["jobStatus"] in ("COMPLETED", "FAILED")
        assert ("endedAt" in one) == ended
        assert ("message" in one) == (one["jobStatus"] == "FAILED")
    for status in set(states):
        found = listed(hospital, jobStatus=status, size=7)
        assert found == [one for one in jobs if one["jobStatus"] == status]


def test_pages_do_not_shift_when_a_job_comes(fresh):
    service = fresh(synthetic=1)
    ask = {"datastoreId": service.datastore, "maxResults": 5}
    jobs = listed(service)
    first = service.client.list_dicom_import_jobs(**ask)
    service.emulator.admin.advance(seconds=1)
    service.emulator.admin.add_import_job("FAILED")
    second = service.client.list_dicom_import_jobs(**ask, nextToken=first["nextToken"])
    ids = [one["jobId"] for page in (first, second) for one in page["jobSummaries"]]
    assert ids == [one["jobId"] for one in jobs[:10]]


def test_jobs_on_demand(fresh):
    service = fresh()
    admin = service.emulator.admin
    for status in ("SUBMITTED", "IN_PROGRESS", "COMPLETED", "FAILED"):
        job_id = admin.add_import_job(status, name=f"{status}-1", message="Access Denied")
        found = job(service, job_id)
        assert found["jobStatus"] == status
        assert found.get("message") == ("Access Denied" if "endedAt" in found else None)
    admin.advance(days=1)
    assert {one["jobStatus"] for one in listed(service)} == {"COMPLETED", "FAILED"}
    with pytest.raises(AdminError, match="IN_PROGRESS"):
        admin.add_import_job("DONE")


def test_requests_that_are_wrong(fresh):
    service = fresh()
    errors = service.client.exceptions
    with pytest.raises(errors.ResourceNotFoundException):
        job(service, "0" * 32)
    with pytest.raises(errors.ValidationException, match="inputS3Uri"):
        start(service, prefix="x")
    with pytest.raises(errors.ValidationException, match="jobStatus"):
        listed(service, jobStatus="DONE")
    with pytest.raises(errors.ValidationException, match="nextToken"):
        service.client.list_dicom_import_jobs(datastoreId=service.datastore, nextToken="x")
    with pytest.raises(errors.ResourceNotFoundException):
        service.client.list_dicom_import_jobs(datastoreId="0" * 32)


def test_the_configuration_of_a_request_is_kept(fresh, bucket):
    mapping = {"studyInstanceUID": "1.2", "metadataFilePath": "meta/one.json"}
    configuration = {"dicomJsonMetadataImportConfiguration": {"dicomMetadataMappings": [mapping]}}
    service = fresh(s3_root=bucket)
    job_id = start(service, importConfiguration=configuration)["jobId"]
    assert job(service, job_id)["importConfiguration"] == configuration
