"""Clients of AWS: credentials, region and endpoint are boto3's own, and what lacks is explained.

What is asked of a service does not belong here (`healthimaging.client`, `ingest.events`).
"""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from cohortlake.errors import NoCredentials, SettingError

BAD_CREDENTIALS = (
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
)
_SIGNATURES = ("InvalidSignatureException", "RequestExpired", "SignatureDoesNotMatch")
NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)


def connect(service: str, config: Config, session: boto3.Session | None = None) -> Any:
    """Return boto3's client of a service.

    Args:
        service: boto3's name of it.
        config: Retries and timeouts.
        session: A boto3 session; a fresh one by default.

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


def bad_credentials(service: str, code: str) -> NoCredentials:
    """Return the error for an answer of `BAD_CREDENTIALS`."""
    clock = "; it also answers that where the clock of this machine is minutes off"
    return no_credentials(f"{service} answered {code}{clock if code in _SIGNATURES else ''}")


def no_credentials(why: str) -> NoCredentials:
    """Return the error that says how to give some."""
    return NoCredentials(
        f"no usable AWS credentials: {why}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or run where a role gives them"
    )
