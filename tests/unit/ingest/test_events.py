"""Events: what a message may hold, and what SQS's refusals mean."""

from __future__ import annotations

import json
import string

import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st
from laws import json_values

from cohortlake.errors import (
    AccessDenied,
    NoCredentials,
    NoSuchQueue,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
)
from cohortlake.ingest.events import Event, Queue, read_event

STORES = st.text(string.digits + string.ascii_lowercase, min_size=32, max_size=32)
IDS = st.text(string.digits + string.ascii_letters + "-_", min_size=1, max_size=64)
JSON = json_values(8)


@given(STORES, IDS, st.sampled_from(["imageSetId", "imagesetId"]), st.dictionaries(st.text(), JSON))
def test_an_event_is_read_in_both_spellings_whatever_else_it_holds(
    datastore_id: str, image_set_id: str, spelling: str, more: dict[str, object]
) -> None:
    envelope = more | {
        "source": "aws.medical-imaging",
        "detail-type": "Image Set Deleted",
        "detail": more | {"datastoreId": datastore_id, spelling: image_set_id},
    }
    assert read_event(json.dumps(envelope)) == Event(datastore_id, image_set_id, True)


@given(st.text(st.characters(codec=None)) | st.builds(json.dumps, JSON))
def test_anything_else_is_none_and_no_error(body: str) -> None:
    assert read_event(body) is None


@given(st.text() | st.integers())
def test_only_an_id_is_taken_for_one(value: object) -> None:
    envelope = {
        "source": "aws.medical-imaging",
        "detail-type": "Image Set Deleted",
        "detail": {"datastoreId": value},
    }
    assert read_event(json.dumps(envelope)) is None


@pytest.mark.parametrize(
    ("code", "status", "error", "says"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", 400, NoSuchQueue, "AWS_REGION"),
        ("QueueDoesNotExist", 400, NoSuchQueue, "AWS_REGION"),
        ("InvalidAddress", 404, NoSuchQueue, "COHORTLAKE_EVENTS_QUEUE"),
        ("AccessDenied", 403, AccessDenied, "sqs:ReceiveMessage"),
        ("KMS.AccessDeniedException", 400, AccessDenied, "kms:Decrypt"),
        ("KmsAccessDenied", 400, AccessDenied, "kms:Decrypt"),
        ("InvalidClientTokenId", 403, NoCredentials, "AWS_PROFILE"),
        ("RequestThrottled", 403, ServiceUnavailable, "ReceiveMessage"),
        ("OverLimit", 403, ServiceUnavailable, "ReceiveMessage"),
        ("InternalError", 500, ServiceUnavailable, "ReceiveMessage"),
        ("UnsupportedOperation", 400, RequestRefused, "COHORTLAKE_EVENTS_QUEUE"),
    ],
)
def test_a_refusal_says_the_fix(
    code: str, status: int, error: type[ServiceError], says: str
) -> None:
    queue = Queue("https://sqs.us-east-1.amazonaws.com/111122223333/hints")
    with Stubber(queue._client) as stub:
        stub.add_client_error("receive_message", code, http_status_code=status)
        with pytest.raises(error, match=says):
            queue.receive()
