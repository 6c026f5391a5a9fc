"""The service, as the lake needs it: a few calls, raw pages, errors that say the fix.

Credentials, region, endpoint, signing and the first line of retries are boto3's. Ours
are the pace (a token bucket for all threads, retries included; the calls for older versions
have quotas of their own, and one each), the check of each answer, and the errors. How pages
follow one another is `healthimaging.search`'s.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from cohortlake.errors import (
    AccessDenied,
    DatastoreNotActive,
    ImageSetBusy,
    NoSuchDatastore,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
    TokenRefused,
)
from cohortlake.healthimaging.connection import (
    BAD_CREDENTIALS,
    NO_CREDENTIALS,
    bad_credentials,
    connect,
    new_session,
    no_credentials,
)
from cohortlake.healthimaging.metadata import Version, tags
from cohortlake.healthimaging.page import BrokenAnswer, Page
from cohortlake.healthimaging.probe import check_botocore
from cohortlake.healthimaging.rate import TokenBucket
from cohortlake.settings import Settings
from cohortlake.stop import Stop

if TYPE_CHECKING:
    from mypy_boto3_medical_imaging import HealthImagingClient

PAGE_SIZE = 50
"""The most that SearchImageSets gives; its default is not documented, so it is always sent."""

# What AWS grants an account of those calls that do not share the setting's pace.
_QUOTAS = {"ListImageSetVersions": 25.0, "GetImageSetMetadata": 50.0}
_ATTEMPTS = 8
_LONGEST_WAIT_SECONDS = 20.0
_THROTTLES = ("ThrottlingException", "TooManyRequestsException", "Throttling")

_RETURNED_AS_OURS = (BotoCoreError, ClientError, ResponseParserError, BrokenAnswer, OSError)

T = TypeVar("T")


@dataclass(frozen=True)
class Datastore:
    """A data store.

    Attributes:
        datastore_id: Its id.
        created_at: When it was created, if the service says.
        now: The instant of the answer on the service's clock, to the second, rounded down.
    """

    datastore_id: str
    created_at: datetime | None
    now: datetime


class Meter:
    """Counts the requests one search sends, retries included, and those thrown back."""

    def __init__(self) -> None:
        self.requests = 0
        self.throttles = 0


class HealthImaging:
    """A client of AWS HealthImaging, safe to share between threads.

    Args:
        settings: For `tps`, the pace.
        session: A boto3 session; a fresh one by default.
        stop: Once it is asked, each call raises `Stopped`, also one that waits for its slot.

    Raises:
        SettingError: No region is set, or the profile does not exist.
        UnsupportedBotocore: See there.
    """

    def __init__(
        self,
        settings: Settings,
        session: boto3.Session | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._stop = stop or Stop()
        self._bucket = TokenBucket(settings.tps, settings.burst, self._stop)
        self._own_buckets = {
            name: TokenBucket(tps, burst=tps, stop=self._stop) for name, tps in _QUOTAS.items()
        }
        self._meters = threading.local()
        self._client = _connect(session, settings.workers)
        events = self._client.meta.events
        # Before botocore's own handler of this event, which signs: a signature is good for five
        # minutes, and at a low rate a request may wait longer for its slot.
        events.register_first("request-created.medical-imaging", self._pace)
        events.register("before-send.medical-imaging", self._count)
        events.register("before-parse.medical-imaging.SearchImageSets", _hand_on_body)

    def datastore(self, datastore_id: str) -> Datastore:
        """Look a data store up.

        Raises:
            NoSuchDatastore: There is none of that id in this account and region.
            DatastoreNotActive: It cannot be searched now.
            ServiceError: See `errors`.
        """
        answer = self._retried(
            "GetDatastore",
            datastore_id,
            lambda: _whole(
                self._client.get_datastore(datastoreId=datastore_id), "datastoreProperties"
            ),
        )
        properties = answer["datastoreProperties"]
        if properties["datastoreStatus"] != "ACTIVE":
            raise DatastoreNotActive(datastore_id, properties["datastoreStatus"])
        created_at = properties.get("createdAt")
        return Datastore(
            datastore_id,
            created_at.astimezone(UTC) if created_at else None,
            _service_time(answer["ResponseMetadata"]["HTTPHeaders"]),
        )

    def search_page(
        self,
        datastore_id: str,
        criteria: Mapping[str, Any],
        next_token: str | None = None,
        meter: Meter | None = None,
    ) -> Page:
        """Ask for one page, and again until it comes whole.

        Args:
            datastore_id: The data store to search.
            criteria: `searchCriteria` as the API takes them.
            next_token: The page to ask for; the first one by default.
            meter: Counts what is sent.

        Raises:
            TokenRefused: The service does not take the token.
            RequestRefused: It does not take the criteria.
            ServiceUnavailable: It kept failing.
            ServiceError: See `errors`.
        """
        request: dict[str, Any] = {
            "datastoreId": datastore_id,
            "searchCriteria": criteria,
            "maxResults": PAGE_SIZE,
        }
        if next_token:
            request["nextToken"] = next_token
        self._meters.current = meter or Meter()

        def ask() -> Page:
            answer: Mapping[str, Any] = self._client.search_image_sets(**request)
            return Page.checked(answer["body"])

        try:
            return self._retried("SearchImageSets", datastore_id, ask)
        except RequestRefused:
            if next_token:
                raise TokenRefused("SearchImageSets did not take its nextToken") from None
            raise

    def has_image_set(self, datastore_id: str, image_set_id: str) -> bool:
        """Ask GetImageSet whether an image set exists.

        Raises:
            AccessDenied: The caller may not call GetImageSet.
            ServiceError: See `errors`.
        """
        try:
            answer = self._retried(
                "GetImageSet",
                datastore_id,
                lambda: _whole(
                    self._client.get_image_set(datastoreId=datastore_id, imageSetId=image_set_id),
                    "imageSetState",
                ),
            )
        except NoSuchDatastore:  # ResourceNotFoundException names either of them
            return False
        return bool(answer["imageSetState"] != "DELETED")

    def versions(
        self, datastore_id: str, image_set_id: str, meter: Meter | None = None
    ) -> list[Version]:
        """List the versions of an image set that the service has.

        Args:
            datastore_id: The data store.
            image_set_id: The image set.
            meter: Counts what is sent.

        Raises:
            NoSuchDatastore: There is no such image set (the service names either of them).
            ImageSetBusy: It kept being changed.
            TokenRefused: The service does not take its own token.
            ServiceError: See `errors`.
        """
        request: dict[str, Any] = {
            "datastoreId": datastore_id,
            "imageSetId": image_set_id,
            "maxResults": PAGE_SIZE,
        }
        self._meters.current = meter or Meter()
        found: list[Version] = []
        while True:
            try:
                page = self._retried(
                    "ListImageSetVersions",
                    datastore_id,
                    lambda: _whole(
                        self._client.list_image_set_versions(**request), "imageSetPropertiesList"
                    ),
                )
            except RequestRefused:
                if "nextToken" in request:
                    raise TokenRefused("ListImageSetVersions did not take its nextToken") from None
                raise
            found += map(Version.from_properties, page["imageSetPropertiesList"])
            if not page.get("nextToken"):
                return found
            request["nextToken"] = page["nextToken"]

    def tags_of(
        self, datastore_id: str, image_set_id: str, version: int, meter: Meter | None = None
    ) -> dict[str, Any]:
        """Read the metadata document of a version, and return its DICOM tags as a summary has them.

        Moves an archived image set back to the frequent tier.

        Args:
            datastore_id: The data store.
            image_set_id: The image set.
            version: Which version of it.
            meter: Counts what is sent.

        Raises:
            NoSuchDatastore: There is no such version (the service names none of them).
            NotMetadata: What came is whole, and no metadata document.
            BrokenAnswer: It kept coming cut.
            ImageSetBusy: It kept being changed.
            ServiceError: See `errors`.
        """
        self._meters.current = meter or Meter()

        def ask() -> dict[str, Any]:
            answer = self._client.get_image_set_metadata(
                datastoreId=datastore_id, imageSetId=image_set_id, versionId=str(version)
            )
            # As a context manager a StreamingBody hands out the raw stream, with errors of its own.
            with closing(answer["imageSetMetadataBlob"]) as blob:
                return tags(blob.read())

        return self._retried("GetImageSetMetadata", datastore_id, ask)

    def has_slack(self) -> bool:
        """Return whether slots of the quota go unused."""
        return self._bucket.has_slack()

    def _pace(self, event_name: str, **_: Any) -> None:
        self._bucket_of(event_name.rpartition(".")[2]).acquire()

    def _count(self, **_: Any) -> None:
        self._meter().requests += 1

    def _bucket_of(self, operation: str) -> TokenBucket:
        return self._own_buckets.get(operation, self._bucket)

    def _meter(self) -> Meter:
        """Return the meter of this thread's search; one that nobody reads outside a search."""
        meter: Meter = getattr(self._meters, "current", None) or Meter()
        return meter

    def _retried(self, operation: str, datastore_id: str, call: Callable[[], T]) -> T:
        """Call until it works or cannot, with full jitter between attempts."""
        failure: ServiceError = ServiceUnavailable(f"{operation} was not answered")
        for attempt in range(_ATTEMPTS):
            if attempt:
                longest = min(_LONGEST_WAIT_SECONDS, 0.1 * 2**attempt)
                self._stop.wait(random.uniform(0, longest))  # noqa: S311 - jitter, not a secret
            try:
                return call()
            except _RETURNED_AS_OURS as error:
                failure = self._explained(error, operation, datastore_id)
            if not failure.transient:
                break
        # Out here it has no context: the text of what boto3 raised may hold the value of a tag.
        raise failure

    def _explained(self, error: Exception, operation: str, datastore_id: str) -> ServiceError:
        """Return our error for one that a call raised; a transient one is worth another attempt."""
        if isinstance(error, BrokenAnswer):
            return error
        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _THROTTLES:
                self._bucket_of(operation).slow_down()
                self._meter().throttles += 1
            return self._refusal(code, error, operation, datastore_id)
        if isinstance(error, NO_CREDENTIALS):
            return no_credentials(f"boto3 says {type(error).__name__}")
        if isinstance(error, ParamValidationError):
            return RequestRefused(
                f"boto3 refused to send {operation}: a parameter is missing or has the wrong "
                "type; check the criteria against the SearchImageSets API page"
            )
        if isinstance(error, ResponseParserError):
            return BrokenAnswer(f"{operation} kept answering with what is no JSON")
        return ServiceUnavailable(
            f"{operation} could not reach {self._client.meta.endpoint_url} "
            f"({type(error).__name__}); check the network, AWS_REGION and "
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING"
        )

    def _refusal(
        self, code: str, error: ClientError, operation: str, datastore_id: str
    ) -> ServiceError:
        """Return our error for one that the service answered with."""
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _THROTTLES or status == 429:
            return ServiceUnavailable(
                f"{operation} was throttled {_ATTEMPTS} times in a row; lower COHORTLAKE_TPS "
                "or ask AWS for a higher quota"
            )
        if code == "ConflictException" or status == 409:
            return ImageSetBusy(f"{operation} kept answering {status} {code}; run it again later")
        if status >= 500:
            return ServiceUnavailable(f"{operation} kept failing with {status} {code}")
        if code in BAD_CREDENTIALS:
            return bad_credentials("the service", code)
        if code == "AccessDeniedException" or status == 403:
            return AccessDenied(f"medical-imaging:{operation}", f"data store {datastore_id}")
        if code == "ResourceNotFoundException":
            return NoSuchDatastore(datastore_id, self._client.meta.region_name)
        return RequestRefused(
            f"{operation} was refused with {status} {code}; check the criteria against the API page"
        )


