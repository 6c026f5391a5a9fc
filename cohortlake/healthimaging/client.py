"""The client of the service: a few calls, raw pages, and errors that say what to do.

This module adds to boto3 the pace, the check of each answer, the retries and the errors. One token
bucket paces all threads, retries included; the calls for older versions have a quota each. See
`healthimaging.connection` for how boto3 is set up, and `healthimaging.window_search` for how one
page follows another.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import boto3

from cohortlake.aws import BOTO3_ERRORS, Cause, Failure, failure_of
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
from cohortlake.healthimaging import document
from cohortlake.healthimaging.connection import connected
from cohortlake.healthimaging.document import Part
from cohortlake.healthimaging.import_jobs import ImportJob
from cohortlake.healthimaging.metadata import Version
from cohortlake.healthimaging.page import BrokenAnswer, Page
from cohortlake.healthimaging.token_bucket import TokenBucket
from cohortlake.settings import Settings
from cohortlake.stop import Stop

PAGE_SIZE = 50
"""The most rows of a page. The default is not documented, so it is always sent."""

METADATA_CALLS_AT_ONCE = 16
"""How many documents may be read at once. A large one takes a second."""

# Requests per second that AWS grants an account for listing versions. No setting paces it.
_LIST_VERSIONS_TPS = 25.0
# The same for listing import jobs.
_LIST_JOBS_TPS = 10.0
_ATTEMPTS = 8
_ATTEMPTS_AT_STATUS = 4  # a person waits for it
_LONGEST_WAIT_SECONDS = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Datastore:
    """A data store.

    Attributes:
        datastore_id: Its id.
        created_at: When it was created, if the service tells.
        now: The instant of the answer on the service's clock, to the second, rounded down.
    """

    datastore_id: str
    created_at: datetime | None
    now: datetime


class Meter:
    """Counts the requests of one search, retries included, and the throttled ones."""

    def __init__(self) -> None:
        self.requests = 0
        self.throttles = 0


class HealthImaging:
    """A client of AWS HealthImaging, safe to share between threads.

    Args:
        settings: Gives the pace (`tps` and `burst`) and the number of `workers`.
        session: A boto3 session; a new one by default.
        stop: After a stop is asked for, each call raises `Stopped`, also one that waits.

    Raises:
        SettingError: No region is set, or the profile does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        session: boto3.Session | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._stop = stop or Stop()
        self._bucket = TokenBucket(settings.tps, settings.burst, self._stop)
        own = {
            "ListImageSetVersions": _LIST_VERSIONS_TPS,
            "ListDICOMImportJobs": _LIST_JOBS_TPS,
            "GetImageSetMetadata": settings.metadata_tps,
        }
        self._own_buckets = {
            name: TokenBucket(tps, burst=max(1.0, tps), stop=self._stop)
            for name, tps in own.items()
        }
        self._meters = threading.local()
        self._client = connected(session, max(settings.workers, METADATA_CALLS_AT_ONCE))
        events = self._client.meta.events
        # Before botocore's own handler of this event, which signs: a signature is valid for five
        # minutes, and at a low rate a request may wait longer for its slot.
        events.register_first("request-created.medical-imaging", self._pace)
        events.register("before-send.medical-imaging", self._count)

    def datastore(self, datastore_id: str) -> Datastore:
        """Return a data store, by its id.

        Raises:
            NoSuchDatastore: This account and region have no such data store.
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
        """Return one page; ask again until it comes whole.

        Args:
            datastore_id: The data store to search.
            criteria: `searchCriteria` as the API takes them.
            next_token: The token of the page; the first page by default.
            meter: Counts the requests.

        Raises:
            TokenRefused: The service does not accept the token.
            RequestRefused: It does not accept the criteria.
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
        """Return whether an image set exists, by GetImageSet.

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
        """Return the versions of an image set that the service has.

        Args:
            datastore_id: The data store.
            image_set_id: The image set.
            meter: Counts the requests.

        Raises:
            NoSuchDatastore: There is no such image set (the service names either of them).
            ImageSetBusy: A change of it went on during all attempts.
            TokenRefused: The service does not accept its own token.
            ServiceError: See `errors`.
        """
        self._meters.current = meter or Meter()
        found = self._listed(
            "ListImageSetVersions",
            "imageSetPropertiesList",
            self._client.list_image_set_versions,
            {"datastoreId": datastore_id, "imageSetId": image_set_id},
        )
        return [Version.from_properties(item) for item in found]

    def import_jobs(self, datastore_id: str, status: str, most: int) -> list[ImportJob]:
        """Return import jobs of a data store with a status, as far back as the service lists them.

        Args:
            datastore_id: The data store.
            status: SUBMITTED, IN_PROGRESS, COMPLETED or FAILED.
            most: How many are returned at most. The service documents no order.

        Raises:
            AccessDenied: The caller may not call ListDICOMImportJobs.
            ServiceError: See `errors`.
        """
        self._meters.current = Meter()
        found = self._listed(
            "ListDICOMImportJobs",
            "jobSummaries",
            self._client.list_dicom_import_jobs,
            {"datastoreId": datastore_id, "jobStatus": status},
            _ATTEMPTS_AT_STATUS,
        )
        return [ImportJob.from_summary(item) for item in itertools.islice(found, most)]

    def metadata(
        self,
        datastore_id: str,
        image_set_id: str,
        version: int,
        take: Callable[[Iterator[Part]], T],
        meter: Meter | None = None,
    ) -> T:
        """Read the metadata document of a version, whatever its size.

        This moves an archived image set back to the frequent tier.

        Args:
            datastore_id: The data store.
            image_set_id: The image set.
            version: Which version of it.
            take: Takes the parts of the document. Called again with all parts if the answer was
                cut.
            meter: Counts the requests.

        Returns:
            What `take` returns.

        Raises:
            NoSuchDatastore: There is no such version (the service names none of them).
            NotMetadata: The answer is complete, and is no metadata document.
            BrokenAnswer: All answers were cut.
            ImageSetBusy: A change of it went on during all attempts.
            ServiceError: See `errors`.
        """
        self._meters.current = meter or Meter()

        def ask() -> T:
            answer = self._client.get_image_set_metadata(
                datastoreId=datastore_id, imageSetId=image_set_id, versionId=str(version)
            )
            # As a context manager a StreamingBody gives the raw stream, which raises other errors.
            with closing(answer["imageSetMetadataBlob"]) as blob:
                return take(document.read(blob))

        return self._retried("GetImageSetMetadata", datastore_id, ask)

    def has_slack(self) -> bool:
        """Return whether slots of the quota are unused."""
        return self._bucket.has_slack()

    def _pace(self, event_name: str, **_: Any) -> None:
        self._bucket_of(event_name.rpartition(".")[2]).acquire()

    def _count(self, **_: Any) -> None:
        self._meter().requests += 1

    def _bucket_of(self, operation: str) -> TokenBucket:
        return self._own_buckets.get(operation, self._bucket)

    def _meter(self) -> Meter:
        """Return the meter of this thread's search; outside a search, a new one."""
        meter: Meter = getattr(self._meters, "current", None) or Meter()
        return meter

    def _listed(
        self,
        operation: str,
        member: str,
        call: Callable[..., Any],
        request: Mapping[str, Any],
        attempts: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages of a listing."""
        asked = {**request, "maxResults": PAGE_SIZE}
        while True:
            try:
                page = self._retried(
                    operation,
                    request["datastoreId"],
                    lambda: _whole(call(**asked), member),
                    attempts,
                )
            except RequestRefused:
                if "nextToken" in asked:
                    raise TokenRefused(f"{operation} did not take its nextToken") from None
                raise
            yield from page[member]
            if not page.get("nextToken"):
                return
            asked["nextToken"] = page["nextToken"]

    def _retried(
        self,
        operation: str,
        datastore_id: str,
        call: Callable[[], T],
        attempts: int | None = None,
    ) -> T:
        """Call until it succeeds or cannot succeed, with full jitter between attempts."""
        failed: ServiceError = ServiceUnavailable(f"{operation} was not answered")
        for attempt in range(attempts or _ATTEMPTS):
            if attempt:
                longest = min(_LONGEST_WAIT_SECONDS, 0.1 * 2**attempt)
                self._stop.wait(random.uniform(0, longest))  # noqa: S311 - jitter, not a secret
            try:
                return call()
            except BrokenAnswer as error:
                failed = error
            except (*BOTO3_ERRORS, OSError) as error:
                failed = self._error_of(failure_of(error), operation, datastore_id)
            if not failed.transient:
                break
        # Raised outside `except`, so that `__context__` cannot expose boto3's message.
        raise failed

    def _error_of(self, failure: Failure, operation: str, datastore_id: str) -> ServiceError:
        """Return our error for a failed call; a transient one is worth another attempt."""
        match failure.cause:
            case Cause.NO_CREDENTIALS:
                return failure.no_credentials("the service")
            case Cause.NOT_SENT:
                return RequestRefused(
                    f"boto3 refused to send {operation}: a parameter is missing or has the wrong "
                    "type; check the criteria against the SearchImageSets API page"
                )
            case Cause.UNREADABLE:
                return BrokenAnswer(f"{operation} kept answering with text that is not JSON")
            case Cause.THROTTLED:
                self._bucket_of(operation).slow_down()
                self._meter().throttles += 1
                return ServiceUnavailable(
                    f"{operation} kept being throttled; lower COHORTLAKE_TPS or ask AWS for a "
                    "higher quota"
                )
            case Cause.CONFLICT:
                return ImageSetBusy(f"{operation} kept answering {failure.reason}; run it later")
            case Cause.SERVER_ERROR:
                return ServiceUnavailable(f"{operation} kept failing with {failure.reason}")
            case Cause.DENIED:
                return AccessDenied(f"medical-imaging:{operation}", f"data store {datastore_id}")
        if failure.code == "ResourceNotFoundException":
            return NoSuchDatastore(datastore_id, self._client.meta.region_name)
        if failure.code:
            return RequestRefused(
                f"{operation} was refused with {failure.reason}; check the criteria against the "
                "API page"
            )
        return ServiceUnavailable(
            f"{operation} could not reach {self._client.meta.endpoint_url} ({failure.reason}); "
            "check the network, AWS_REGION and AWS_ENDPOINT_URL_MEDICAL_IMAGING"
        )


def _whole(answer: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    """Return an answer, which must have its required member: a cut body lacks it."""
    if member not in answer:
        raise BrokenAnswer(f"the service kept answering without {member}; run it again later")
    return answer


def _service_time(headers: Mapping[str, str]) -> datetime:
    """Return the Date header of an answer: windows end on the service's clock, not on ours."""
    date = headers.get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else datetime.now(UTC)
