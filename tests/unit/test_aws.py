"""What an error of boto3 means, for each service alike."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    UnknownServiceError,
)
from botocore.parsers import ResponseParserError

from cohortlake.aws import Cause, failure_of

SECRET = "DOE^JANE"  # noqa: S105 - what no message may hold


def _client_error(status: int, code: str) -> ClientError:
    answer = {
        "Error": {"Code": code, "Message": SECRET},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "PutObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (400, "ThrottlingException", Cause.THROTTLED),
        (403, "RequestThrottled", Cause.THROTTLED),
        (403, "OverLimit", Cause.THROTTLED),
        (429, "TooManyRequestsException", Cause.THROTTLED),
        (429, "Unknown", Cause.THROTTLED),
        (409, "ConflictException", Cause.CONFLICT),
        (500, "InternalError", Cause.SERVER_ERROR),
        (503, "SlowDown", Cause.SERVER_ERROR),
        (400, "RequestTimeout", Cause.NO_ANSWER),
        (403, "AccessDenied", Cause.DENIED),
        (400, "AccessDeniedException", Cause.DENIED),
        (400, "KmsAccessDenied", Cause.DENIED),
        (403, "403", Cause.DENIED),
        (403, "SignatureDoesNotMatch", Cause.NO_CREDENTIALS),
        (400, "ExpiredTokenException", Cause.NO_CREDENTIALS),
        (404, "NoSuchKey", Cause.NOT_FOUND),
        (400, "ValidationException", Cause.REFUSED),
        (0, "", Cause.REFUSED),
    ],
)
def test_an_answer_has_a_cause(status: int, code: str, cause: Cause) -> None:
    failure = failure_of(_client_error(status, code))
    assert (failure.cause, failure.code, failure.operation) == (cause, code, "PutObject")
    assert SECRET not in repr(failure)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NoCredentialsError(), Cause.NO_CREDENTIALS),
        (EndpointConnectionError(endpoint_url=SECRET), Cause.NO_ANSWER),
        (ConnectionResetError(SECRET), Cause.NO_ANSWER),
        (ParamValidationError(report=SECRET), Cause.NOT_SENT),
        (ResponseParserError(SECRET), Cause.UNREADABLE),
        (UnknownServiceError(service_name=SECRET, known_service_names=""), Cause.REFUSED),
    ],
)
def test_an_exception_has_a_cause(error: Exception, cause: Cause) -> None:
    failure = failure_of(error)  # type: ignore[arg-type]
    assert (failure.cause, failure.reason) == (cause, f"boto3 says {type(error).__name__}")


def test_what_may_succeed_later_is_transient() -> None:
    transient = {cause for cause in Cause if cause.is_transient}
    assert transient == {Cause.NO_ANSWER, Cause.THROTTLED, Cause.CONFLICT, Cause.SERVER_ERROR}
