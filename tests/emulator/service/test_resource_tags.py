"""Tags of resources."""

import pytest


@pytest.fixture
def service(exactly):
    return exactly({"DICOMTags": {}})


@pytest.fixture(params=["datastore", "image set"])
def arn(request, service):
    found = service.client.get_datastore(datastoreId=service.datastore)["datastoreProperties"]
    if request.param == "datastore":
        return found["datastoreArn"]
    [row] = service.search()
    ids = {"datastoreId": service.datastore, "imageSetId": row["imageSetId"]}
    return service.client.get_image_set(**ids)["imageSetArn"]


def tags(service, arn):
    return service.client.list_tags_for_resource(resourceArn=arn)["tags"]


def test_tags_are_set_and_removed(service, arn):
    assert tags(service, arn) == {}
    service.client.tag_resource(resourceArn=arn, tags={"ward": "7", "team": "a b"})
    service.client.tag_resource(resourceArn=arn, tags={"ward": "8"})
    assert tags(service, arn) == {"ward": "8", "team": "a b"}
    service.client.untag_resource(resourceArn=arn, tagKeys=["ward", "none"])
    assert tags(service, arn) == {"team": "a b"}
    others = service.client.get_datastore(datastoreId=service.datastore)["datastoreProperties"]
    if others["datastoreArn"] != arn:
        assert tags(service, others["datastoreArn"]) == {}


def test_several_keys_are_removed_at_once(service, arn):
    service.client.tag_resource(resourceArn=arn, tags={"a": "1", "b": "2", "c": "3"})
    service.client.untag_resource(resourceArn=arn, tagKeys=["a", "b"])
    assert tags(service, arn) == {"c": "3"}


def test_requests_that_are_wrong(service, arn):
    errors = service.client.exceptions
    with pytest.raises(errors.ResourceNotFoundException):
        tags(service, arn[:-1] + ("0" if arn[-1] != "0" else "1"))
    with pytest.raises(errors.ValidationException, match="resourceArn"):
        tags(service, "arn:aws:s3:::bucket/with/a/long/name")
    with pytest.raises(errors.ValidationException, match="tags"):
        service.client.tag_resource(resourceArn=arn, tags={"aws:x": "1"})
    with pytest.raises(errors.ValidationException, match="tags"):
        service.client.tag_resource(resourceArn=arn, tags={"x": "1" * 257})
    with pytest.raises(errors.ValidationException, match="50"):
        many = {f"{chr(97 + number % 26)}.{chr(97 + number // 26)}": "" for number in range(51)}
        service.client.tag_resource(resourceArn=arn, tags=many)
    assert tags(service, arn) == {}
