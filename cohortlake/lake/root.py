"""The root of a lake: a local folder or `s3://bucket/prefix`, behind one set of calls.

The only module that knows which of the two it is. Files appear whole or not at all: they
are written under a hidden temporary name and moved. What a killed run left half written, the
next run that is alone deletes. On a local disk the restricted zone (`increments/`,
`image_sets/`, `coverage/`, `erasures/`, `keys/`) is for its owner only.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.fs as pafs
from botocore.exceptions import ClientError

from cohortlake.errors import LakeInUse, RootNotUsable
from cohortlake.lake import locks

RESTRICTED = ("increments", "image_sets", "coverage", "erasures", "keys")
TEMPORARY_SUFFIX = ".tmp"

_FOLDERS = (*RESTRICTED, "published")
# Our drafts, and the files that deltalake has yet to give their names.
_UNFINISHED = re.compile(rf"\..+\{TEMPORARY_SUFFIX}|.+#\d+")
_RUNS_LOCK, _PUBLISHING_LOCK = ".runs.lock", ".publishing.lock"


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


class Root:
    """Files below a lake's root, named by relative paths with `/`.

    Args:
        uri: A local path, a `file://` or an `s3://` URL.

    Attributes:
        uri: The same, absolute.
        is_local: Whether it is a folder of this machine.
        filesystem: Where `path` leads.

    Raises:
        RootNotUsable: The URL cannot be understood.
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
        self._presence: int | None = None

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, as the file system takes it."""
        return "/".join((self._base, *parts))

    def uri_of(self, *parts: str) -> str:
        """Return the full path or `s3://` URL of a file or folder, as other tools take it."""
        return "/".join((self.uri, *parts))

    def prepare(self) -> None:
        """Make the local folders, the restricted ones with mode 0700, and clean up.

        As long as this object lives, no other run takes what is written for leftovers. Whoever is
        about to write holds identified data, so this process leaves no core dump from now on.

        Raises:
            RootNotUsable: They cannot be made or written.
        """
        _leave_no_core_dump()
        if not self.is_local:
            return
        with self.explained():
            for name in _FOLDERS:
                folder = Path(self.path(name))
                folder.mkdir(parents=True, exist_ok=True)
                if name in RESTRICTED:
                    folder.chmod(0o700)
            lock = locks.present(Path(self.path(_RUNS_LOCK)), self._delete_unfinished)
        self._presence = lock
        weakref.finalize(self, os.close, lock)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other run of this machine work below the root; what was killed is cleaned up.

        Others wait, and begin when the block ends. Of a root on S3 nobody knows who is there.

        Raises:
            LakeInUse: Another run is at work.
        """
        with contextlib.ExitStack() as stack:
            if self._presence is not None:
                try:
                    stack.enter_context(locks.only_one_present(self._presence))
                except BlockingIOError:
                    raise LakeInUse(self.uri) from None
                self._delete_unfinished()
            yield

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Let one run of this machine publish at a time.

        Raises:
            RootNotUsable: It cannot be written.
        """
        with contextlib.ExitStack() as stack:
            if self.is_local:
                with self.explained():
                    stack.enter_context(locks.alone(Path(self.path(_PUBLISHING_LOCK))))
            yield

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
            if self.is_local:  # S3 has no folders; an object for each level would stand for them
                self.filesystem.create_dir(self.path(folder), recursive=True)
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
        return boto3.Session().client("s3")

    def _read_object(self, path: str) -> bytes:
        # Arrow asks for the size first: of a file that was replaced in between it reads a part.
        bucket, _, key = self.path(path).partition("/")
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
        except ClientError:
            raise self._not_usable(PermissionError(errno.EACCES, "")) from None
        return bytes(answer["Body"].read())

    def _create_object(self, path: str, content: bytes) -> None:
        bucket, _, key = self.path(path).partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "PreconditionFailed":
                raise self._not_usable(PermissionError(errno.EACCES, "")) from None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the operating system's errors inside the block into RootNotUsable."""
        try:
            yield
        except OSError as error:
            raise self._not_usable(error) from None

    def _delete_unfinished(self) -> None:
        for name in _FOLDERS:
            for path in Path(self.path(name)).rglob("*"):
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _not_usable(self, error: OSError) -> RootNotUsable:
        reason = os.strerror(error.errno) if error.errno else "refused, or out of reach"
        return RootNotUsable(
            f"cannot read or write below {self.uri}: {reason}; point COHORTLAKE_ROOT at a folder "
            "or s3:// prefix that this user may write, with room left"
        )


def _leave_no_core_dump() -> None:
    import resource  # not on Windows, where a lake can only be read

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # One byte: what takes dumps through a pipe is not bound by a limit of none (core(5)).
    least = 1 if hard else 0
    if soft != least:
        resource.setrlimit(resource.RLIMIT_CORE, (least, hard))


def _s3() -> pafs.FileSystem:
    options: dict[str, Any] = {"allow_delayed_open": True}  # a small file is one PUT, not three
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["scheme"], _, options["endpoint_override"] = endpoint.partition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    return pafs.S3FileSystem(**options)
