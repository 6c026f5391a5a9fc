"""One place that files lie in: a local folder or `s3://bucket/prefix`, behind one set of calls.

The only module that knows which of the two it is. Files appear whole or not at all: they
are written under a hidden temporary name and moved. On a local disk the restricted zone is for
its owner only. Which files lie in which place is `storage.root`'s, and what S3 means by an error
`storage.s3`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from cohortlake.errors import CohortlakeError, RootNotUsable

if TYPE_CHECKING:
    from cohortlake.storage.s3 import S3

RESTRICTED = ("increments", "image_sets", "coverage", "erasures", "keys")
_TEMPORARY_SUFFIX = ".tmp"
DRAFT = re.compile(rf"\..+\{_TEMPORARY_SUFFIX}")
"""The names of files that are being written."""

# One slash is enough for a scheme: `s3:/bucket` is a slip, and no folder that anybody meant.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# deltalake decodes an escape like %20, takes no control characters, and on a disk takes a backslash
# for a slash and fails on the other four.
_UNUSABLE = re.compile("%[0-9A-Fa-f]{2}|[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_UNUSABLE_ON_DISK = re.compile(r"[\[\]|^]" if os.sep == "\\" else r"[\[\]|^\\]")


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
        """Give the file its name, which outlives a loss of power then."""
        self.stream.close()
        is_local = isinstance(self._fs, pafs.LocalFileSystem)
        if is_local:
            _sync(self.temporary)
        self._fs.move(self.temporary, self._final)
        self._is_open = False
        if is_local:
            _sync(Path(self._final).parent)

    def discard(self) -> None:
        """Delete the file, unless it was kept."""
        if self._is_open:
            self._is_open = False
            # What went wrong is on its way up already: a full disk, a missing right.
            with contextlib.suppress(OSError):
                self.stream.close()
            with contextlib.suppress(OSError):
                self._fs.delete_file(self.temporary)


class StorageLocation:
    """Files below a folder or a prefix, named by relative paths with `/`.

    Args:
        uri: A local path, a `file://` or an `s3://` URL.

    Attributes:
        uri: The same, absolute.
        is_local: Whether it is a folder of this machine.
        filesystem: Where `path` leads.

    Raises:
        RootNotUsable: A URL cannot be understood, or no lake can lie there.
    """

    filesystem: pafs.FileSystem

    def __init__(self, uri: str) -> None:
        _check(uri)
        self._s3: S3 | None = None
        if uri.startswith("s3://"):
            from cohortlake.storage.s3 import S3  # 27 MB, and a local lake needs none of it

            self._base = uri.removeprefix("s3://").rstrip("/")
            _check_names(self._base)
            self.uri = f"s3://{self._base}"
            self._s3 = S3(self.uri)
            self.filesystem = self._s3.filesystem
        else:
            self._base = self.uri = _absolute(uri.removeprefix("file://"))
            _check_names(self._base, _UNUSABLE_ON_DISK)
            self.filesystem = pafs.LocalFileSystem()
        self.is_local = self._s3 is None

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, as the file system takes it."""
        return "/".join((self._base, *parts))

    def uri_of(self, *parts: str) -> str:
        """Return the full path or `s3://` URL of a file or folder, as other tools take it."""
        return "/".join((self.uri, *parts))

    def table_uri_of(self, *parts: str) -> str:
        """Return the path or URL of a Delta table, as deltalake takes it.

        In a URL it takes what follows a `#` or a `?` for no part of the path, and would write
        outside the place.
        """
        return self.uri_of(*parts) if self.is_local else f"s3://{quote(self.path(*parts))}"

    def make_folder(self, folder: str) -> None:
        """Make a folder; on S3 there are none.

        Raises:
            RootNotUsable: It cannot be made.
        """
        if self.is_local:
            with self.explained():
                _make_folders(Path(self._base), folder)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the relative paths of all finished files below a folder, sorted; see `sizes`."""
        return list(self.sizes(folder, suffix))

    def sizes(self, folder: str, suffix: str) -> dict[str, int]:
        """Return the size in bytes of all finished files below a folder, by relative path.

        One listing, sorted by path: no file is asked for on its own.

        Raises:
            RootNotUsable: They cannot be listed.
        """
        selector = pafs.FileSelector(self.path(folder), recursive=True, allow_not_found=True)
        with self.explained():
            found = self.filesystem.get_file_info(selector)
        sizes = {
            info.path.removeprefix(self._base).lstrip("/"): info.size
            for info in found
            if info.is_file
        }
        return {
            path: sizes[path]
            for path in sorted(sizes)
            if path.endswith(suffix) and not path.rsplit("/", 1)[-1].startswith((".", "_"))
        }

    def exists(self, path: str) -> bool:
        """Return whether a file is there.

        Raises:
            RootNotUsable: That cannot be seen.
        """
        with self.explained():
            return bool(self.filesystem.get_file_info(self.path(path)).is_file)

    @contextmanager
    def open(self, path: str) -> Iterator[pa.NativeFile]:
        """Give a file for random reading, as long as the block lasts.

        Raises:
            RootNotUsable: It cannot be read, at the beginning or later.
        """
        with self.explained(), self.filesystem.open_input_file(self.path(path)) as file:
            yield file

    def read(self, path: str) -> bytes:
        """Return a whole small file, as one writer left it.

        Raises:
            RootNotUsable: It cannot be read.
        """
        return self.read_with_tag(path)[0]

    def read_with_tag(self, path: str) -> tuple[bytes, str]:
        """Return a whole small file, and a tag that another content does not have.

        Raises:
            RootNotUsable: It cannot be read.
        """
        if self._s3:
            return self._s3.read(self.path(path))
        with self.open(path) as file:
            content = bytes(file.read())
        return content, hashlib.sha256(content).hexdigest()

    def delete(self, path: str) -> None:
        """Delete a file, and its folder if that is empty then; another run may have been faster.

        Raises:
            RootNotUsable: It cannot be deleted.
        """
        with self.explained(), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(path))
        if self.is_local:
            with contextlib.suppress(OSError):
                Path(self.path(path)).parent.rmdir()

    def move(self, path: str, to: str) -> None:
        """Give a file another name in its folder.

        Raises:
            RootNotUsable: It cannot be moved.
        """
        with self.explained():
            self.filesystem.move(self.path(path), self.path(to))
            if self.is_local:
                _sync(Path(self.path(to)).parent)

    def draft(self, path: str) -> Draft:
        """Open a hidden file that may become the file at `path`.

        Raises:
            RootNotUsable: It cannot be written.
        """
        folder, _, name = path.rpartition("/")
        temporary = self.path(folder, f".{name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
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
        if self._s3:
            self._s3.write_if(self.path(path), content, None)
            return
        draft = self.draft(path)
        try:
            with self.explained(), contextlib.suppress(FileExistsError):
                draft.stream.write(content)
                draft.stream.close()
                _sync(draft.temporary)
                os.link(draft.temporary, self.path(path))
                _sync(Path(self.path(path)).parent)
        finally:
            draft.discard()

    def replace(self, path: str, content: bytes, tag: str | None) -> bool:
        """Write a small file if nobody else wrote it since it was read.

        On a disk the caller holds a lock against other writers.

        Args:
            path: The file.
            content: Its new content.
            tag: What `read_with_tag` gave; None where there was no file.

        Returns:
            Whether it was written.

        Raises:
            RootNotUsable: It cannot be written.
        """
        if self._s3:
            if self._s3.write_if(self.path(path), content, tag):
                return True
            # boto3 sends a request again whose answer was lost: what is there may be our own.
            return self.exists(path) and self.read(path) == content
        if tag != (self.read_with_tag(path)[1] if self.exists(path) else None):
            return False
        self.write(path, content)
        return True

    def delete_abandoned(
        self, folder: str, files_before: datetime | None, uploads_before: datetime | None
    ) -> None:
        """Delete what killed runs left below a folder on S3, where no lock tells who is at work.

        Args:
            folder: The folder.
            files_before: Only hidden files that were written before; None for all.
            uploads_before: Only uploads that began before; None for all.

        Raises:
            RootNotUsable: It cannot be deleted.
        """
        if self._s3:
            prefix = self.path(folder, "")
            self._s3.delete_named(prefix, DRAFT, files_before)
            self._s3.abort_uploads(prefix, uploads_before)

    def told(self, text: str) -> CohortlakeError | None:
        """Return what S3 answered, where the text of a library's error says so; else None."""
        return self._s3.told(text) if self._s3 else None

    def explained(self) -> AbstractContextManager[None]:
        """Turn errors inside the block into RootNotUsable, whose message says what to do."""
        return self._s3.explained() if self._s3 else _explained(self.uri)


def _check(uri: str) -> None:
    """Refuse a URL that leads nowhere: as the name of a folder it would be filled unseen."""
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
    """Return the full path of a folder, without any `..`: libraries disagree on where it leads.

    Raises:
        RootNotUsable: It begins with a `~` that stands for no folder.
    """
    try:
        path = Path(folder).expanduser()
    except RuntimeError:
        raise RootNotUsable(
            f"{folder!r} begins with a user who has no folder here; give COHORTLAKE_ROOT, or "
            "COHORTLAKE_PUBLISHED, as a full path"
        ) from None
    path = path.resolve() if ".." in path.parts else path.absolute()
    return re.sub("^//+", "/", str(path))


def _check_names(base: str, *more: re.Pattern[str]) -> None:
    """Refuse names of folders that a library below the lake would read otherwise.

    Raises:
        RootNotUsable: There is one.
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
            _sync(path.parent)


def _sync(path: str | Path) -> None:
    """Have the disk write a file, or the names in a folder, before what relies on it is written."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


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
