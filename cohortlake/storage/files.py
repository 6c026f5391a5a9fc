"""Read and write the files of a lake, on a disk and on S3 alike.

Files appear whole or not at all. On a disk they are written under a hidden temporary name and
moved; S3 shows an object only when its upload is complete. On a local disk the restricted zone is
for its owner only. See `storage.location` for where files lie, and `storage.root` for how runs work
beside each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs

from cohortlake.storage import disk
from cohortlake.storage.location import StorageLocation

if TYPE_CHECKING:
    from cohortlake.storage.upload import Upload

RESTRICTED = (
    "increments", "headers", "image_sets", "history_index", "coverage", "erasures", "keys"
)  # fmt: skip
FOR_READERS = ("published", "cohorts", "iceberg")
_TEMPORARY_SUFFIX = ".tmp"
_ATTEMPTS = 3
DRAFT_NAME = re.compile(rf"\..+\{_TEMPORARY_SUFFIX}")
"""The names of files that are being written."""


class Overtaken(Exception):
    """Something happened while a file was written that it does not show. It was not kept."""


class Draft:
    """A file under a hidden name while it is written. `keep` or `discard` it; the first wins.

    See `Files.draft`.
    """

    def __init__(
        self,
        fs: pafs.FileSystem,
        temporary: str,
        final: str,
        stream: pa.NativeFile,
        unless: Callable[[], bool] | None = None,
    ) -> None:
        self._fs, self._final, self._unless = fs, final, unless
        self.temporary = temporary
        self.stream = stream
        self._is_open = True

    def keep(self) -> None:
        """Give the file its name. It outlives a loss of power from then on.

        Raises:
            Overtaken: See `Files.draft`.
        """
        self.stream.close()
        is_local = isinstance(self._fs, pafs.LocalFileSystem)
        try:
            if is_local:
                disk.sync(self.temporary)
            if self._unless and self._unless():
                raise Overtaken
            self._fs.move(self.temporary, self._final)
        except OSError:
            if self._unless and not self._fs.get_file_info(self.temporary).is_file:
                raise Overtaken from None
            raise
        self._is_open = False
        if is_local:
            disk.sync(Path(self._final).parent)

    def discard(self) -> None:
        """Delete the file, unless it was kept."""
        if self._is_open:
            self._is_open = False
            # The caller already handles the error that made it discard the file.
            with contextlib.suppress(OSError):
                self.stream.close()
            with contextlib.suppress(OSError):
                self._fs.delete_file(self.temporary)


class Files:
    """The files of a lake, named by paths relative to its root, with `/`.

    Args:
        uri: The root: a local path, a `file://` or an `s3://` URL.
        published: Where `published/` and `cohorts/` lie, if not in the root.

    Raises:
        RootNotUsable: A URL cannot be understood, or no lake can lie there. Each method raises it
            too, for a file that cannot be read or written.
    """

    def __init__(self, uri: str, published: str = "") -> None:
        self._restricted = StorageLocation(uri)
        self._for_readers = StorageLocation(published) if published else self._restricted

    def location_of(self, path: str) -> StorageLocation:
        """Return where a file or folder lies."""
        is_for_readers = path.partition("/")[0] in FOR_READERS
        return self._for_readers if is_for_readers else self._restricted

    def path(self, *parts: str) -> str:
        """Return the full path of a file or folder, as the file system takes it."""
        return self.location_of("/".join(parts)).path(*parts)

    def uri_of(self, *parts: str) -> str:
        """Return the full path or `s3://` URL of a file or folder, as other tools take it."""
        return self.location_of("/".join(parts)).uri_of(*parts)

    def make_folder(self, folder: str) -> None:
        """Make a folder; on S3 do nothing."""
        location = self.location_of(folder)
        if location.is_local:
            is_restricted = folder.split("/")[0] in RESTRICTED
            with location.explained():
                disk.make_folders(Path(location.path()), folder, is_private=is_restricted)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the paths of all finished files below a folder, sorted; see `sizes`."""
        return list(self.sizes(folder, suffix))

    def sizes(self, folder: str, suffix: str) -> dict[str, int]:
        """Return the sizes in bytes of all finished files below a folder, sorted by path.

        This takes one listing, and no request for each file.
        """
        return {path: info.size for path, info in self._infos(folder, suffix).items()}

    def modified(self, folder: str, suffix: str) -> dict[str, datetime]:
        """Return when each finished file below a folder was written, sorted by path; see `sizes`.

        The instants are on the clock of S3, or of this machine.
        """
        return {path: info.mtime for path, info in self._infos(folder, suffix).items()}

    def _infos(self, folder: str, suffix: str) -> dict[str, pafs.FileInfo]:
        location = self.location_of(folder)
        selector = pafs.FileSelector(location.path(folder), recursive=True, allow_not_found=True)
        with location.explained():
            found = location.filesystem.get_file_info(selector)
        infos = {location.relative_path(info.path): info for info in found if info.is_file}
        return {
            path: infos[path]
            for path in sorted(infos)
            if path.endswith(suffix) and not path.rsplit("/", 1)[-1].startswith((".", "_"))
        }

    def exists(self, path: str) -> bool:
        """Return whether a file exists."""
        location = self.location_of(path)
        with location.explained():
            return bool(location.filesystem.get_file_info(location.path(path)).is_file)

    @contextmanager
    def open(self, path: str, reader: pafs.FileSystem | None = None) -> Iterator[pa.NativeFile]:
        """Give a file for random reading, as long as the block lasts.

        Args:
            path: The file.
            reader: See `reader`; by default what is read is not kept.
        """
        location = self.location_of(path)
        with location.explained():
            full = location.path(path)
            file = reader.open_input_file(full) if reader else location.open_file(path)
            with file:
                yield file

    def reader(self, path: str) -> pafs.FileSystem:
        """Return a file system for reading files beside a path, which takes full paths.

        On S3 it keeps the small files that it has read, as long as it lives.
        """
        location = self.location_of(path)
        return location.s3.for_reading() if location.s3 else location.filesystem

    def read(self, path: str) -> bytes:
        """Return a whole small file, as one writer left it."""
        return self.read_with_tag(path)[0]

    def read_with_tag(self, path: str) -> tuple[bytes, str]:
        """Return a whole small file, and a tag that changes with its content."""
        location = self.location_of(path)
        if location.s3:
            return location.s3.read(location.path(path))
        with self.open(path) as file:
            content = bytes(file.read())
        return content, hashlib.sha256(content).hexdigest()

    def read_if_there(self, path: str) -> tuple[bytes, str] | None:
        """Return a small file as `read_with_tag` does, or None if there is no such file."""
        location = self.location_of(path)
        if location.s3:
            return location.s3.read_if_there(location.path(path))
        return self.read_with_tag(path) if self.exists(path) else None

    def listing(self, folder: str) -> frozenset[tuple[str, int, datetime]]:
        """Return path, size and instant of all finished files below a folder, from one listing.

        If it is the same as before, no file was written or deleted meanwhile.
        """
        infos = self._infos(folder, "").items()
        return frozenset((path, info.size, info.mtime) for path, info in infos)

    def delete(self, path: str) -> None:
        """Delete a file if it exists, and its folder if that is empty then."""
        location = self.location_of(path)
        if location.s3:
            location.s3.delete(location.path(path))
            return
        with location.explained(), contextlib.suppress(FileNotFoundError):
            location.filesystem.delete_file(location.path(path))
        with contextlib.suppress(OSError):
            Path(location.path(path)).parent.rmdir()

    def move(self, path: str, to: str) -> None:
        """Give a file another name in its folder."""
        location = self.location_of(path)
        with location.explained():
            location.filesystem.move(location.path(path), location.path(to))
            if location.is_local:
                disk.sync(Path(location.path(to)).parent)

    def draft(self, path: str, unless: Callable[[], bool] | None = None) -> Draft | Upload:
        """Open a file that appears at `path` when it is kept.

        Args:
            path: The file.
            unless: Asked when the file is whole and hidden. If it says so, or if another machine
                deleted the hidden file, the file does not appear, and `keep` raises Overtaken. On
                S3 this takes three requests more.
        """
        location = self.location_of(path)
        if location.s3 and not unless:
            return location.s3.upload(location.path(path))
        return self._hidden_draft(path, unless)

    def _hidden_draft(self, path: str, unless: Callable[[], bool] | None = None) -> Draft:
        location = self.location_of(path)
        folder, _, name = path.rpartition("/")
        temporary = location.path(folder, f".{name}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}")
        with location.explained():
            stream = self._opened(folder, temporary)
            if location.is_local and folder.split("/", 1)[0] in RESTRICTED:
                Path(temporary).chmod(0o600)
        return Draft(location.filesystem, temporary, location.path(path), stream, unless)

    def _opened(self, folder: str, temporary: str) -> pa.NativeFile:
        """Open a new file. Another run may delete its folder as long as that is empty."""
        filesystem = self.location_of(folder).filesystem
        for _ in range(_ATTEMPTS):
            self.make_folder(folder)
            with contextlib.suppress(FileNotFoundError):
                return filesystem.open_output_stream(temporary)
        return filesystem.open_output_stream(temporary)

    @contextmanager
    def writing(self, path: str, unless: Callable[[], bool] | None = None) -> Iterator[Any]:
        """Give a stream that becomes the file at `path` if the block ends without an error.

        Args:
            path: The file.
            unless: See `draft`.

        Raises:
            Overtaken: See `draft`.
        """
        draft = self.draft(path, unless)
        try:
            with self.location_of(path).explained():
                yield draft.stream
                draft.keep()
        finally:
            draft.discard()

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self.writing(path) as stream:
            stream.write(content)

    def create(self, path: str, content: bytes) -> None:
        """Write a small file unless it exists: of several writers the first one wins."""
        location = self.location_of(path)
        if location.s3:
            location.s3.write_if(location.path(path), content, None)
            return
        draft = self._hidden_draft(path)
        try:
            with location.explained(), contextlib.suppress(FileExistsError):
                draft.stream.write(content)
                draft.stream.close()
                disk.sync(draft.temporary)
                os.link(draft.temporary, location.path(path))
                disk.sync(Path(location.path(path)).parent)
        finally:
            draft.discard()

    def replace(self, path: str, content: bytes, tag: str | None) -> bool:
        """Write a small file if nobody else wrote it since it was read.

        On a disk the caller must hold a lock against other writers.

        Args:
            path: The file.
            content: Its new content.
            tag: The tag from `read_with_tag`; None if there was no file.

        Returns:
            Whether it was written. On S3, False may also mean that it was written, that S3's answer
            was lost, and that somebody replaced it since: read it again, and add nothing twice.
        """
        location = self.location_of(path)
        if location.s3:
            if location.s3.write_if(location.path(path), content, tag):
                return True
            # See `S3.write_if`: the content may be our own.
            there = self.read_if_there(path)
            return there is not None and there[0] == content
        there = self.read_if_there(path)
        if tag != (there[1] if there else None):
            return False
        self.write(path, content)
        return True

    def _delete_abandoned_on_s3(
        self, folder: str, files_before: datetime | None, uploads_before: datetime | None
    ) -> None:
        """Delete what killed runs left below a folder on S3.

        Args:
            folder: The folder.
            files_before: Only hidden files that were written before; None for all.
            uploads_before: Only uploads that began before; None for all.
        """
        location = self.location_of(folder)
        if location.s3:
            prefix = location.path(folder, "")
            location.s3.delete_named(prefix, DRAFT_NAME, files_before)
            location.s3.abort_uploads(prefix, uploads_before)
