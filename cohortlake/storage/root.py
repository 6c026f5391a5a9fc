"""The root of a lake, and how the runs of one machine work below it beside each other.

A whole lake usually lies in one location. `published/` and `cohorts/` may lie in another one, so
that readers need no right on the restricted zone (`increments/`, `image_sets/`, `history_index/`,
`coverage/`, `erasures/`, `keys/`). A run deletes what killed runs left half written when no other
run works. See `storage.files` for how files are read and written.
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cohortlake.errors import LakeInUse, SearchedByOthers
from cohortlake.stop import Stop
from cohortlake.storage import disk, locks
from cohortlake.storage.files import DRAFT_NAME, FOR_READERS, RESTRICTED, Files

# Our drafts, and the temporary files of deltalake.
_UNFINISHED = re.compile(rf"{DRAFT_NAME.pattern}|.+#\d+")
# A file has its temporary name for seconds. An upload lasts as long as a search, and no run lasts
# a week (COHORTLAKE_RETENTION_DAYS).
_ABANDONED_FILE, _ABANDONED_UPLOAD = timedelta(days=1), timedelta(days=7)
# deltalake writes their files, with the rights that the umask leaves.
_TABLES = ("image_sets", "coverage")
_RUNS_LOCK, _PUBLISHING_LOCK = ".runs.lock", ".publishing.lock"


class Root(Files):
    """The files of a lake, and which runs work on them.

    Args:
        uri: A local path, a `file://` or an `s3://` URL. A reader gives the one that `published/`
            and `cohorts/` lie below.
        published: Where these two lie, if not in the root.

    Attributes:
        uri: The root, absolute.

    Raises:
        RootNotUsable: A URL cannot be understood, or no lake can lie there.
    """

    def __init__(self, uri: str, published: str = "") -> None:
        super().__init__(uri, published)
        self.uri = self._restricted.uri
        self._presence: int | None = None

    def table_uri_of(self, name: str) -> str:
        """Return the path or URL of a Delta table; see `StorageLocation.table_uri_of`."""
        return self._restricted.table_uri_of(name)

    def explained(self) -> AbstractContextManager[None]:
        """Turn errors of the disk or of S3 in the restricted zone into RootNotUsable."""
        return self._restricted.explained()

    def prepare(self) -> None:
        """Make the local folders, the restricted ones with mode 0700, and clean up.

        As long as this object lives, no other run deletes unfinished files.

        Raises:
            RootNotUsable: They cannot be made or written.
        """
        # Two are made with their first file. An empty folder `keys` would hide that the keys are
        # gone, and most lakes have no `headers`.
        for name in (*RESTRICTED, "published"):
            if name not in ("keys", "headers"):
                self.make_folder(name)
        if not self._restricted.is_local:
            return
        with self.explained():
            for name in RESTRICTED:
                if (folder := Path(self._restricted.path(name))).is_dir():
                    folder.chmod(0o700)
            lock = locks.present(Path(self._restricted.path(_RUNS_LOCK)), self._clean_up)
        self._presence = lock
        weakref.finalize(self, os.close, lock)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other run of this machine work below the root while the block lasts.

        Other runs wait until the block ends. What killed runs left is deleted first. Runs on a
        root on S3 cannot see each other.

        Raises:
            LakeInUse: Another run is at work.
        """
        with contextlib.ExitStack() as stack:
            if self._presence is not None:
                try:
                    stack.enter_context(locks.only_one_present(self._presence))
                except BlockingIOError:
                    raise LakeInUse(self.uri) from None
                self._clean_up()
            yield

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Let only one run of this machine publish while the block lasts.

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
        """Whether runs can see each other. On S3 they cannot."""
        return self._restricted.is_local

    @contextmanager
    def searching(
        self, datastore_id: str, stop: Stop, tell: Callable[[], None], what: str = "searching"
    ) -> Iterator[None]:
        """Let only one run of this machine search a data store while the block lasts.

        A second run waits. A third one is refused, because it would find nothing more.

        Args:
            datastore_id: The data store.
            stop: Ends the waiting.
            tell: Called once if it has to wait.
            what: What the run does. Runs that do something else are not waited for.

        Raises:
            SearchedByOthers: One run searches, and another one waits.
            Stopped: A stop was asked for.
            RootNotUsable: It cannot be written.
        """
        with contextlib.ExitStack() as stack:
            if self.knows_who_is_there:
                lock = Path(self._restricted.path(f".{what}-{datastore_id}.lock"))
                with self.explained():
                    try:
                        stack.enter_context(locks.in_turn(lock, stop, tell))
                    except BlockingIOError:
                        raise SearchedByOthers(datastore_id) from None
            yield

    def is_publishing(self) -> bool:
        """Return whether a run of this machine is publishing; always false on S3."""
        lock = Path(self._restricted.path(_PUBLISHING_LOCK))
        return self._restricted.is_local and locks.is_held(lock)

    def make_private(self, paths: Iterable[str]) -> None:
        """Take all rights on files and folders of a local lake from everybody but their owner.

        Another library gives what it writes the rights that the umask leaves.

        Args:
            paths: Relative paths.
        """
        if self._restricted.is_local:
            disk.make_private(Path(self._restricted.path(path)) for path in paths)

    def make_all_private(self, *folders: str) -> None:
        """Do the same for folders and everything below them."""
        if self._restricted.is_local:
            for folder in (Path(self._restricted.path(name)) for name in folders):
                disk.make_private((folder, *folder.rglob("*")))

    def delete_abandoned(self, *, whatever_its_age: bool = False) -> None:
        """Delete what killed runs left half written on S3. It may hold identified data.

        On a disk `prepare` and `alone` do that, because locks show which runs work. On S3 only the
        age shows it: no run writes a hidden file for over a day, or an upload for over a week.

        Args:
            whatever_its_age: Also delete what a run may be writing now; that run then fails.

        Raises:
            RootNotUsable: It cannot be deleted.
        """
        now = datetime.now(UTC)
        for name in (*RESTRICTED, *FOR_READERS):
            self._delete_abandoned_on_s3(
                name,
                None if whatever_its_age else now - _ABANDONED_FILE,
                None if whatever_its_age else now - _ABANDONED_UPLOAD,
            )

    def _clean_up(self) -> None:
        """Delete unfinished files, and make private what a killed run left open in the tables."""
        for name in (*RESTRICTED, *FOR_READERS):
            location = self.location_of(name)
            if not location.is_local:
                continue
            # Not `rglob`, which takes three times as long: there are files for each day of years.
            for folder, _, files in os.walk(location.path(name)):
                for file in filter(_UNFINISHED.fullmatch, files):
                    Path(folder, file).unlink(missing_ok=True)
        self.make_all_private(*_TABLES)
