"""The root of a lake, and where each of its folders lies.

Usually all of it lies in one place. `published/` and `cohorts/` may lie in another one, so that
readers need no right on the restricted zone (`increments/`, `image_sets/`, `coverage/`,
`erasures/`, `keys/`). Owns what is made and cleaned up before a run, and who works beside whom:
what a killed run left half written, the next run that is alone deletes. How a place is read and
written is `storage.location`'s.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from cohortlake.errors import LakeInUse, SearchedByOthers
from cohortlake.stop import Stop
from cohortlake.storage import locks
from cohortlake.storage.location import DRAFT, RESTRICTED, Draft, StorageLocation, close_to_others

FOR_READERS = ("published", "cohorts")

# Our drafts, and the files that deltalake has yet to give their names.
_UNFINISHED = re.compile(rf"{DRAFT.pattern}|.+#\d+")
# A finished file has its temporary name for seconds. An upload lasts as long as a search, and no
# run lasts a week (COHORTLAKE_RETENTION_DAYS).
_ABANDONED_FILE, _ABANDONED_UPLOAD = timedelta(days=1), timedelta(days=7)
_RUNS_LOCK, _PUBLISHING_LOCK = ".runs.lock", ".publishing.lock"


class Root:
    """Files below a lake's root, named by relative paths with `/`.

    Args:
        uri: A local path, a `file://` or an `s3://` URL. A reader gives the one that `published/`
            and `cohorts/` lie below.
        published: Where these two lie, if it is not there.

    Attributes:
        uri: The root, absolute.

    Raises:
        RootNotUsable: A URL cannot be understood, or no lake can lie there.
    """

    def __init__(self, uri: str, published: str = "") -> None:
        self._restricted = StorageLocation(uri)
        self._for_readers = StorageLocation(published) if published else self._restricted
        self.uri = self._restricted.uri
        self._presence: int | None = None

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

    def table_uri_of(self, name: str) -> str:
        """Return the path or URL of a Delta table; see `StorageLocation.table_uri_of`."""
        return self.location_of(name).table_uri_of(name)

    def files(self, folder: str, suffix: str) -> list[str]:
        """Return the relative paths of all finished files below a folder, sorted."""
        return self.location_of(folder).files(folder, suffix)

    def sizes(self, folder: str, suffix: str) -> dict[str, int]:
        """Return the sizes of all finished files below a folder; see `StorageLocation.sizes`."""
        return self.location_of(folder).sizes(folder, suffix)

    def exists(self, path: str) -> bool:
        """Return whether a file is there."""
        return self.location_of(path).exists(path)

    def open(self, path: str) -> AbstractContextManager[pa.NativeFile]:
        """Give a file for random reading; see `StorageLocation.open`."""
        return self.location_of(path).open(path)

    def read(self, path: str) -> bytes:
        """Return a whole small file; see `StorageLocation.read`."""
        return self.location_of(path).read(path)

    def read_with_tag(self, path: str) -> tuple[bytes, str]:
        """Return a whole small file and the tag of its content."""
        return self.location_of(path).read_with_tag(path)

    def delete(self, path: str) -> None:
        """Delete a file, and its folder if that is empty then."""
        self.location_of(path).delete(path)

    def move(self, path: str, to: str) -> None:
        """Give a file another name in its folder; see `StorageLocation.move`."""
        self.location_of(path).move(path, to)

    def draft(self, path: str) -> Draft:
        """Open a hidden file that may become the file at `path`; see `StorageLocation.draft`."""
        return self.location_of(path).draft(path)

    def writing(self, path: str) -> AbstractContextManager[pa.NativeFile]:
        """Give a stream that becomes the file at `path`; see `StorageLocation.writing`."""
        return self.location_of(path).writing(path)

    def write(self, path: str, content: bytes) -> None:
        """Write a small file, whole or not at all; see `StorageLocation.write`."""
        self.location_of(path).write(path, content)

    def create(self, path: str, content: bytes) -> None:
        """Write a small file unless it is there; see `StorageLocation.create`."""
        self.location_of(path).create(path, content)

    def replace(self, path: str, content: bytes, tag: str | None) -> bool:
        """Write a small file if nobody else wrote it since; see `StorageLocation.replace`."""
        return self.location_of(path).replace(path, content, tag)

    def explained(self) -> AbstractContextManager[None]:
        """Turn errors of the disk, or of S3, in the restricted zone into RootNotUsable."""
        return self._restricted.explained()

    def prepare(self) -> None:
        """Make the local folders, the restricted ones with mode 0700, and clean up.

        As long as this object lives, no other run takes what is written for leftovers.

        Raises:
            RootNotUsable: They cannot be made or written.
        """
        # `keys` comes with its first file: made here, an empty one would hide that it is gone.
        for name in (*RESTRICTED, "published"):
            if name != "keys":
                self.location_of(name).make_folder(name)
        if not self._restricted.is_local:
            return
        with self.explained():
            for name in RESTRICTED:
                if (folder := Path(self._restricted.path(name))).is_dir():
                    folder.chmod(0o700)
            lock = locks.present(Path(self._restricted.path(_RUNS_LOCK)), self._delete_unfinished)
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
            if self._restricted.is_local:
                with self.explained():
                    lock = Path(self._restricted.path(_PUBLISHING_LOCK))
                    stack.enter_context(locks.alone(lock))
            yield

    @property
    def knows_who_is_there(self) -> bool:
        """Whether runs can see one another. On S3 they cannot."""
        return self._restricted.is_local

    @contextmanager
    def searching(self, datastore_id: str, stop: Stop, tell: Callable[[], None]) -> Iterator[None]:
        """Let one run of this machine at a time search what is due of a data store.

        Another one waits. A third one would find nothing that these two do not.

        Args:
            datastore_id: The data store.
            stop: Ends the waiting.
            tell: Called once if there is another run to wait for.

        Raises:
            SearchedByOthers: One searches, and another one waits.
            Stopped: Somebody asked to end.
            RootNotUsable: It cannot be written.
        """
        with contextlib.ExitStack() as stack:
            if self.knows_who_is_there:
                lock = Path(self._restricted.path(f".searching-{datastore_id}.lock"))
                with self.explained():
                    try:
                        stack.enter_context(locks.in_turn(lock, stop, tell))
                    except BlockingIOError:
                        raise SearchedByOthers(datastore_id) from None
            yield

    def is_publishing(self) -> bool:
        """Return whether a run of this machine is publishing; of a root on S3 nobody knows."""
        lock = Path(self._restricted.path(_PUBLISHING_LOCK))
        return self._restricted.is_local and locks.is_held(lock)

    def close_to_others(self, *folders: str) -> None:
        """Take from others what rights another library gave them below some folders."""
        for name in folders:
            if (place := self.location_of(name)).is_local:
                close_to_others(Path(place.path(name)))

    def delete_abandoned(self, *, whatever_its_age: bool = False) -> None:
        """Delete what killed runs left half written on S3, identified data among it.

        On a disk `prepare` and `alone` do that: a lock tells there who is at work. On S3 only time
        tells: nobody writes a hidden file for more than a day, or an upload for more than a week.

        Args:
            whatever_its_age: Also what a run may be writing now, which fails then.

        Raises:
            RootNotUsable: It cannot be deleted.
        """
        now = datetime.now(UTC)
        for name in (*RESTRICTED, *FOR_READERS):
            self.location_of(name).delete_abandoned(
                name,
                None if whatever_its_age else now - _ABANDONED_FILE,
                None if whatever_its_age else now - _ABANDONED_UPLOAD,
            )

    def _delete_unfinished(self) -> None:
        for name in (*RESTRICTED, *FOR_READERS):
            if (place := self.location_of(name)).is_local:
                for path in Path(place.path(name)).rglob("*"):
                    if _UNFINISHED.fullmatch(path.name):
                        path.unlink(missing_ok=True)
