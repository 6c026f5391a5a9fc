"""Clients of AWS, and what an error of boto3 means.

boto3 finds credentials, region and endpoint itself. Each package that calls a service asks
`failure_of` what went wrong, and raises its own error for it. What is asked of a service does not
belong here: see `healthimaging.client`, `ingest.events`, `privacy.key_store` and `storage.s3`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NotConnected
from botocore.parsers import ResponseParserError

from cohortlake.errors import NoCredentials, SettingError

BOTO3_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""What a call of boto3 raises."""

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
_NO_ANSWER = (NotConnected, HTTPClientError, IncompleteReadError, OSError)
_SIGNATURES = ("InvalidSignatureException", "RequestExpired", "SignatureDoesNotMatch")
_BAD_CREDENTIALS = (
    *_SIGNATURES,
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
)


class Cause(Enum):
    """Why a call failed."""

    NO_CREDENTIALS = "no credentials, or the service does not accept them"
    NOT_SENT = "boto3 refuses to send the request"
    NO_ANSWER = "the service cannot be reached, or the connection broke"
    UNREADABLE = "the answer cannot be parsed"
    THROTTLED = "too many requests"
    CONFLICT = "another request changes the same thing"
    SERVER_ERROR = "the service failed"
    DENIED = "the caller has no right to do it"
    NOT_FOUND = "what was asked for does not exist"
    REFUSED = "the service calls the request invalid"

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later without any change."""
        return self in _TRANSIENT


_TRANSIENT = frozenset((Cause.NO_ANSWER, Cause.THROTTLED, Cause.CONFLICT, Cause.SERVER_ERROR))


@dataclass(frozen=True)
class Failure:
    """Why a call failed. It holds nothing that was sent or received but the error code.

    Attributes:
        cause: Why.
        reason: The status and the error code, or the name of boto3's error, for a message.
        code: The error code of the service; empty if it sent none.
        operation: The API operation, where the error names it.
    """

    cause: Cause
    reason: str
    code: str = ""
    operation: str = ""

    def no_credentials(self, service: str) -> NoCredentials:
        """Return the error for `Cause.NO_CREDENTIALS`, which says how to give credentials.

        Args:
            service: The service, as a message names it.
        """
        why = f"{service} answered {self.code}" if self.code else self.reason
        if self.code in _SIGNATURES:
            why += "; it also answers that where the clock of this machine is minutes off"
        return NoCredentials(
            f"no usable AWS credentials: {why}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where a role gives them"
        )


def failure_of(error: BotoCoreError | ClientError | ResponseParserError | OSError) -> Failure:
    """Return why a call failed, without the text of the error: it may hold the value of a tag.

    Args:
        error: What the call raised; an OSError means that the connection broke.
    """
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        cause = _cause_of_code(code) or cause_of_status(status)
        return Failure(cause, f"{status} {code}", code, error.operation_name)
    return Failure(_cause_of_exception(error), f"boto3 says {type(error).__name__}")


def cause_of_status(status: int) -> Cause:
    """Return what an HTTP status means where no error code says more."""
    if status >= 500:
        return Cause.SERVER_ERROR
    causes = {403: Cause.DENIED, 404: Cause.NOT_FOUND, 409: Cause.CONFLICT, 429: Cause.THROTTLED}
    return causes.get(status, Cause.REFUSED)


def _cause_of_code(code: str) -> Cause | None:
    if "Throttl" in code or code in ("TooManyRequestsException", "OverLimit"):
        return Cause.THROTTLED
    if code in _BAD_CREDENTIALS:
        return Cause.NO_CREDENTIALS
    if "AccessDenied" in code:
        return Cause.DENIED
    # The only answer below 500 which says that the request did not arrive whole.
    return Cause.NO_ANSWER if code == "RequestTimeout" else None


def _cause_of_exception(error: Exception) -> Cause:
    if isinstance(error, _NO_CREDENTIALS):
        return Cause.NO_CREDENTIALS
    if isinstance(error, ParamValidationError):
        return Cause.NOT_SENT
    if isinstance(error, ResponseParserError):
        return Cause.UNREADABLE
    return Cause.NO_ANSWER if isinstance(error, _NO_ANSWER) else Cause.REFUSED


def connect(service: str, config: Config, session: boto3.Session | None = None) -> Any:
    """Return a boto3 client of a service.

    Args:
        service: boto3's name of it.
        config: Retries and timeouts.
        session: A boto3 session; a new one by default.

    Raises:
        SettingError: No region is set, or the profile does not exist.
    """
    session = session or new_session()
    try:
        # boto3 reads AWS_DEFAULT_REGION only; the other SDKs, and Lambda, set AWS_REGION.
        region = os.environ.get("AWS_REGION") or session.region_name
        return session.client(service, region_name=region, config=config)  # type: ignore[call-overload]
    except NoRegionError:
        raise SettingError("no AWS region is set; set AWS_REGION or a profile with one") from None


def new_session() -> boto3.Session:
    """Return a boto3 session.

    Raises:
        SettingError: The profile does not exist.
    """
    try:
        return boto3.Session()
    except ProfileNotFound:
        raise SettingError("AWS_PROFILE names a profile that does not exist") from None
