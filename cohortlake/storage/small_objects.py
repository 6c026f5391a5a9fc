"""A file system for Arrow that reads each small object of S3 with one request.

Arrow asks for the size of a file, then for its footer, then for each range that it reads. Most
files of a lake are small, and requests are time and money.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.fs as pafs

from cohortlake.aws import BOTO3_ERRORS

_SMALL_BYTES = 4 * 1024 * 1024
_KEPT_BYTES = 64 * 1024 * 1024
_TOTAL = re.compile(r"/(\d+)$")


def open_small(client: Any, path: str) -> pa.Buffer | None:
    """Return the content of a small object; None if it is large, or cannot be read so.

    Args:
        client: boto3's client.
        path: The bucket and the key.
    """
    bucket, _, key = path.partition("/")
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_SMALL_BYTES - 1}")
        total = _TOTAL.search(answer.get("ContentRange", ""))
        if total is None or int(total[1]) > _SMALL_BYTES:
            answer["Body"].close()
            return None
        return pa.py_buffer(answer["Body"].read())
    except BOTO3_ERRORS:
        return None  # Arrow then reads it, and raises an error that says what is wrong


class SmallObjects(pafs.FileSystemHandler):  # type: ignore[misc]
    """Reads files, and keeps the content of small ones, of which a query may read several times.

    Args:
        read_small: Returns the content of a small object; None if it is large. See `open_small`.
        filesystem: Arrow's file system, for large ones.
    """

    def __init__(
        self, read_small: Callable[[str], pa.Buffer | None], filesystem: pafs.FileSystem
    ) -> None:
        self._read_small, self._filesystem = read_small, filesystem
        self._kept: dict[str, pa.Buffer] = {}
        self._kept_bytes = 0

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for random reading."""
        content = self._kept.get(path)
        if content is None:
            content = self._read_small(path)
            if content is None:
                return self._filesystem.open_input_file(path)
            if self._kept_bytes + content.size <= _KEPT_BYTES:
                self._kept[path] = content
                self._kept_bytes += content.size
        return pa.BufferReader(content)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open a file for reading."""
        return self.open_input_file(path)

    def get_type_name(self) -> str:
        """Return the name of this kind of file system."""
        return "small-objects"

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        """Say of all paths that they are files: callers name files that are there."""
        return [pafs.FileInfo(path, pafs.FileType.File) for path in paths]

    def normalize_path(self, path: str) -> str:
        """Return a path as it is."""
        return path

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _only_reads(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("this file system only reads")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _only_reads
    delete_root_dir_contents = delete_file = move = copy_file = _only_reads
    open_output_stream = open_append_stream = _only_reads
