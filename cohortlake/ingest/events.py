"""The queue of events: EventBridge reports what HealthImaging did; the lake reads it from SQS.

Every event about an image set is a hint, whatever its detail type. Deletions are marked, because
they are confirmed before anything is closed. Here are the calls to SQS and the parsing of an
event. See `cohortlake.hints` for what an event may cause, and when its message is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from botocore.config import Config

from cohortlake.aws import BOTO3_ERRORS, Cause, Failure, connect, failure_of
from cohortlake.errors import (
    AccessDenied,
    NoSuchQueue,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
    SettingError,
)

_SOURCE = "aws.medical-imaging"
_DELETED = "Image Set Deleted"

_MOST_AT_ONCE = 10_000
_BATCH = 10  # the most that SQS gives or deletes in a call
# A call that waits asks all servers of SQS. One that does not wait may miss messages.
_WAIT_SECONDS = 1

_NO_SUCH_QUEUE = (
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "InvalidAddress",
)


@dataclass(frozen=True)
class Event:
    """An event about an image set.

    Attributes:
        datastore_id: The data store; empty if the event names none.
        image_set_id: The image set; empty if the event is about something else.
        is_deletion: Whether the event reports a deletion.
    """

    datastore_id: str
    image_set_id: str
    is_deletion: bool


@dataclass(frozen=True)
class Message:
    """A message of the queue.

    Attributes:
        receipt: The handle that removes it.
        event: Its event, or None if it is not an event of HealthImaging.
    """

    receipt: str
    event: Event | None


class Queue:
    """A queue that an EventBridge rule feeds.

    Args:
        url: The queue's URL.

    Raises:
        SettingError: No URL or no region is set, or the profile does not exist.
    """

    def __init__(self, url: str) -> None:
        if not url:
            raise SettingError(
                "COHORTLAKE_EVENTS_QUEUE is not set; give the URL of the SQS queue that an "
                "EventBridge rule feeds (docs/how-to/events.md)"
            )
        self._url = url
        # A Dagster sensor has a minute, and three attempts must fit in it.
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=10,
        )
        self._client = connect("sqs", config)

    def waiting(self) -> int:
        """Return about how many messages wait.

        Raises:
            ServiceError: See `errors`.
        """
        name = "ApproximateNumberOfMessages"
        with self._explained("GetQueueAttributes"):
            answer = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
        return int(answer["Attributes"][name])

    def receive(self) -> list[Message]:
        """Return the messages in the queue, at most 10,000, each once.

        They stay in the queue, hidden from others until its visibility timeout has passed.

        Raises:
            ServiceError: See `errors`.
        """
        received: dict[str, Message] = {}
        while len(received) < _MOST_AT_ONCE:
            before = len(received)
            with self._explained("ReceiveMessage"):
                answer = self._client.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=_WAIT_SECONDS
                )
            for message in answer.get("Messages", ()):
                receipt, body = message["ReceiptHandle"], message["Body"]
                received[message["MessageId"]] = Message(receipt, read_event(body))
            if len(received) == before:  # no message, or only repeated ones
                break
        return list(received.values())

    def remove(self, messages: Sequence[Message]) -> int:
        """Remove messages, and return how many were removed. The others return.

        Raises:
            ServiceError: See `errors`.
        """
        removed = 0
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            entries = [{"Id": str(i), "ReceiptHandle": m.receipt} for i, m in enumerate(batch)]
            with self._explained("DeleteMessage"):
                answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            removed += len(answer.get("Successful", ()))
        return removed

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Turn boto3's errors inside the block into ours."""
        try:
            yield
        except BOTO3_ERRORS as error:
            raise self._error_of(failure_of(error), action) from None

    def _error_of(self, failure: Failure, action: str) -> ServiceError:
        """Return our error for a failed call."""
        if failure.code in _NO_SUCH_QUEUE:
            return NoSuchQueue(self._url, self._client.meta.region_name)
        match failure.cause:
            case Cause.NO_CREDENTIALS:
                return failure.no_credentials("SQS")
            case Cause.THROTTLED | Cause.SERVER_ERROR:
                return ServiceUnavailable(f"SQS kept failing {action} with {failure.reason}")
            case Cause.DENIED:
                # Where a KMS key encrypts the queue, SQS passes on the answer of KMS.
                is_kms = failure.code.upper().startswith("KMS")
                denied = "kms:Decrypt" if is_kms else f"sqs:{action}"
                return AccessDenied(denied, f"queue {self._url}")
        if failure.code:
            return RequestRefused(
                f"SQS refused {action} with {failure.reason}; check COHORTLAKE_EVENTS_QUEUE"
            )
        return ServiceUnavailable(
            f"{action} could not reach {self._client.meta.endpoint_url} ({failure.reason}); check "
            "the network, AWS_REGION and AWS_ENDPOINT_URL_SQS"
        )


_DATASTORE_ID = re.compile(r"[0-9a-z]{32}")
# Wider than today's ids. The id becomes part of a URL.
_IMAGE_SET_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")


class _Detail(msgspec.Struct):
    datastore_id: Any = msgspec.field(name="datastoreId", default=None)
    # The developer guide has one spelling, and AWS's own code the other.
    image_set_id: Any = msgspec.field(name="imageSetId", default=None)
    imageset_id: Any = msgspec.field(name="imagesetId", default=None)


class _Envelope(msgspec.Struct):
    source: str
    detail_type: str = msgspec.field(name="detail-type")
    detail: _Detail


_decode = msgspec.json.Decoder(_Envelope).decode


def read_event(body: str) -> Event | None:
    """Parse a message's body; return None if it is not an event of HealthImaging.

    Anyone with write access to the queue can send anything, so no content makes this fail.
    """
    try:
        envelope = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if envelope.source != _SOURCE:
        return None
    detail = envelope.detail
    datastore_id = _id(_DATASTORE_ID, detail.datastore_id)
    image_set_id = _id(_IMAGE_SET_ID, detail.image_set_id, detail.imageset_id)
    if datastore_id is None or image_set_id is None:
        return None
    return Event(datastore_id, image_set_id, envelope.detail_type == _DELETED)


def _id(shape: re.Pattern[str], *spellings: object) -> str | None:
    """Return the id in a message: empty if it has none, None if its value is not an id."""
    given = [value for value in spellings if value is not None]
    ids = [value for value in given if isinstance(value, str) and shape.fullmatch(value)]
    return ids[0] if ids else None if given else ""
