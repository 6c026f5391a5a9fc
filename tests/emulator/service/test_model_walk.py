"""Every emulated operation against the service model: inputs, answers and error codes."""

import json
from io import BytesIO

import pytest
from botocore.model import StructureShape

from emulator.service.model import HealthImaging, _problems

ROLE = "arn:aws:iam::123456789012:role/import"
TAGS = {"DICOMStudyInstanceUID": "1.2", "DICOMSeriesInstanceUID": "1.2.3"}
IMAGE_SET = "a" * 32
UPDATE = b'{"SchemaVersion":1.1,"Study":{"DICOM":{"StudyDescription":"x"}}}'


@pytest.fixture
def service(fresh):
    service = fresh()
    service.emulator.admin.import_summaries([{"imageSetId": IMAGE_SET, "DICOMTags": TAGS}])
    service.job = service.emulator.admin.add_import_job("FAILED", message="Access Denied")
    return service


def requests(service):
    """A good request of each operation, in an order in which each works."""
    store = {"datastoreId": service.datastore}
    image_set = store | {"imageSetId": IMAGE_SET}
    arn = f"arn:aws:medical-imaging:us-east-1:123456789012:datastore/{service.datastore}"
    document = {"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": {}}}
    frame = {"ID": "f" * 32, "FrameSizeInBytes": 5}
    instances = {"1.2.3.4": {"DICOM": {}, "ImageFrames": [frame]}}
    document["Study"]["Series"] = {"1.2.3": {"DICOM": {}, "Instances": instances}}
    service.emulator.admin.put_document(IMAGE_SET, document)
    return {
        "SearchImageSets": store,
        "GetDatastore": store,
        "ListDatastores": {},
        "GetImageSet": image_set,
        "GetImageSetMetadata": image_set,
        "GetImageFrame": image_set | {"imageFrameInformation": {"imageFrameId": "f" * 32}},
        "ListImageSetVersions": image_set,
        "StartDICOMImportJob": store
        | {"dataAccessRoleArn": ROLE, "inputS3Uri": "s3://abc/in", "outputS3Uri": "s3://abc/out"},
        "GetDICOMImportJob": store | {"jobId": service.job},
        "ListDICOMImportJobs": store,
        "TagResource": {"resourceArn": arn, "tags": {"ward": "7"}},
        "ListTagsForResource": {"resourceArn": arn},
        "UntagResource": {"resourceArn": arn, "tagKeys": ["ward"]},
        "UpdateImageSetMetadata": image_set
        | {
            "latestVersionId": "1",
            "updateImageSetMetadataUpdates": {"DICOMUpdates": {"updatableAttributes": UPDATE}},
        },
        "CopyImageSet": store
        | {
            "sourceImageSetId": IMAGE_SET,
            "copyImageSetInformation": {"sourceImageSet": {"latestVersionId": "2"}},
        },
        "DeleteImageSet": image_set,
    }


def call(service, operation, request):
    """Sends a request and returns the raw body of the answer, and what boto3 made of it."""
    bodies = []

    def keep(http_response, **_):
        bodies.append(http_response)

    name = f"after-call.medical-imaging.{operation}"
    service.client.meta.events.register(name, keep)
    try:
        method = service.client.meta.method_to_api_mapping
        [python_name] = [key for key, value in method.items() if value == operation]
        parsed = getattr(service.client, python_name)(**request)
    finally:
        service.client.meta.events.unregister(name, keep)
    return bodies[-1], parsed


def test_every_operation_answers_in_the_shape_of_the_model(service):
    model = service.client.meta.service_model
    page = HealthImaging()
    claimed = [one.name for one in page.operations if one.name in requests(service)]
    asked = requests(service)
    assert set(claimed) == set(asked)
    for operation, request in asked.items():
        described = model.operation_model(operation)
        response, parsed = call(service, operation, request)
        assert response.status_code == described.http["responseCode"], operation
        shape = described.output_shape
        assert isinstance(shape, StructureShape)
        if described.has_streaming_output:
            name = shape.serialization["payload"]
            with parsed[name] as blob:
                assert blob.read(), operation
            assert parsed["contentType"]
            continue
        answer = json.load(BytesIO(response.content))
        assert list(_problems(shape, answer, "")) == [], operation
        # Nothing that the model does not know.
        assert _unknown(shape, answer) == [], operation


def _unknown(shape, value):
    if shape.type_name == "structure":
        unknown = [name for name in value if name not in shape.members]
        for name, member in shape.members.items():
            unknown += _unknown(member, value[name]) if name in value else []
        return unknown
    if shape.type_name == "list":
        return [name for item in value for name in _unknown(shape.member, item)]
    return []


def test_the_requests_of_this_test_are_all_that_is_emulated(service, hospital):
    model = HealthImaging()
    asked = set(requests(service))
    for operation in model.operations:
        path = operation.path.pattern.replace("\\", "")
        for name in operation.path.groupindex:
            sample = "arn%3Aaws%3Ax" if name == "resourceArn" else "0" * 32
            path = path.replace(f"(?P<{name}>[^/]+)", sample)
        status, _, _ = hospital.raw(operation.method, path)
        assert (status == 501) == (operation.name not in asked), operation.name


def test_errors_are_those_of_the_operation_in_the_model(service):
    model = service.client.meta.service_model
    nowhere = {"datastoreId": "0" * 32, "resourceArn": "arn:aws:medical-imaging:us-east-1:"
               f"123456789012:datastore/{'0' * 32}"}  # fmt: skip
    for operation, request in requests(service).items():
        allowed = {shape.name for shape in model.operation_model(operation).error_shapes}
        broken = {name: nowhere.get(name, value) for name, value in request.items()}
        if broken == request:
            continue
        with pytest.raises(service.client.exceptions.ClientError) as caught:
            call(service, operation, broken)
        assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
        assert "ResourceNotFoundException" in allowed


def test_faults_reach_every_operation(service):
    admin = service.emulator.admin
    for change, code in (
        ({"error_rate": 1}, "InternalServerException"),
        ({"quota": 1e-9, "burst": 1}, "ThrottlingException"),
    ):
        admin.behave(**change)
        try:
            for operation, request in requests(service).items():
                codes = set()
                for _ in range(2):
                    try:
                        call(service, operation, request)
                    except service.client.exceptions.ClientError as error:
                        codes.add(error.response["Error"]["Code"])
                assert code in codes, operation
        finally:
            admin.behave(error_rate=0, quota=0, burst=0)
