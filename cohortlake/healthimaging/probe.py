"""What the search relies on in botocore, tried once before the first request.

Two things are not documented: that a handler on `before-parse` may take the body away, and
that request timestamps keep their milliseconds (older releases cut them, and windows that
meet within a second then lost rows without a word). So a call that never leaves the machine
shows both.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import boto3
import botocore
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from cohortlake.errors import UnsupportedBotocore

_INSTANT = datetime(2026, 1, 1, 0, 0, 0, 123000, UTC)
_BODY = b'{"imageSetsMetadataSummaries": [{"imageSetId": "probe"}]}'


class _Raw(BytesIO):
    def stream(self, **_: Any) -> list[bytes]:
        return [self.getvalue()]


def check_botocore(session: boto3.Session, hand_on_body: Any) -> None:
    """Try what the search relies on.

    Args:
        session: Makes the client; the service's model is read once for both.
        hand_on_body: The handler that takes the body.

    Raises:
        UnsupportedBotocore: This release of botocore does otherwise.
    """
    sent: list[Any] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> Any:
        sent.append(request.body)
        return AWSResponse("http://127.0.0.1", 200, HTTPHeaders(), _Raw(_BODY))

    config = Config(signature_version=UNSIGNED)
    client: Any = session.client(
        "medical-imaging", "us-east-1", endpoint_url="http://127.0.0.1", config=config
    )
    client.meta.events.register("before-send.medical-imaging", answer)
    client.meta.events.register("before-parse.medical-imaging.SearchImageSets", hand_on_body)
    bounds = [{"updatedAt": _INSTANT}, {"updatedAt": _INSTANT + timedelta(days=1)}]
    answered = client.search_image_sets(
        datastoreId="0" * 32,
        searchCriteria={"filters": [{"values": bounds, "operator": "BETWEEN"}]},
    )
    values = json.loads(sent[0])["filters"][0]["values"]
    if answered.get("body") != _BODY or values[0]["updatedAt"] != _INSTANT.timestamp():
        raise UnsupportedBotocore(botocore.__version__)
