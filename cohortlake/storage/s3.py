"""S3: what Arrow cannot do there, and what an error means.

Three libraries call S3: boto3 writes, and reads small objects; Arrow lists, and reads large files;
deltalake does both for its tables. boto3's errors hold the answer of S3. The other two
libraries raise an OSError that holds it in its text. See `storage.files` for which files are read
and written.
"""

from __future__ import annotations

import functools
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from cohortlake.aws import BOTO3_ERRORS, Cause, Failure, cause_of_status, connect, failure_of
from cohortlake.errors import CohortlakeError, RootNotUsable, RootUnreachable
from cohortlake.storage.small_objects import SmallObjects, open_small
from cohortlake.storage.upload import Upload

_ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.1

_ARROW_ERROR = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during (\w+)")
_ARROW_STATUSES = {
    "ACCESS_DENIED": 403,
    "INVALID_ACCESS_KEY_ID": 403,
    "SIGNATURE_DOES_NOT_MATCH": 403,
    "NO_SUCH_BUCKET": 404,
    "NO_SUCH_KEY": 404,
    "RESOURCE_NOT_FOUND": 404,
    "INTERNAL_FAILURE": 500,
    "SERVICE_UNAVAILABLE": 503,
    "SLOW_DOWN": 503,
    "THROTTLING": 503,
}
_ARROW_WITHOUT_ANSWER = ("NETWORK_CONNECTION", "REQUEST_TIMEOUT")
_DELTALAKE_ERROR = re.compile(
    r"Error performing (\w+) .*?status code\W.*? ?(\d{3}) [A-Z]", re.DOTALL
)
_DELTALAKE_WITHOUT_ANSWER = re.compile(
    r"Error (?:performing (\w+) |getting (\w+) response body).*?HTTP error", re.DOTALL
)

_RIGHTS = {
    # Without the right to list, S3 says of what is not there that it is forbidden.
    **dict.fromkeys(("GetObject", "HeadObject", "GET"), "s3:GetObject and s3:ListBucket"),
    **dict.fromkeys(("ListObjectsV2", "list"), "s3:ListBucket"),
    **dict.fromkeys(("DeleteObject", "DeleteObjects", "DELETE"), "s3:DeleteObject"),
    "CopyObject": "s3:GetObject and s3:PutObject",
}
_RIGHT_TO_WRITE = "s3:PutObject"  # objects, and the beginning, the parts and the end of large ones


class S3:
    """A client of S3. It takes paths of a bucket and a key.

    Args:
        uri: The location that errors name.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @functools.cached_property
    def filesystem(self) -> pafs.FileSystem:
        """Arrow's file system."""
        options: dict[str, Any] = {"allow_delayed_open": True}  # a small file is one PUT, not three
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region:
            options["region"] = region
        return pafs.S3FileSystem(**options)

    def for_reading(self) -> pafs.FileSystem:
        """Return a file system that reads small objects with one request, and keeps them."""
        return pafs.PyFileSystem(SmallObjects(self.read_small, self.filesystem))

    def read_small(self, path: str) -> pa.Buffer | None:
        """Return the content of a small object; None if it is large, or cannot be read so."""
        return open_small(self._client, path)

    def upload(self, path: str) -> Upload:
        """Begin to write an object."""
        return Upload(self._client, path)

    def read(self, path: str) -> tuple[bytes, str]:
        """Return an object as one writer left it, and its ETag.

        Arrow asks for the size first. If the object is replaced in between, Arrow reads a part.

        Raises:
            RootNotUsable: It cannot be read.
        """
        with self.explained():
            return self._read(path)

    def _read(self, path: str) -> tuple[bytes, str]:
        bucket, _, key = path.partition("/")
        for _ in range(_ATTEMPTS - 1):  # boto3 repeats requests, but not the body of an answer
            with suppress(HTTPClientError, IncompleteReadError):
                return _content(self._client.get_object(Bucket=bucket, Key=key))
        return _content(self._client.get_object(Bucket=bucket, Key=key))

    def read_if_there(self, path: str) -> tuple[bytes, str] | None:
        """Return an object as `read` does, or None if there is no such object."""
        with self.explained():
            try:
                return self._read(path)
            except ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise
                return None

    def write_if(self, path: str, content: bytes, etag: str | None) -> bool:
        """Write an object if nobody else wrote it meanwhile.

        If the answer is lost, boto3 sends the request again. S3 refuses it, because the object is
        there. Then this returns False although the object was written.

        Args:
            path: The bucket and the key.
            content: What to write.
            etag: The ETag of the object to replace; None where there must be no object.

        Returns:
            Whether it was written.

        Raises:
            RootNotUsable: It cannot be written.
        """
        bucket, _, key = path.partition("/")
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        with self.explained():
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._client.put_object(Bucket=bucket, Key=key, Body=content, **condition)
                    return True
                except ClientError as error:
                    # NoSuchKey: somebody deleted the object that was to be replaced.
                    if _code(error) in ("PreconditionFailed", "NoSuchKey"):
                        return False
                    # The other request may be a deletion, or may fail, and leave no object.
                    if _code(error) != "ConditionalRequestConflict" or attempt == _ATTEMPTS:
                        raise
                time.sleep(_FIRST_WAIT_SECONDS * 2**attempt * random.random())  # noqa: S311 - jitter
        return False

    def delete(self, path: str) -> None:
        """Delete an object if it exists. Arrow would take three requests.

        Raises:
            RootNotUsable: It cannot be deleted.
        """
        bucket, _, key = path.partition("/")
        with self.explained():
            self._client.delete_object(Bucket=bucket, Key=key)

    def delete_named(self, path: str, name: re.Pattern[str], before: datetime | None) -> None:
        """Delete the objects whose names match a pattern.

        Args:
            path: The bucket and the prefix.
            name: Matches the last part of the key.
            before: Only objects that were written before; None for all.

        Raises:
            RootNotUsable: They cannot be listed or deleted.
        """
        bucket, _, prefix = path.partition("/")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with self.explained():
            for page in pages:
                for item in page.get("Contents", ()):
                    is_meant = name.fullmatch(item["Key"].rpartition("/")[2])
                    if is_meant and (before is None or item["LastModified"] < before):
                        self._client.delete_object(Bucket=bucket, Key=item["Key"])

    def abort_uploads(self, path: str, before: datetime | None) -> None:
        """Abort uploads that were never completed: no listing of objects shows them.

        Without the right to do so nothing happens: a lifecycle rule of the bucket can abort them.

        Args:
            path: The bucket and the prefix.
            before: Only uploads that began before; None for all.

        Raises:
            RootNotUsable: S3 gave no answer, or there is no such bucket.
        """
        bucket, _, prefix = path.partition("/")
        uploads = self._client.get_paginator("list_multipart_uploads")
        with self.explained():
            try:
                for page in uploads.paginate(Bucket=bucket, Prefix=prefix):
                    for one in page.get("Uploads", ()):
                        if before is None or one["Initiated"] < before:
                            self._client.abort_multipart_upload(
                                Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"]
                            )
            except ClientError as error:
                if _code(error) not in ("AccessDenied", "NoSuchUpload"):
                    raise

    def answer_in(self, text: str) -> CohortlakeError | None:
        """Return our error for the answer of S3 that a library's message holds; else None."""
        failure = _failure_of_text(text)
        return _error_of(self._uri, failure) if failure else None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of the libraries inside the block into ours, which say what to do.

        Raises:
            RootUnreachable: S3 gave no answer, or one that asks to try again.
            RootNotUsable: It refused.
            NoCredentials: There are none, or S3 does not accept them.
        """
        try:
            yield
        except BOTO3_ERRORS as error:
            raise _error_of(self._uri, failure_of(error)) from None
        except OSError as error:
            raise _error_of(self._uri, _failure_of_os_error(error)) from None

    @functools.cached_property
    def _client(self) -> Any:
        """boto3's client, of a new session: a session is not safe for several threads."""
        return connect("s3", Config())