def _connect(session: boto3.Session | None, workers: int) -> HealthImagingClient:
    # The session's retries would hide throttling from the pace; ours are in `_retried`.
    config = Config(
        # A whole user agent, because boto3 would put its own together twice a request.
        user_agent=f"cohortlake/{version('cohortlake')} boto3/{boto3.__version__}",
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=workers + 4,
        connect_timeout=10,
        read_timeout=30,
    )
    session = session or new_session()
    client: HealthImagingClient = connect("medical-imaging", config, session)
    check_botocore(session, _hand_on_body)
    if not _is_of_aws(client.meta.endpoint_url, client.meta.region_name):
        config = config.merge(Config(inject_host_prefix=False))
        client = connect("medical-imaging", config, session)
    return client


def _is_of_aws(endpoint_url: str, region: str) -> bool:
    """Return whether a host is the one that AWS gives the service in a region.

    Only there does `runtime-` go before its name. boto3 would put it before any other host's too:
    an interface endpoint's (`vpce-….amazonaws.com`), an emulator's.
    """
    host = urlsplit(endpoint_url).hostname or ""
    return host.startswith((f"medical-imaging.{region}.", f"medical-imaging-fips.{region}."))


def _hand_on_body(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Keep botocore from parsing a good page: that takes three quarters of its time."""
    if response_dict["status_code"] == 200:
        customized_response_dict["body"] = response_dict["body"]
        response_dict["body"] = b"{}"


def _whole(answer: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    """Return an answer that has its required member; a cut body comes out without."""
    if member not in answer:
        raise BrokenAnswer(f"the service kept answering without {member}")
    return answer


def _service_time(headers: Mapping[str, str]) -> datetime:
    """Return the answer's Date header: windows end on the service's clock, not on ours."""
    date = headers.get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)
