"""Where files lie: a local folder, or `s3://bucket/prefix`.

This module finds out which of the two a URI names, and refuses a URI that no lake can lie at. See
`storage.files` for how files are read and written there, and `storage.s3` for S3's errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from cohortlake.errors import CohortlakeError, RootNotUsable

if TYPE_CHECKING:
    from cohortlake.storage.s3 import S3

# One slash is enough for a scheme: `s3:/bucket` is a typing error, and not a folder.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# deltalake decodes an escape like %20 and refuses control characters. On a disk it reads a
# backslash as a slash, and fails on the other four characters.
_UNUSABLE = re.compile("%[0-9A-Fa-f]{2}|[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_UNUSABLE_ON_DISK = re.compile(r"[\[\]|^]" if os.sep == "\\" else r"[\[\]|^\\]")


class StorageLocation:
    """A local folder, or a prefix of an S3 bucket.

    Args:
        uri: A local path, a `file://` or an `s3://` URL.

    Attributes:
        uri: The same, absolute.
        s3: The client, if it lies on S3; else None.
        filesystem: Arrow's file system, which `path` is for.

    Raises:
        RootNotUsable: The URL cannot be understood, or no lake can lie there.
    """

    filesystem: pafs.FileSystem

    def __init__(self, uri: str) -> None:
        _check(uri)
        self.s3: S3 | None = None
        if uri.startswith("s3://"):
            from cohortlake.storage.s3 import S3  # 27 MB, and a local lake needs none of it

            self._base = uri.removeprefix("s3://").rstrip("/")
            _check_names(self._base)
            self.uri = f"s3://{self._base}"
            self.s3 = S3(self.uri)
            self.filesystem = self.s3.filesystem
        else:
            self._base = self.uri = _absolute(uri.removeprefix("file://"))
            _check_names(self._base, _UNUSABLE_ON_DISK)
            self.filesystem = pafs.LocalFileSystem()

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.s3 is None

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, as the file system takes it."""
        return "/".join((self._base, *parts))

    def open_file(self, path: str) -> pa.NativeFile:
        """Open a file below this location for random reading."""
        if self.s3 and (content := self.s3.read_small(self.path(path))) is not None:
            return pa.BufferReader(content)
        return self.filesystem.open_input_file(self.path(path))

    def relative_path(self, path: str) -> str:
        """Return a full path relative to this location."""
        return path.removeprefix(self._base).lstrip("/")

    def uri_of(self, *parts: str) -> str:
        """Return the full path or `s3://` URL of a file or folder, as other tools take it."""
        return "/".join((self.uri, *parts))

    def table_uri_of(self, *parts: str) -> str:
        """Return the path or URL of a Delta table, as deltalake takes it.

        deltalake ends the path of a URL at a `#` or a `?`, and would write outside this location.
        """
        return self.uri_of(*parts) if self.is_local else f"s3://{quote(self.path(*parts))}"

    def answer_in(self, text: str) -> CohortlakeError | None:
        """Return our error for the answer of S3 that a library's message holds; else None."""
        return self.s3.answer_in(text) if self.s3 else None

    def explained(self) -> AbstractContextManager[None]:
        """Turn errors inside the block into RootNotUsable, whose message says what to do."""
        return self.s3.explained() if self.s3 else _explained(self.uri)


def _check(uri: str) -> None:
    """Refuse a URL that no lake can lie at: taken for a folder's name, it would be created."""
    url = _URL.match(uri)
    if url is None or uri.startswith(("file:///", "file://~")):
        return
    bucket, *names = uri.removeprefix("s3://").rstrip("/").split("/")
    if not (uri.startswith("s3://") and _BUCKET.fullmatch(bucket) and all(names)):
        raise RootNotUsable(
            f"no lake can lie at this {url[0]} URL; give COHORTLAKE_ROOT, or COHORTLAKE_PUBLISHED, "
            "as a folder, file:///folder or s3://bucket/prefix"
        )


def _absolute(folder: str) -> str:
    """Return the full path of a folder, without `..`, which libraries resolve differently.

    Raises:
        RootNotUsable: It begins with `~` and a user without a home folder.
    """
    try:
        path = Path(folder).expanduser()
    except RuntimeError:
        raise RootNotUsable(
            f"{folder!r} begins with a user who has no home folder here; give COHORTLAKE_ROOT, or "
            "COHORTLAKE_PUBLISHED, as a full path"
        ) from None
    path = path.resolve() if ".." in path.parts else path.absolute()
    return re.sub("^//+", "/", str(path))


def _check_names(base: str, *more: re.Pattern[str]) -> None:
    """Refuse names of folders that one of the libraries would read differently.

    Raises:
        RootNotUsable: There is such a name.
    """
    found = next((match for part in (_UNUSABLE, *more) if (match := part.search(base))), None)
    dots = next((name for name in base.split("/") if name in (".", "..")), None)
    if found or dots:
        what = ascii(found[0] if found else dots)
        raise RootNotUsable(
            f"no lake can lie at {base!a}, because {what} in a folder's name means something "
            "else to the libraries that write there; rename the folder, or give another one as "
            "COHORTLAKE_ROOT or COHORTLAKE_PUBLISHED"
        )


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn the operating system's errors inside the block into RootNotUsable."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "refused, or damaged"
        raise RootNotUsable(
            f"cannot read or write below {uri}: {reason}; point COHORTLAKE_ROOT, or "
            "COHORTLAKE_PUBLISHED, at a folder or s3:// prefix that this user may write, with room "
            "left"
        ) from None
