"""What the client relies on in botocore, and how it paces and explains."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from endpoint import DATASTORE, Endpoint

from cohortlake import HealthImaging, Settings
from cohortlake.errors import (
    NoCredentials,
    RequestRefused,
    ServiceUnavailable,
    SettingError,
)
from cohortlake.healthimaging import Axis, Meter, Window
from cohortlake.healthimaging.page import BrokenAnswer, Page
from cohortlake.healthimaging.search_criteria import parse_criteria
from cohortlake.healthimaging.token_bucket import TokenBucket
from cohortlake.stop import Stop

FAST = Settings(datastores=(DATASTORE,), tps=1000)
WINDOW = Window(
    Axis.UPDATED_AT, datetime(2026, 1, 1, 0, 0, 0, 123000, UTC), datetime(2026, 2, 1, tzinfo=UTC)
)


# Two things that botocore does not document, and that `HealthImaging` relies on: a handler of
# `before-parse` may take the body, and timestamps keep their milliseconds. Older releases cut
# these, and adjacent windows lost rows.


def test_the_hook_keeps_the_body_as_sent(endpoint: Endpoint) -> None:
    endpoint.image_sets = [{"imageSetId": "a" * 32, "updatedAt": 1767300000.123, "later": [1]}]
    page = HealthImaging(FAST).search_page(DATASTORE, WINDOW.criteria())
    assert b'"later": [1]' in page.body
    assert [head.image_set_id for head in page.heads] == ["a" * 32]


def test_request_timestamps_keep_their_milliseconds(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def search(criteria: dict[str, Any], *_: Any) -> dict[str, Any]:
        sent.append(criteria["filters"][0]["values"])
        return {"imageSetsMetadataSummaries": []}

    monkeypatch.setattr(endpoint, "search", search)
    HealthImaging(FAST).search_page(DATASTORE, WINDOW.criteria())
    assert sent == [[{"updatedAt": 1767225600.121}, {"updatedAt": 1769904000.002}]]


class _Raw(BytesIO):
    def stream(self, **_: Any) -> list[bytes]:
        return [self.getvalue()]


def _answer(request: Any, status: int, body: bytes) -> AWSResponse:
    return AWSResponse(request.url, status, HTTPHeaders(), _Raw(body))


CALLS: dict[str, Callable[[HealthImaging, Meter], object]] = {
    "GetDatastore": lambda service, _: service.datastore(DATASTORE),
    "SearchImageSets": lambda service, m: service.search_page(
        DATASTORE, WINDOW.criteria(), None, m
    ),
    "GetImageSet": lambda service, _: service.has_image_set(DATASTORE, "a" * 32),
    "ListImageSetVersions": lambda service, m: service.versions(DATASTORE, "a" * 32, m),
    "GetImageSetMetadata": lambda service, m: service.metadata(DATASTORE, "a" * 32, 1, list, m),
}


@pytest.mark.parametrize("operation", CALLS)
def test_each_attempt_waits_for_its_slot_and_is_signed_after_that(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now[0])
    service, meter, sent = HealthImaging(FAST), Meter(), []

    def wait() -> None:
        now[0] += timedelta(minutes=20)

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append((request.headers["X-Amz-Date"].decode(), f"{now[0]:%Y%m%dT%H%M%SZ}"))
        return _answer(request, 500, b"{}")

    monkeypatch.setattr(service._bucket_of(operation), "acquire", wait)
    service._client.meta.events.register_last("before-send.medical-imaging", answer)
    with pytest.raises(ServiceUnavailable, match=operation):
        CALLS[operation](service, meter)
    assert len(sent) == 8
    assert all(signed == at for signed, at in sent)
    assert now[0] == datetime(2026, 1, 1, tzinfo=UTC) + 8 * timedelta(minutes=20)
    assert meter.requests == (0 if operation in ("GetDatastore", "GetImageSet") else 8)


@pytest.mark.parametrize(
    ("code", "names_the_clock"),
    [
        ("UnrecognizedClientException", False),
        ("ExpiredTokenException", False),
        ("InvalidSignatureException", True),
        ("RequestExpired", True),
        ("SignatureDoesNotMatch", True),
    ],
)
def test_a_signature_that_is_refused_may_be_the_clocks_fault(
    endpoint: Endpoint, code: str, names_the_clock: bool
) -> None:
    endpoint.misbehaviour = (403, b"{}", code)
    with pytest.raises(NoCredentials, match=f"the service answered {code}") as refused:
        HealthImaging(FAST).search_page(DATASTORE, WINDOW.criteria())
    assert ("clock of this machine" in str(refused.value)) == names_the_clock


VPCE = "vpce-0123456789abcdef0-a1b2c3d4"


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({}, "runtime-medical-imaging.us-east-1.amazonaws.com"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "runtime-medical-imaging-fips.us-east-1.amazonaws.com"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "runtime-medical-imaging.us-east-1.api.aws"),
        ({"AWS_REGION": "cn-north-1"}, "runtime-medical-imaging.cn-north-1.amazonaws.com.cn"),
        ({"AWS_REGION": "eusc-de-east-1"}, "runtime-medical-imaging.eusc-de-east-1.amazonaws.eu"),
        (
            {"AWS_DISABLE_HOST_PREFIX_INJECTION": "true"},
            "medical-imaging.us-east-1.amazonaws.com",
        ),
        (
            {"URL": "https://medical-imaging.us-east-1.amazonaws.com"},
            "runtime-medical-imaging.us-east-1.amazonaws.com",
        ),
        *(
            ({"URL": f"https://{host}"}, host)
            for host in (
                f"{VPCE}.medical-imaging.us-east-1.vpce.amazonaws.com",
                f"{VPCE}-us-east-1a.runtime-medical-imaging.us-east-1.vpce.amazonaws.com",
                f"{VPCE}.medical-imaging.cn-north-1.vpce.amazonaws.com.cn",
                "runtime-medical-imaging.us-east-1.amazonaws.com",
                "medical-imaging.hospital.example",
                "amazonaws.hospital.example",
                "localhost:4566",
                "127.0.0.1:5000",
            )
        ),
        ({"AWS_ENDPOINT_URL": "http://localhost:4566"}, "localhost:4566"),
        ({"AWS_PROFILE": "private"}, f"{VPCE}.medical-imaging.us-east-1.vpce.amazonaws.com"),
    ],
)
def test_runtime_goes_before_the_hosts_of_aws_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], host: str
) -> None:
    url = f"https://{VPCE}.medical-imaging.us-east-1.vpce.amazonaws.com"
    (tmp_path / "config").write_text(
        "[profile private]\nservices = here\n"
        f"[services here]\nmedical_imaging =\n  endpoint_url = {url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in variables.items():
        monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING" if name == "URL" else name, value)
    service, asked = HealthImaging(FAST), []

    def answer(request: Any, **_: Any) -> AWSResponse:
        asked.append(urlsplit(request.url).netloc)
        return _answer(request, 200, b'{"imageSetsMetadataSummaries": []}')

    service._client.meta.events.register("before-send.medical-imaging", answer)
    service.search_page(DATASTORE, WINDOW.criteria())
    assert asked == [host]


@pytest.mark.parametrize("quota", [190.0, 100.0, 20.0])
def test_few_calls_are_thrown_back_where_the_quota_is_less_than_the_setting(
    monkeypatch: pytest.MonkeyPatch, quota: float
) -> None:
    now, thrown_back, calls = [100.0], 0, 20_000
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Stop, "wait", lambda _, seconds: now.__setitem__(0, now[0] + seconds))
    bucket, tokens, filled_at = TokenBucket(200, burst=1), quota, now[0]
    for _ in range(calls):
        bucket.acquire()
        tokens = min(quota, tokens + (now[0] - filled_at) * quota)
        filled_at = now[0]
        if tokens >= 1:
            tokens -= 1
        else:
            thrown_back += 1
            bucket.slow_down()
    assert 0 < thrown_back <= calls / 40 + 10, "one in forty, and some until it is slow enough"
    assert (calls - thrown_back) / (now[0] - 100.0) > 0.8 * quota, "and little of it goes unused"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"imageSetsMetadataSummaries": [',
        b'{"imageSetsMetadataSummaries": null}',
        b'{"imageSetsMetadataSummaries": [{"version": 1}]}',
        b'{"imageSetsMetadataSummaries": [{"imageSetId": ""}]}',
        b'{"imageSetsMetadataSummaries": [{"imageSetId": 7}]}',
        b'{"imageSetsMetadataSummaries": [], "nextToken": 7}',
    ],
)
def test_what_is_no_whole_page_is_refused(body: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        Page.checked(body)


def test_an_image_set_id_of_a_new_shape_is_said_once_and_kept() -> None:
    body = b'{"imageSetsMetadataSummaries": [{"imageSetId": "9F-1"}]}'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        pages = [Page.checked(body), Page.checked(body)]
    assert [head.image_set_id for page in pages for head in page.heads] == ["9F-1", "9F-1"]
    (warning,) = said
    assert "9F" not in str(warning.message)


def test_a_broken_page_is_asked_for_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([{}, {"imageSetsMetadataSummaries": []}])
    monkeypatch.setattr(endpoint, "search", lambda *_: next(answers))
    meter = Meter()
    page = HealthImaging(FAST).search_page(DATASTORE, WINDOW.criteria(), meter=meter)
    assert (page.heads, meter.requests) == ((), 2)


def test_calls_for_older_versions_keep_to_their_own_quota(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LIST_VERSIONS_TPS", 5.0)
    listed = {"imageSetId": "a" * 32, "imageSetState": "ACTIVE"}
    endpoint.versions = {("a" * 32, n): (listed | {"versionId": str(n)}, b"") for n in range(1, 8)}
    service, meter = HealthImaging(FAST), Meter()
    began = time.monotonic()
    assert len(service.versions(DATASTORE, "a" * 32, meter)) == 7, "two a page"
    assert [v.number for v in service.versions(DATASTORE, "a" * 32)] == [*range(1, 8)]
    service.versions(DATASTORE, "a" * 32)
    assert meter.requests == 4
    assert time.monotonic() - began >= (12 - 5) / 5, "five at once, then five a second"
    for _ in range(20):
        service.search_page(DATASTORE, WINDOW.criteria())
    assert service.has_slack(), "searches do not wait for it"


def test_an_error_holds_no_tag(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    service = HealthImaging(FAST)
    bad = {"filters": [{"operator": "EQUAL", "values": [{"DICOMPatientId": ["Canary"]}]}]}
    with pytest.raises(RequestRefused) as refused:
        service.search_page(DATASTORE, bad)
    error: BaseException | None = refused.value
    while error is not None:  # as a traceback would print it
        assert "Canary" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_an_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", "http://127.0.0.1:9")
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    with pytest.raises(ServiceUnavailable, match=r"could not reach http://127\.0\.0\.1:9"):
        HealthImaging(FAST).datastore(DATASTORE)


def test_the_bucket_spaces_slots_evenly_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(Stop, "wait", lambda _, seconds: slept.append(seconds) if seconds else None)
    bucket = TokenBucket(4)
    threads = [threading.Thread(target=bucket.acquire) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == [0.25, 0.5, 0.75, 1.0]


def test_a_pause_saves_slots_up_to_the_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Stop, "wait", lambda _, seconds: slept.append(seconds) if seconds else None)
    bucket = TokenBucket(4, burst=3)
    for _ in range(4):
        bucket.acquire()
    assert slept == [0.25], "three at once, then the pace"
    assert not bucket.has_slack()
    now[0] = 500.0
    assert bucket.has_slack()
    slept.clear()
    for _ in range(5):
        bucket.acquire()
    assert slept == [0.25, 0.5]
    now[0] = 900.0
    bucket.slow_down()
    slept.clear()
    for _ in range(2):
        bucket.acquire()
    assert slept == [pytest.approx(0.25 * 1.5)], "nothing is saved after a throttle"


def test_the_bucket_slows_down_when_throttled_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Stop, "wait", lambda _, seconds: now.__setitem__(0, now[0] + seconds))
    bucket = TokenBucket(10)

    def spacing() -> float:
        before = now[0]
        bucket.acquire()
        return now[0] - before

    spacing()
    assert spacing() == pytest.approx(0.1)
    for _ in range(3):
        bucket.slow_down()
    spacing()
    assert spacing() == pytest.approx(0.1 * 1.5**3, rel=0.05)
    for _ in range(200):
        spacing()
    assert spacing() == pytest.approx(0.1)


@pytest.mark.parametrize("attribute", ["updatedAt", "createdAt", "StudyDate"])
def test_the_first_and_the_last_day_there_are_can_be_sent(
    endpoint: Endpoint, attribute: str
) -> None:
    wanted = parse_criteria([], [f"{attribute}=0001-01-01..9999-12-31"])
    assert HealthImaging(FAST).search_page(DATASTORE, wanted).heads == ()


def test_criteria_from_text() -> None:
    wanted = parse_criteria(
        ["PatientID=P1"], ["StudyDate=2024-01-01..2024-01-31T13:00"], "updatedAt"
    )
    assert wanted == {
        "filters": [
            {"operator": "EQUAL", "values": [{"DICOMPatientId": "P1"}]},
            {
                "operator": "BETWEEN",
                "values": [
                    {"DICOMStudyDateAndTime": {"DICOMStudyDate": "20240101",
                                               "DICOMStudyTime": "000000.000000"}},
                    {"DICOMStudyDateAndTime": {"DICOMStudyDate": "20240131",
                                               "DICOMStudyTime": "130000.000000"}},
                ],
            },
        ],
        "sort": {"sortField": "updatedAt", "sortOrder": "ASC"},
    }  # fmt: skip


def _study(day: str, time: str) -> dict[str, dict[str, str]]:
    return {"DICOMStudyDateAndTime": {"DICOMStudyDate": day, "DICOMStudyTime": time}}


@pytest.mark.parametrize(
    ("equal", "between", "operator", "values"),
    [
        ([], ["StudyDate=2024-01-01..2024-01-31"], "BETWEEN",
         [_study("20240101", "000000.000000"), _study("20240131", "235959.999999")]),
        ([], ["StudyDate=2024-01-31..20240131"], "BETWEEN",
         [_study("20240131", "000000.000000"), _study("20240131", "235959.999999")]),
        ([], ["StudyDate=2024-01-31T08:30..2024-01-31T00:00"], "BETWEEN",
         [_study("20240131", "083000.000000"), _study("20240131", "000000.000000")]),
        (["StudyDate=2024-01-31"], [], "BETWEEN",
         [_study("20240131", "000000.000000"), _study("20240131", "235959.999999")]),
        (["StudyDate=2024-01-31T00:00"], [], "EQUAL", [_study("20240131", "000000.000000")]),
        (["updatedAt=2024-01-31"], [], "BETWEEN",
         [{"updatedAt": datetime(2024, 1, 31, tzinfo=UTC)},
          {"updatedAt": datetime(2024, 1, 31, 23, 59, 59, 999999, UTC)}]),
        (["PatientID=20240131"], [], "EQUAL", [{"DICOMPatientId": "20240131"}]),
        ([], ["StudyDate=0001-01-01..0999-12-31"], "BETWEEN",
         [_study("00010101", "000000.000000"), _study("09991231", "235959.999999")]),
        ([], ["StudyDate= 2024-01-31 .. 2024-01-31 "], "BETWEEN",
         [_study("20240131", "000000.000000"), _study("20240131", "235959.999999")]),
        (["PatientID= P4 "], [], "EQUAL", [{"DICOMPatientId": " P4 "}]),
        (["AccessionNumber=a=b "], [], "EQUAL", [{"DICOMAccessionNumber": "a=b "}]),
        ([], ["updatedAt=0001-01-01..2024-01-31T00:00+02:00"], "BETWEEN",
         [{"updatedAt": datetime(1, 1, 1, tzinfo=UTC)},
          {"updatedAt": datetime(2024, 1, 30, 22, tzinfo=UTC)}]),
    ],
)  # fmt: skip
def test_a_date_is_its_whole_day(
    equal: list[str], between: list[str], operator: str, values: list[Any]
) -> None:
    assert parse_criteria(equal, between)["filters"] == [{"operator": operator, "values": values}]


@pytest.mark.parametrize(
    ("equal", "between", "sort", "says"),
    [
        ([], [], None, "one or two filters"),
        (["PatientID=1", "StudyID=2", "isPrimary=true"], [], None, "one or two filters"),
        (["PatientId=1"], [], None, "did you mean 'PatientID'"),
        (["Modality=CT"], [], None, "cannot be searched for"),
        (["PatientID"], [], None, "ATTRIBUTE=VALUE"),
        ([], ["updatedAt=2024-01-01"], None, r"FROM\.\.TO"),
        ([], ["updatedAt=a..b"], None, "dates and times"),
        (["isPrimary=maybe"], [], None, "true or false"),
        (["PatientID=1"], [], "Modality", "cannot be searched for"),
        (["PatientID=1"], [], "updatedAt:UP", "ASC or DESC"),
        (["StudyDate=2024-01-01T00:00+02:00"], [], None, "leave the offset"),
        (["DICOMStudyDateAndTime=2024-01-01T00:00Z"], [], None, "leave the offset"),
        ([], ["StudyDate=2024-01-01..2024-01-02T00:00-01:00"], None, "leave the offset"),
    ],
)
def test_criteria_that_the_service_would_refuse(
    equal: list[str], between: list[str], sort: str | None, says: str
) -> None:
    with pytest.raises(SettingError, match=says):
        parse_criteria(equal, between, sort)
