"""What goes back over HTTP: rest-json answers and errors, as botocore and the other SDKs read them.

It owns the form of an answer. What it says is for `operations` and `admin`; which HTTP status an
error code has is the service model's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
NDJSON = "application/x-ndjson"


class ServiceError(Exception):
    """An error that the service answers with; the message never holds a tag's value.

    Args:
        code: The exception's name in the service model, such as `ValidationException`.
        message: What the caller should do about it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer before it meets a connection."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of unknown length, sent piece by piece as NDJSON."""

    pieces: Iterator[bytes]


def invalid(message: str) -> ServiceError:
    """The error for a request that the service refuses as malformed."""
    return ServiceError("ValidationException", message)


def not_found(what: str) -> ServiceError:
    """The error for a resource that is not there."""
    return ServiceError("ResourceNotFoundException", f"{what} does not exist")


def encode(value: Any) -> bytes:
    """Writes JSON in the compact form that everything the emulator sends and keeps has."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def decode(body: bytes) -> Any:
    """Reads a request's JSON body.

    Raises:
        ServiceError: `ValidationException` if it is no JSON. NaN and Infinity, which Python would
            let through, are none.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise invalid("The request's body is not JSON; send one JSON object") from None


def answer(value: Any) -> Answer:
    """A successful JSON answer."""
    return Answer(encode(value))


def failure(code: str, message: str, status: int) -> Answer:
    """An error in rest-json form: its code in a header, its message in the body."""
    return Answer(encode({"message": message}), status, headers={"x-amzn-ErrorType": code})


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
