"""Import jobs: which are listed, what is said of them, and what is said if nobody tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from typer.testing import CliRunner

from cohortlake import HealthImaging, Settings, Sync
from cohortlake.admin import checks
from cohortlake.admin.imports import DatastoreImports, imports
from cohortlake.cli.app import app
from cohortlake.cli.status_commands import _of_imports
from cohortlake.healthimaging import client
from cohortlake.healthimaging.import_jobs import ImportJob

FAST = Settings(datastores=(DATASTORE,), tps=1000)
SUBMITTED = datetime(2026, 1, 31, 12, tzinfo=UTC)


def job(number: int, status: str = "FAILED", **others: Any) -> dict[str, Any]:
    submitted = SUBMITTED.timestamp() + 60 * number
    ended = {"endedAt": submitted + 30} if status in ("FAILED", "COMPLETED") else {}
    return {
        "jobId": f"{number:032x}",
        "jobName": f"night-{number}",
        "jobStatus": status,
        "datastoreId": DATASTORE,
        "submittedAt": submitted,
        **ended,
        **others,
    }


def parsed(given: dict[str, Any]) -> ImportJob:
    """Return a job as boto3 hands it out, with instants."""
    instants = {
        name: datetime.fromtimestamp(at, UTC) for name, at in given.items() if name[-2:] == "At"
    }
    return ImportJob.from_summary(given | instants)


def listed() -> DatastoreImports:
    (found,) = imports(lambda: HealthImaging(FAST), [DATASTORE])
    return found


def test_jobs_that_failed_or_are_under_way_are_listed_over_all_pages(endpoint: Endpoint) -> None:
    statuses = ["FAILED", "COMPLETED", "SUBMITTED", "IN_PROGRESS"] * 3
    endpoint.import_jobs = [job(number, status) for number, status in enumerate(statuses)]
    found = listed()
    assert [int(one.job_id, 16) for one in found.failed] == [8, 4, 0], "the last submitted first"
    assert [int(one.job_id, 16) for one in found.under_way] == [11, 10, 7, 6, 3, 2]
    assert len(found.jobs) == 9
    assert (found.is_whole, found.unknown_because) == (True, "")
    newest = found.failed[0]
    assert newest.submitted_at == SUBMITTED + timedelta(minutes=8)
    assert newest.ended_at == SUBMITTED + timedelta(minutes=8, seconds=30)
    assert found.under_way[0].ended_at is None


def test_no_more_jobs_are_read_than_a_person_waits_for(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.admin.imports._MOST_JOBS", 3)
    endpoint.import_jobs = [job(number) for number in range(5)]
    found = listed()
    assert (len(found.failed), found.is_whole) == (3, False)
    assert "at least 3 failed" in _of_imports(found)[0]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Access Denied to s3://in/DOE^JOHN.dcm", "access denied"),
        ("The role cannot be assumed", "access denied"),
        ("KMS: access denied", "a key of KMS could not be used"),
        ("The input prefix contains no DICOM P10 files", "no DICOM files at the input"),
        ("The input bucket does not exist: DOE", "input or output not found"),
        ("The input prefix cannot be read", "input could not be read"),
        ("Too many files: quota 5000", "a limit was exceeded"),
        ("Internal Server Error", "the service failed"),
        ("Patient DOE^JOHN", "another reason; GetDICOMImportJob tells it"),
        ("", "no reason given"),
        (None, "no reason given"),
    ],
)
def test_a_reason_is_told_in_general_words(message: str | None, reason: str) -> None:
    found = parsed(job(1, message=message, inputS3Uri="s3://in/DOE"))
    assert found.reason == reason
    assert "DOE" not in repr(found)


def test_a_job_that_did_not_fail_has_no_reason() -> None:
    assert parsed(job(1, "COMPLETED", message="12 warnings")).reason == ""


def test_what_the_service_leaves_out_is_no_error() -> None:
    least = {"jobId": "a", "jobStatus": "FAILED"}
    found = ImportJob.from_summary(least)
    assert (found.name, found.submitted_at, found.ended_at) == ("", None, None)
    assert "submitted unknown" in _of_imports(DatastoreImports(DATASTORE, (found,)))[1]


def test_a_missing_right_is_said_in_one_line(endpoint: Endpoint) -> None:
    endpoint.denied = {"ListDICOMImportJobs"}
    found = listed()
    assert found.jobs == ()
    (line,) = _of_imports(found)
    assert "add medical-imaging:ListDICOMImportJobs to its IAM policy" in line


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_ACCESS_KEY_ID"])
def test_a_machine_without_region_or_credentials_is_told_so(
    endpoint: Endpoint, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable)
    found = imports(lambda: HealthImaging(FAST), ["a" * 32, "b" * 32])
    assert [len(store.jobs) for store in found] == [0, 0]
    assert all(
        "AWS" in store.unknown_because or "boto3" in store.unknown_because for store in found
    )


def test_a_service_that_cannot_be_reached_is_asked_for_the_first_data_store_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", "http://127.0.0.1:9")
    monkeypatch.setattr(client, "_LONGEST_WAIT_SECONDS", 0.001)
    asked = list[int]()

    def connect() -> HealthImaging:
        asked.append(1)
        return HealthImaging(FAST)

    found = imports(connect, ["a" * 32, "b" * 32])
    assert len(asked) == 1
    assert all("could not reach" in store.unknown_because for store in found)


def test_one_data_store_that_is_gone_does_not_hide_another(endpoint: Endpoint) -> None:
    endpoint.import_jobs = [job(1)]
    with emulated() as emulator:
        emulator.admin.add_import_job("FAILED", name="night", message="Access Denied")
        found = imports(lambda: HealthImaging(FAST), ["f" * 32, *emulator.datastores])
    assert "no data store" in found[0].unknown_because
    assert [one.reason for one in found[1].failed] == ["access denied"]


def test_a_listing_goes_on_when_the_service_throttles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ATTEMPTS_AT_STATUS", 20)  # how long it waits is left to chance
    with emulated(quotas="ListDICOMImportJobs=2", burst=1, seed=3) as emulator:
        for status in ("FAILED", "COMPLETED", "SUBMITTED", "IN_PROGRESS"):
            emulator.admin.add_import_job(status, name=status)
        (found,) = imports(lambda: HealthImaging(FAST), emulator.datastores)
        throttled = emulator.admin.stats()["faults"].get("throttled", 0)
    assert throttled
    assert {one.name for one in found.jobs} == {"FAILED", "SUBMITTED", "IN_PROGRESS"}


def store(*jobs: dict[str, Any], unknown: str = "") -> DatastoreImports:
    return DatastoreImports(DATASTORE, tuple(map(parsed, jobs)), unknown_because=unknown)


def test_the_check_warns_for_a_day() -> None:
    failed = store(job(0), job(1, "IN_PROGRESS"))
    result = checks.check_imports([failed], lambda _: SUBMITTED + timedelta(hours=23))
    assert not result.passed
    counts = {"failed_in_a_day": 1, "failed": 1, "under_way": 1, "unknown_because": ""}
    assert result.counts == counts
    later = checks.check_imports([failed], lambda _: SUBMITTED + timedelta(hours=25))
    assert (later.passed, later.counts["failed"]) == (True, 1)


def test_the_check_passes_where_nobody_tells() -> None:
    result = checks.check_imports([store(unknown="no right")], lambda _: SUBMITTED)
    assert (result.passed, result.counts["unknown_because"]) == (True, "no right")


def test_status_lists_them_after_the_figures(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sync(lake_settings).run()
    endpoint.import_jobs = [job(n, message="Access Denied DOE") for n in range(12)]
    monkeypatch.setenv("COHORTLAKE_ROOT", lake_settings.root)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", DATASTORE)
    monkeypatch.setenv("COHORTLAKE_PRIVACY", "limited")
    without = CliRunner().invoke(app, ["status"])
    lines = without.output.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("import jobs"))
    assert lines[at] == (
        f"import jobs of data store {DATASTORE} in the last 90 days: 12 failed, 0 under way"
    )
    assert lines[at + 1] == (
        f"  FAILED {11:032x} night-11, submitted 2026-01-31 12:11:00, ended 2026-01-31 12:11:30 "
        "(UTC): access denied"
    )
    assert lines[-1] == "  and 2 more; --json lists them"
    told = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)
    (of_store,) = told["imports"]
    assert len(of_store["jobs"]) == 12
    assert of_store["jobs"][0]["reason"] == "access denied"
    assert told["exit_code"] == without.exit_code, "jobs that failed do not change the verdict"
    assert "DOE" not in without.output + json.dumps(told)