def _content(answer: dict[str, Any]) -> tuple[bytes, str]:
    """Return the body and the ETag of an answer to GetObject."""
    return bytes(answer["Body"].read()), str(answer["ETag"])


def _failure_of_os_error(error: OSError) -> Failure:
    if error.errno:
        is_missing = isinstance(error, FileNotFoundError)
        return Failure(Cause.NOT_FOUND if is_missing else Cause.REFUSED, os.strerror(error.errno))
    return _failure_of_text(str(error)) or Failure(
        Cause.REFUSED, "refused, out of reach, or damaged"
    )


def _failure_of_text(text: str) -> Failure | None:
    """Return S3's answer from the text of a library's error; None if the text holds none.

    Nothing else of the text is passed on: it may quote what was sent.
    """
    if arrow := _ARROW_ERROR.search(text):
        code, status, operation = arrow.groups()
        if code in _ARROW_WITHOUT_ANSWER and not status:
            return Failure(Cause.NO_ANSWER, "", operation=operation)
        cause = cause_of_status(int(status or _ARROW_STATUSES.get(code, 400)))
        return Failure(cause, status or code, operation=operation)
    if deltalake := _DELTALAKE_ERROR.search(text):
        operation, status = deltalake.groups()
        return Failure(cause_of_status(int(status)), status, operation=operation)
    if no_answer := _DELTALAKE_WITHOUT_ANSWER.search(text):
        return Failure(Cause.NO_ANSWER, "", operation=no_answer[1] or no_answer[2])
    return None


def _error_of(uri: str, failure: Failure) -> CohortlakeError:
    what = f"cannot read or write below {uri}: {_in_words(failure)}"
    if failure.cause.is_transient:
        return RootUnreachable(
            f"{what}; run it again, and if it stays so, check the network, AWS_REGION and "
            "AWS_ENDPOINT_URL_S3"
        )
    match failure.cause:
        case Cause.NO_CREDENTIALS:
            return failure.no_credentials("S3")
        case Cause.DENIED:
            right = _RIGHTS.get(failure.operation, _RIGHT_TO_WRITE)
            return RootNotUsable(
                f"{what}; give this user {right} there (docs/how-to/aws.md has the policy in "
                "full), or check the credentials, COHORTLAKE_ROOT and COHORTLAKE_PUBLISHED"
            )
        case Cause.NOT_FOUND:
            return RootNotUsable(
                f"{what}; make the bucket or restore the file that is not there, or correct "
                "COHORTLAKE_ROOT or COHORTLAKE_PUBLISHED"
            )
    return RootNotUsable(
        f"{what}; check the credentials, AWS_REGION, COHORTLAKE_ROOT and COHORTLAKE_PUBLISHED"
    )


def _in_words(failure: Failure) -> str:
    if not failure.operation:
        return failure.reason
    answer = f"S3 answered {failure.reason}" if failure.reason else "S3 gave no answer"
    return f"{answer} to {failure.operation}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
