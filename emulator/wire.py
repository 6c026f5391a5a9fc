"""HTTP answers: JSON and errors in rest-json form, which botocore and the other SDKs read.

It gives an answer its form. See `service.operations` and `control.admin` for the content, and
`service.model` for the HTTP status of an error code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
NDJSON = "application/x-ndjson"


class ServiceError(Exception):
    """An error answer of the service. The message never holds the value of a tag.

    Args:
        code: The exception's name in the service model, such as `ValidationException`.
        message: What is wrong and what the caller should do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A successful answer that is sent in pieces, so that it is never in memory as a whole.

    Attributes:
        length: The number of bytes; `None` if nobody knows it before the end.
    """

    pieces: Iterator[bytes]
    content_type: str = NDJSON
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


def invalid(message: str) -> ServiceError:
    """Returns the error for an invalid request."""
    return ServiceError("ValidationException", message)


def not_found(what: str) -> ServiceError:
    """Returns the error for a resource that does not exist."""
    return ServiceError("ResourceNotFoundException", f"{what} does not exist")


def encode(value: Any) -> bytes:
    """Returns compact JSON. The emulator sends and stores only this form."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def decode(body: bytes) -> Any:
    """Reads a request's JSON body.

    Raises:
        ServiceError: `ValidationException` if it is not JSON. NaN and Infinity, which Python
            accepts, are not JSON.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid("The body of the request is not JSON; send one JSON object") from None


def answer(value: Any) -> Answer:
    """Returns a successful JSON answer."""
    return Answer(encode(value))


def failure(code: str, message: str, status: int) -> Answer:
    """Returns an error in rest-json form: the code in a header, the message in the body."""
    return Answer(encode({"message": message}), status, headers={"x-amzn-ErrorType": code})


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
