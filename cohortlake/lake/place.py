"""One place that files lie in: a local folder or `s3://bucket/prefix`, behind one set of calls.

The only module that knows which of the two it is. Files appear whole or not at all: they
are written under a hidden temporary name and moved. On a local disk the restricted zone is for
its owner only. Which files lie in which place is `lake.root`'s.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from cohortlake.errors import RootNotUsable

RESTRICTED = ("increments", "image_sets", "coverage", "erasures", "keys")
TEMPORARY_SUFFIX = ".tmp"


class Draft:
    """A file being written under a hidden name. Keep it or discard it; the first wins."""

    def __init__(
        self, fs: pafs.FileSystem, temporary: str, final: str, stream: pa.NativeFile
    ) -> None:
        self._fs, self._final = fs, final
        self.temporary = temporary
        self.stream = stream
        self._is_open = True

    def keep(self) -> None:
        """Give the file its name."""
        self.stream.close()
        self._fs.move(self.temporary, self._final)
        self._is_open = False

    def discard(self) -> None:
        """Delete the file, unless it was kept."""
        if self._is_open:
            self._is_open = False
            # What went wrong is on its way up already: a full disk, a missing right.
            with contextlib.suppress(OSError):
                self.stream.close()
            with contextlib.suppress(OSError):
                self._fs.delete_file(self.temporary)


class Place:
    """Files below a folder or a prefix, named by relative paths with `/`.

    Args:
        uri: A local path, a `file://` or an `s3://` URL.

    Attributes:
        uri: The same, absolute.
        is_local: Whether it is a folder of this machine.
        filesystem: Where `path` leads.
    """

    def __init__(self, uri: str) -> None:
        self.is_local = not uri.startswith("s3://")
        if self.is_local:
            self._base = str(Path(uri.removeprefix("file://")).expanduser().absolute())
            self.filesystem: pafs.FileSystem = pafs.LocalFileSystem()
            self.uri = self._base
        else:
            self._base = uri.removeprefix("s3://").rstrip("/")
            self.filesystem = _s3()
            self.uri = f"s3://{self._base}"

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, as the file system takes it."""
        return "/".join((self._base, *parts))

    def uri_of(self, *parts: str) -> str:
        """Return the full path or `s3://` URL of a file or folder, as other tools take it."""
        return "/".join((self.uri, *parts))

    def make_folder(self, folder: str) -> None:
        """Make a folder; on S3 there are none.

        Raises:
            RootNotUsable: It cannot be made.
        """
        if self.is_local:
            with self.explained():
                _make_folders(Path(self._base), folder)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the relative paths of all finished files below a folder, sorted."""
        selector = pafs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        paths = [info.path for info in self.filesystem.get_file_info(selector) if info.is_file]
        relative = [path.removeprefix(self._base).lstrip("/") for path in paths]
        return sorted(
            path
            for path in relative
            if path.endswith(suffix) and not path.rsplit("/", 1)[-1].startswith((".", "_"))
        )

    def exists(self, path: str) -> bool:
        """Return whether a file is there."""
        return bool(self.filesystem.get_file_info(self.path(path)).is_file)

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random reading."""
        return self.filesystem.open_input_file(self.path(path))

    def read(self, path: str) -> bytes:
        """Return a whole small file, as one writer left it.

        Raises:
            RootNotUsable: It cannot be read.
        """
        if not self.is_local:
            return self._read_object(path)
        with self.open(path) as file:
            return bytes(file.read())

    def delete(self, path: str) -> None:
        """Delete a file, and its folder if that is empty then; another run may have been faster."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(path))
        if self.is_local:
            with contextlib.suppress(OSError):
                Path(self.path(path)).parent.rmdir()

    def draft(self, path: str) -> Draft:
        """Open a hidden file that may become the file at `path`.

        Raises:
            RootNotUsable: It cannot be written.
        """
        folder, _, name = path.rpartition("/")
        temporary = self.path(folder, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
        with self.explained():
            self.make_folder(folder)
            stream = self.filesystem.open_output_stream(temporary)
            if self.is_local and folder.split("/", 1)[0] in RESTRICTED:
                Path(temporary).chmod(0o600)
        return Draft(self.filesystem, temporary, self.path(path), stream)

    @contextmanager
    def writing(self, path: str) -> Iterator[pa.NativeFile]:
        """Give a stream that becomes the file at `path` when the block ends well.

        Raises:
            RootNotUsable: It cannot be written.
        """
        draft = self.draft(path)
        try:
            with self.explained():
                yield draft.stream
                draft.keep()
        finally:
            draft.discard()

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, whole or not at all.

        Raises:
            RootNotUsable: It cannot be written.
        """
        with self.writing(path) as stream:
            stream.write(content)

    def create(self, path: str, content: bytes) -> None:
        """Write a small file unless it is there: of several writers the first one wins.

        Raises:
            RootNotUsable: It cannot be written.
        """
        if not self.is_local:
            self._create_object(path, content)
            return
        draft = self.draft(path)
        try:
            with self.explained(), contextlib.suppress(FileExistsError):
                draft.stream.write(content)
                draft.stream.close()
                os.link(draft.temporary, self.path(path))
        finally:
            draft.discard()

    @functools.cached_property
    def _client(self) -> Any:
        """S3 for what Arrow cannot do. A session of its own: boto3's is not for several threads."""
        from botocore.config import Config  # 27 MB, and a local lake needs none of it

        from cohortlake.healthimaging.connection import connect

        return connect("s3", Config())

    def _read_object(self, path: str) -> bytes:
        # Arrow asks for the size first: of a file that was replaced in between it reads a part.
        bucket, _, key = self.path(path).partition("/")
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
        except self._client.exceptions.ClientError:
            raise self._not_usable(PermissionError(errno.EACCES, "")) from None
        return bytes(answer["Body"].read())

    def _create_object(self, path: str, content: bytes) -> None:
        bucket, _, key = self.path(path).partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") != "PreconditionFailed":
                raise self._not_usable(PermissionError(errno.EACCES, "")) from None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the operating system's errors inside the block into RootNotUsable."""
        try:
            yield
        except OSError as error:
            raise self._not_usable(error) from None

    def _not_usable(self, error: OSError) -> RootNotUsable:
        reason = os.strerror(error.errno) if error.errno else "refused, or out of reach"
        return RootNotUsable(
            f"cannot read or write below {self.uri}: {reason}; point COHORTLAKE_ROOT, or "
            "COHORTLAKE_PUBLISHED, at a folder or s3:// prefix that this user may write, with room "
            "left"
        )


def close_to_others(folder: Path) -> None:
    """Take from everybody but the owner all rights on a folder and what is below it."""
    for path in (folder, *folder.rglob("*")):
        # What another run deletes meanwhile is nobody's to read.
        with contextlib.suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if mode & 0o077:
                path.chmod(mode & 0o700)


def _make_folders(base: Path, folder: str) -> None:
    """Make a folder and those above it; in the restricted zone for their owner only."""
    parts = folder.split("/")
    is_restricted = parts[0] in RESTRICTED
    base.mkdir(parents=True, exist_ok=True)
    for depth in range(1, len(parts) + 1):
        # Not by the mode alone: a default access list, or a mask of none, would widen it.
        path = base.joinpath(*parts[:depth])
        if not path.is_dir():
            path.mkdir(mode=0o700 if is_restricted else 0o777, exist_ok=True)


def _s3() -> pafs.FileSystem:
    options: dict[str, Any] = {"allow_delayed_open": True}  # a small file is one PUT, not three
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    return pafs.S3FileSystem(**options)
