"""boto3's client of the service, set up for many threads, our own retries and raw pages.

boto3 finds credentials, region and endpoint, and signs.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from cohortlake.aws import connect, new_session

if TYPE_CHECKING:
    from mypy_boto3_medical_imaging import HealthImagingClient


def connected(session: boto3.Session | None, workers: int) -> HealthImagingClient:
    """Return a client of the service that sends each request once.

    The answer of SearchImageSets has its text as `body`.

    Args:
        session: A boto3 session; a new one by default.
        workers: How many threads use the client.

    Raises:
        SettingError: No region is set, or the profile does not exist.
    """
    # boto3's own retries would hide throttling from the token bucket; see `client` for ours.
    config = Config(
        # A fixed user agent: boto3 would build its own twice for each request.
        user_agent=f"cohortlake/{version('cohortlake')} boto3/{boto3.__version__}",
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=workers + 4,
        connect_timeout=10,
        read_timeout=30,
    )
    session = session or new_session()
    client: HealthImagingClient = connect("medical-imaging", config, session)
    if not _is_of_aws(client.meta.endpoint_url, client.meta.region_name):
        client.meta.config.inject_host_prefix = False
    client.meta.events.register("before-parse.medical-imaging.SearchImageSets", _keep_body)
    return client


def _is_of_aws(endpoint_url: str, region: str) -> bool:
    """Return whether a host is the one that AWS gives the service in a region.

    Only this host takes the prefix `runtime-`. boto3 would put it before any other host too, such
    as an interface endpoint (`vpce-….amazonaws.com`) or an emulator.
    """
    host = urlsplit(endpoint_url).hostname or ""
    return host.startswith((f"medical-imaging.{region}.", f"medical-imaging-fips.{region}."))


def _keep_body(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Keep botocore from parsing a page, which takes three quarters of its time."""
    if response_dict["status_code"] == 200:
        customized_response_dict["body"] = response_dict["body"]
        response_dict["body"] = b"{}"
