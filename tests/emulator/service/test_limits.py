"""Every limit of the service model, broken one at a time, and the rules that it does not state."""

import json

import pytest

from emulator.service.model import HealthImaging

PATIENT = {"operator": "EQUAL", "values": [{"DICOMPatientId": "canary"}]}


def between(*values):
    return {"filters": [{"operator": "BETWEEN", "values": list(values)}]}


def equal(*values):
    return {"filters": [{"operator": "EQUAL", "values": list(values)}]}


BROKEN = {
    "no filters": {"filters": []},
    "three filters": {"filters": [PATIENT] * 3},
    "filters no list": {"filters": PATIENT},
    "no operator": {"filters": [{"values": [{"DICOMPatientId": "canary"}]}]},
    "no values": {"filters": [{"operator": "EQUAL"}]},
    "empty values": equal(),
    "three values": between({"createdAt": 1}, {"createdAt": 2}, {"createdAt": 3}),
    "unknown operator": {"filters": [PATIENT | {"operator": "FOO"}]},
    "empty union": equal({}),
    "union of two": equal({"DICOMPatientId": "canary", "DICOMStudyId": "canary"}),
    "unknown union member": equal({"DICOMSeriesModality": "canary"}),
    "null in a union": equal({"DICOMPatientId": None}),
    "patient id too long": equal({"DICOMPatientId": "x" * 513}),
    "study id too long": equal({"DICOMStudyId": "x" * 513}),
    "accession number too long": equal({"DICOMAccessionNumber": "x" * 513}),
    "uid with letters": equal({"DICOMStudyInstanceUID": "canary"}),
    "series uid with letters": equal({"DICOMSeriesInstanceUID": "canary"}),
    "uid of other digits": equal({"DICOMStudyInstanceUID": "\u0661.\u0662"}),
    "uid with line end": equal({"DICOMStudyInstanceUID": "1.2\n"}),
    "number for text": equal({"DICOMPatientId": 5}),
    "text for boolean": equal({"isPrimary": "true"}),
    "number for boolean": equal({"isPrimary": 1}),
    "text for timestamp": equal({"createdAt": "2024-01-01T00:00:00Z"}),
    "boolean for timestamp": equal({"createdAt": True}),
    "no study date": equal({"DICOMStudyDateAndTime": {"DICOMStudyTime": "10"}}),
    "study date too long": equal({"DICOMStudyDateAndTime": {"DICOMStudyDate": "1" * 37}}),
    "study time too long": equal(
        {"DICOMStudyDateAndTime": {"DICOMStudyDate": "20240101", "DICOMStudyTime": "1" * 57}}
    ),
    "sort without field": {"sort": {"sortOrder": "ASC"}},
    "sort without order": {"sort": {"sortField": "createdAt"}},
    "unknown sort field": {"sort": {"sortOrder": "ASC", "sortField": "imageSetId"}},
    "unknown sort order": {"sort": {"sortOrder": "asc", "sortField": "updatedAt"}},
    # What follows has the right shape; the service refuses it all the same.
    "between of one": between({"createdAt": 1}),
    "equal of two": equal({"DICOMPatientId": "canary"}, {"DICOMPatientId": "other"}),
    "between on text": between({"DICOMPatientId": "canary"}, {"DICOMPatientId": "other"}),
    "between of two attributes": between({"createdAt": 1}, {"updatedAt": 2}),
    "between backwards": between({"createdAt": 2}, {"createdAt": 1}),
    "study date that is none": equal({"DICOMStudyDateAndTime": {"DICOMStudyDate": "20240230"}}),
    "study time that is none": equal(
        {"DICOMStudyDateAndTime": {"DICOMStudyDate": "20240101", "DICOMStudyTime": "99"}}
    ),
}


@pytest.mark.parametrize("criteria", BROKEN.values(), ids=BROKEN.keys())
def test_broken_criteria_are_refused_without_an_echo(hospital, criteria):
    status, body = hospital.post(criteria)
    assert status == 400
    assert body["message"]
    assert "canary" not in body["message"]


@pytest.mark.parametrize("size", [0, 51, -1, "x", "1.5", "\u0661", 10**30])
def test_page_sizes_out_of_range(hospital, size):
    assert hospital.post(maxResults=size)[0] == 400


@pytest.mark.parametrize("size", [1, 50])
def test_page_sizes_within_range(hospital, size):
    status, body = hospital.post(maxResults=size)
    assert (status, len(body["imageSetsMetadataSummaries"])) == (200, size)


@pytest.mark.parametrize("token", ["", "x", "Zm9v", "ä", "x" * 8193])
def test_tokens_that_are_none(hospital, token):
    assert hospital.post(nextToken=token)[0] == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"NaN", b'{"filters": NaN}', b"[" * 9999])
def test_bodies_that_are_no_criteria(hospital, body):
    assert hospital.post(body)[0] == 400


@pytest.mark.parametrize("body", [b"", b"{}", b'{"unknown": 1}', b'{"filters": null}'])
def test_bodies_that_ask_for_everything(hospital, body):
    status, answer = hospital.post(body)
    assert (status, len(answer["imageSetsMetadataSummaries"])) == (200, 50)


@pytest.mark.parametrize("datastore_id", ["0" * 31, "0" * 33, "A" * 32, "0" * 31 + "%C3%A9"])
def test_ids_in_the_path_are_checked(hospital, datastore_id):
    status, headers, body = hospital.raw("GET", f"/datastore/{datastore_id}")
    assert (status, headers["x-amzn-ErrorType"]) == (400, "ValidationException")
    assert "datastoreId" in json.loads(body)["message"]


def test_botocore_reads_the_error(hospital):
    with pytest.raises(hospital.client.exceptions.ValidationException, match="equal to 50"):
        hospital.client.search_image_sets(datastoreId=hospital.datastore, maxResults=51)


def test_several_errors_come_together(hospital):
    status, body = hospital.post({"sort": {"sortOrder": "x", "sortField": "y"}}, maxResults=99)
    assert status == 400
    assert body["message"].startswith("3 validation errors detected: ")


def test_every_error_of_the_model_has_its_status():
    model = HealthImaging()
    expected = {
        "ThrottlingException": 429,
        "ConflictException": 409,
        "AccessDeniedException": 403,
        "ValidationException": 400,
        "InternalServerException": 500,
        "ResourceNotFoundException": 404,
    }
    assert {code: model.status(code) for code in expected} == expected


def test_every_operation_of_the_model_is_routed():
    model = HealthImaging()
    for operation in model.operations:
        path = operation.path.pattern.replace("[^/]+", "x").replace("\\", "")
        for name in operation.path.groupindex:
            path = path.replace(f"(?P<{name}>x)", "x")
        routed, _ = model.route(operation.method, path)
        assert routed.name == operation.name
