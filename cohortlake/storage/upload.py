"""An object of S3 while it is written.

S3 shows an object only when its upload is complete, so it needs no hidden name: a small file is one
request. Arrow completes an upload even if its writer fails, so boto3 uploads.
"""

from __future__ import annotations

import contextlib
import io
import uuid
from typing import Any

from cohortlake.aws import BOTO3_ERRORS

_PART_BYTES = 8 * 1024 * 1024  # S3 wants at least 5 MiB, and takes 10,000 parts
_ID = "written-by"  # the metadata of an object, by which its writer recognises it


class Upload(io.RawIOBase):
    """Takes the content of an object. `keep` or `discard` it; the first wins.

    Nobody sees the object before `keep`. What is killed before it leaves nothing, or parts that
    `S3.abort_uploads` deletes.

    Args:
        client: boto3's client.
        path: The bucket and the key.
    """

    def __init__(self, client: Any, path: str) -> None:
        bucket, _, key = path.partition("/")
        self._client = client
        self._object = {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._size_bytes = 0
        self._id = uuid.uuid4().hex
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._is_open = True

    @property
    def stream(self) -> Upload:
        """The stream to write to."""
        return self

    def writable(self) -> bool:
        """Return true: this is a stream to write to."""
        return True

    def write(self, content: Any) -> int:
        """Take some bytes, and upload full parts."""
        self._buffer += content
        self._size_bytes += len(content)
        while len(self._buffer) >= _PART_BYTES:
            self._send_part(bytes(self._buffer[:_PART_BYTES]))
            del self._buffer[:_PART_BYTES]
        return len(content)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._size_bytes

    def keep(self) -> None:
        """Complete the object. It is there from then on, and replaces what was there."""
        self._is_open = False
        if self._upload_id is None:
            self._client.put_object(**self._object, Body=bytes(self._buffer))
            return
        if self._buffer:
            self._send_part(bytes(self._buffer))
        try:
            self._client.complete_multipart_upload(
                **self._object, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        except self._client.exceptions.NoSuchUpload:
            # Either the upload was aborted, or it was completed and the answer was lost.
            if not self._is_there():
                raise

    def _is_there(self) -> bool:
        there = self._client.head_object(**self._object)
        return bool(there["Metadata"].get(_ID) == self._id)

    def discard(self) -> None:
        """Delete what was uploaded, unless the object was kept."""
        if self._is_open:
            self._is_open = False
            if self._upload_id:
                # The caller already handles the error that made it discard the file.
                with contextlib.suppress(*BOTO3_ERRORS):
                    self._client.abort_multipart_upload(**self._object, UploadId=self._upload_id)

    def _send_part(self, content: bytes) -> None:
        if self._upload_id is None:
            begun = self._client.create_multipart_upload(**self._object, Metadata={_ID: self._id})
            self._upload_id = str(begun["UploadId"])
        number = len(self._parts) + 1
        sent = self._client.upload_part(
            **self._object, UploadId=self._upload_id, PartNumber=number, Body=content
        )
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
