"""The C++ SDK's form of requests, which differs from that of all other clients.

The SDK itself is not built for the tests.

It writes JSON with `WriteReadable`: members on lines of their own, indented by tabs, and arrays in
one line. Instants are doubles of seconds with milliseconds, as `printf("%1.15g")` writes them, or
`%1.17g` where that would change the double. AWS's example gives times of study as `000000.000`.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FIRST, SECOND = 1717400000.123, 1717400000.124
OTHER_DOUBLE = 1717400000.1229999
"""Of the same millisecond as FIRST: other sums of seconds and milliseconds end in it."""


def readable(value: Any, depth: int = 0) -> str:
    """Write JSON as the C++ SDK's `WriteReadable` does."""
    if isinstance(value, dict):
        indent = "\t" * (depth + 1)
        members = (f"{indent}{json.dumps(k)}:\t{readable(v, depth + 1)}" for k, v in value.items())
        return "{\n" + ",\n".join(members) + "\n" + "\t" * depth + "}"
    if isinstance(value, list):
        return "[" + ", ".join(readable(each, depth + 1) for each in value) + "]"
    if isinstance(value, float):
        short = f"{value:.15g}"
        return short if float(short) == value else f"{value:.17g}"
    return json.dumps(value)


def test_it_writes_as_the_sdk_does() -> None:
    study = {
        "DICOMStudyDateAndTime": {"DICOMStudyDate": "19990101", "DICOMStudyTime": "000000.000"}
    }
    criteria = {"filters": [{"values": [study, {"updatedAt": 482112000.5}], "operator": "BETWEEN"}]}
    assert readable(criteria) == (
        '{\n\t"filters":\t[{\n\t\t\t"values":\t[{\n\t\t\t\t\t"DICOMStudyDateAndTime":\t{\n'
        '\t\t\t\t\t\t"DICOMStudyDate":\t"19990101",\n\t\t\t\t\t\t"DICOMStudyTime":\t"000000.000"\n'
        '\t\t\t\t\t}\n\t\t\t\t}, {\n\t\t\t\t\t"updatedAt":\t482112000.5\n\t\t\t\t}],\n'
        '\t\t\t"operator":\t"BETWEEN"\n\t\t}]\n}'
    )


def send(service: Any, criteria: dict[str, Any], **query: object) -> tuple[int, Any]:
    """Send a search as the C++ SDK does, signed, and return the status and the answer."""
    asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    path = f"/datastore/{service.datastore}/searchImageSets"
    request = AWSRequest(
        "POST",
        f"{service.emulator.endpoint}{path}?{asked}".rstrip("?"),
        {
            "content-type": "application/json",
            "user-agent": "aws-sdk-cpp/1.11.500 ua/2.1 api/Medical_Imaging os/Linux",
            "amz-sdk-request": "attempt=1",
        },
        readable(criteria).encode(),
    )
    SigV4Auth(Credentials("any", "any"), "medical-imaging", "us-east-1").add_auth(request)
    url = urlsplit(request.url)
    connection = http.client.HTTPConnection(url.netloc)
    try:
        target = f"{url.path}?{url.query}" if url.query else url.path
        connection.request("POST", target, request.data, dict(request.headers))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def summary(number: int, at: float, date: str, **more: Any) -> dict[str, Any]:
    tags = {
        "DICOMPatientId": f"P{number}",
        "DICOMSeriesInstanceUID": f"1.2.{number // 2}",
        "DICOMStudyDate": date,
        "DICOMStudyTime": "000000",
    }
    return {"createdAt": at, "updatedAt": at, "DICOMTags": tags, **more}


@pytest.fixture
def service(exactly: Any) -> Any:
    return exactly(
        summary(0, FIRST, "19990101"),
        summary(1, SECOND, "19990102", isPrimary=False),
        summary(2, SECOND + 60, "19990103"),
    )


def study(date: str) -> dict[str, Any]:
    return {"DICOMStudyDateAndTime": {"DICOMStudyDate": date, "DICOMStudyTime": "000000.000"}}


BETWEEN_UPDATES = {
    "values": [{"updatedAt": FIRST}, {"updatedAt": SECOND}],
    "operator": "BETWEEN",
}
SEARCHES = {
    "a patient": ([{"values": [{"DICOMPatientId": "P2"}], "operator": "EQUAL"}], ["P2"]),
    "dates of study": (
        [{"values": [study("19990101"), study("19990102")], "operator": "BETWEEN"}],
        ["P0", "P1"],
    ),
    "instants of creation": (
        [{"values": [{"createdAt": OTHER_DOUBLE}, {"createdAt": FIRST}], "operator": "BETWEEN"}],
        ["P0"],
    ),
    "updates of a series": (
        [{"values": [{"DICOMSeriesInstanceUID": "1.2.0"}], "operator": "EQUAL"}, BETWEEN_UPDATES],
        ["P0", "P1"],
    ),
}


@pytest.mark.parametrize(("filters", "expected"), SEARCHES.values(), ids=SEARCHES)
def test_the_searches_of_the_api_page(
    service: Any, filters: list[dict[str, Any]], expected: list[str]
) -> None:
    by_update = {"sortOrder": "ASC", "sortField": "updatedAt"}
    status, answer = send(service, {"filters": filters, "sort": by_update})
    assert status == 200, answer
    found = answer["imageSetsMetadataSummaries"]
    assert [row["DICOMTags"]["DICOMPatientId"] for row in found] == expected
    # The SDK reads instants as doubles, whatever their value.
    assert all(isinstance(row["createdAt"], int | float) for row in found)
    assert answer["sort"] == by_update


def test_it_follows_the_tokens(service: Any) -> None:
    everything = {"sort": {"sortOrder": "ASC", "sortField": "updatedAt"}}
    found: list[str] = []
    query: dict[str, object] = {"maxResults": 1}
    while True:
        status, answer = send(service, everything, **query)
        assert status == 200, answer
        found += [
            row["DICOMTags"]["DICOMPatientId"] for row in answer["imageSetsMetadataSummaries"]
        ]
        if "nextToken" not in answer:
            break
        query = {"maxResults": 1, "nextToken": answer["nextToken"]}
    assert found == ["P0", "P1", "P2"]
