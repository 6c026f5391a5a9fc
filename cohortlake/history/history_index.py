"""The index of the version history: the rows of some patients, studies or series in all months.

The history is in the order of study months, and the rows of a patient may lie in any of them. The
index holds columns of its version rows again, in the order of `patient_hash`, of `study_hash` and
of `series_hash`. It follows from the history, and is made again whenever it is missing, damaged or
of another history.

It is a chain of files. The first one covers the history up to a version, each next one the versions
after that. Each publication appends one, and merges it with those before it that are not much
larger. So there are few files, and the large ones are seldom written again. A file is never
changed. Its name says which versions it covers, with the digest of each one's commit: if another
history has the same numbers, its digests differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import duckdb
import pyarrow as pa

from cohortlake.errors import DamagedFile, RootNotUsable
from cohortlake.history import image_sets, index_sections, views
from cohortlake.history.index_sections import FOLDER, SCHEMAS, SECTIONS
from cohortlake.history.views import HistoryViews
from cohortlake.storage import engine, locks, sorted_file
from cohortlake.storage.files import Files
from cohortlake.storage.root import Root
from cohortlake.storage.sorted_file import SortedFile

_MERGED_BYTES = 64 * 1024 * 1024  # about a second of a publication
_FACTOR = 4
_SCAN_FACTOR = 6  # a row of the index takes so much longer to read than one of the history
_MOST_FILES = 12
_ATTEMPTS = 4
_START = "start"
_POINT = r"\d{20}\.[0-9a-f]{16}"
_NAME = re.compile(rf"{FOLDER}/({_START}|{_POINT})-({_POINT})-[0-9a-f]{{12}}\.rows")

T = TypeVar("T")


@dataclass(frozen=True)
class _Run:
    """A file of the index: the version rows after one version of the history up to another.

    Attributes:
        path: The file, below the root.
        since: The earlier version and the digest of its commit; `_START` for all rows.
        until: The later version, the same.
        size_bytes: Its size.
    """

    path: str
    since: str
    until: str
    size_bytes: int

    @property
    def version(self) -> int:
        return int(self.until[:20])


@dataclass
class HistoryIndex:
    """The index at a version of the history. It is brought up to date when it is first read.

    Attributes:
        root: The lake.
        version: The version.
    """

    root: Root
    version: int
    _files: list[SortedFile] | None = field(default=None, init=False)

    def bring_up_to_date(self) -> None:
        """Write what the index lacks.

        Raises:
            RootNotUsable: It cannot be written.
        """
        self._retrying(self._opened)

    def read(
        self,
        con: duckdb.DuckDBPyConnection,
        history: HistoryViews,
        section: str,
        keys: str,
        name: str,
    ) -> str:
        """Make a temporary table of the rows of some keys.

        If these lie in many blocks, the history is scanned instead: a row of it is read faster.

        Args:
            con: Gets the table.
            history: The version history, at the version of the index.
            section: One of `index_sections.SECTIONS`, which are the columns of the table.
            keys: A query for the keys. It gives one column; nulls are left out.
            name: The name of the table.

        Returns:
            The name of the table.

        Raises:
            RootNotUsable: The index cannot be read, or what it lacks cannot be written.
        """
        wanted = f"SELECT DISTINCT key FROM ({keys}) keys(key) WHERE key IS NOT NULL ORDER BY key"
        sorted_keys = con.sql(wanted).to_arrow_table()
        self._retrying(lambda: self._read(con, history, section, sorted_keys, name))
        return name

    def in_order(self, section: str) -> Iterator[pa.RecordBatch]:
        """Yield all rows of a section in the order of its key, not many at once.

        The rows of a key are in one batch.

        Args:
            section: One of `index_sections.SECTIONS`.

        Raises:
            RootNotUsable: The index cannot be read, or what it lacks cannot be written.
        """
        start, attempts = None, _ATTEMPTS
        while attempts:
            attempts -= 1
            try:
                for batch in sorted_file.merged(self._opened(), section, start):
                    yield batch
                    start = batch.column(0)[-1].as_py() + 1
                return
            except DamagedFile as error:
                if not (attempts and error.path.startswith(FOLDER)):
                    raise
                self.root.delete(error.path)
                self._files = None

    def _retrying(self, attempt: Callable[[], object]) -> None:
        def with_files_of_now() -> None:
            try:
                attempt()
            except DamagedFile:
                self._files = None
                raise

        _retrying(self.root, with_files_of_now)

    def _read(
        self,
        con: duckdb.DuckDBPyConnection,
        history: HistoryViews,
        section: str,
        wanted: pa.Table,
        name: str,
    ) -> None:
        files, keys = self._opened(), wanted["key"].combine_chunks()
        counts = [file.count_blocks(section, keys) for file in files]
        if sum(read for read, _ in counts) * _SCAN_FACTOR > sum(all_ for _, all_ in counts):
            _scan(con, history, section, wanted, name)
            return
        con.register("in_index", pa.Table.from_batches([], SCHEMAS[section]))
        con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM in_index")
        for file in files:
            for rows in file.find(section, keys):
                con.register("in_index", rows)
                con.execute(f"INSERT INTO {name} FROM in_index")
        con.unregister("in_index")

    def _opened(self) -> list[SortedFile]:
        if self._files is None:
            runs = _up_to_date(self.root, self.version)
            self._files = [_opened(self.root, run) for run in runs]
        return self._files


def _scan(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, section: str, keys: pa.Table, name: str
) -> None:
    """Do what `HistoryIndex.read` does, without the index."""
    columns = SECTIONS[section]
    con.register("wanted_keys", keys)
    rows = f"{history.versions} SEMI JOIN wanted_keys ON {columns[0]} = key"
    months = con.sql(f"SELECT DISTINCT study_month FROM {rows}").fetchall()
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE {name} AS SELECT {", ".join(columns)} FROM {rows}
        WHERE study_month IN {engine.text_list(str(month) for (month,) in months)}
    """)
    con.unregister("wanted_keys")


def merge(root: Root) -> int:
    """Merge the files of the index, also large ones, which a publication leaves to maintenance.

    Args:
        root: The lake.

    Returns:
        How many files were replaced.
    """

    def attempt() -> int:
        version = image_sets.version(root)
        if version is None:
            return 0
        runs = _chain(root, version)
        merged = _merge(root, runs, None)
        _delete_others(root, version)
        return len(set(runs) - set(merged))

    return _retrying(root, attempt)


def discard(root: Root) -> None:
    """Delete the index. The next publication makes it again."""
    for path in root.files(FOLDER, ""):
        root.delete(path)


def _retrying(root: Root, attempt: Callable[[], T]) -> T:
    """Repeat an attempt without the file that was damaged, or that another run merged meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except DamagedFile as error:
            if not error.path.startswith(FOLDER):
                raise
            root.delete(error.path)
    return attempt()


def _up_to_date(root: Root, version: int) -> list[_Run]:
    """Return the files that cover the history up to a version; write what they lack."""
    runs, until = _chain(root, version), _point(root, version)
    if runs and runs[-1].until == until:
        return runs
    with engine.bounded_connection() as con, locks.temporary_folder() as folder:
        paths = image_sets.appended_files(root, runs[-1].version, version) if runs else None
        if paths is None:
            runs, history = [], image_sets.register(con, root, version)
        else:
            history = views.create(con, root, list(paths))
        since = runs[-1].until if runs else _START
        scratch = Files(str(folder))
        added = {
            section: (columns, index_sections.in_order(con, history.versions, section, scratch))
            for section, columns in SCHEMAS.items()
        }
        _merge(root, [*runs, _write(root, since, until, added)], _MERGED_BYTES)
    return _delete_others(root, version)


def _chain(root: Root, version: int) -> list[_Run]:
    """Return the files that cover the history up to the newest version not after this one."""
    sizes = root.sizes(FOLDER, ".rows").items()
    runs = [_Run(p, m[1], m[2], size) for p, size in sizes if (m := _NAME.fullmatch(p))]
    shortest: dict[str, list[_Run]] = {_START: []}
    for run in sorted(runs, key=lambda run: run.until):
        before = shortest.get(run.since)
        known = shortest.get(run.until)
        if before is not None and (known is None or len(before) + 1 < len(known)):
            shortest[run.until] = [*before, run]
    for until in sorted(shortest.keys() - {_START}, reverse=True):
        number = int(until[:20])
        if number <= version and until == _point(root, number):
            return shortest[until]
    return []


def _point(root: Root, version: int) -> str:
    """Return a version and the digest of its commit and of the columns of the index."""
    path = f"{image_sets.TABLE}/_delta_log/{version:020}.json"
    commit, _ = root.read_if_there(path) or (b"", "")
    digest = hashlib.sha256(repr(SECTIONS).encode() + commit).hexdigest()
    return f"{version:020}.{digest[:16]}"


def _opened(root: Root, run: _Run) -> SortedFile:
    reader = root.reader(run.path)  # no file of the index ever changes

    @contextmanager
    def opened() -> Iterator[pa.NativeFile]:
        try:
            with root.open(run.path, reader) as file:
                yield file
                return
        except RootNotUsable:
            if root.exists(run.path):
                raise
        raise DamagedFile(run.path)  # another run merged it

    return SortedFile(run.path, opened)


def _merge(root: Root, runs: Sequence[_Run], most_bytes: int | None) -> list[_Run]:
    """Merge the last files, if those before the last one are not much larger than it.

    Args:
        root: The lake.
        runs: The files.
        most_bytes: The most to merge, as long as there are few files; None for no limit.

    Returns:
        The files, with the merged one in place of those that it has the rows of.
    """
    count = _count_to_merge([run.size_bytes for run in runs], most_bytes)
    if count < 2:
        return list(runs)
    kept, merging = runs[:-count], runs[-count:]
    files = [_opened(root, run) for run in merging]
    sections = {
        section: (columns, sorted_file.merged(files, section))
        for section, columns in SCHEMAS.items()
    }
    return [*kept, _write(root, merging[0].since, merging[-1].until, sections)]


def _count_to_merge(sizes: Sequence[int], most_bytes: int | None) -> int:
    """Return how many of the last files are not much larger than those after them together."""
    total, count = 0, 0
    for size in reversed(sizes):
        is_much = most_bytes is not None and total + size > most_bytes
        if count and (size > _FACTOR * total or (is_much and len(sizes) - count < _MOST_FILES)):
            break
        total, count = total + size, count + 1
    return count


def _write(root: Root, since: str, until: str, sections: Mapping[str, sorted_file.Section]) -> _Run:
    path = f"{FOLDER}/{since}-{until}-{uuid4().hex[:12]}.rows"
    with root.writing(path) as stream:
        sorted_file.write(stream, sections)
        size = stream.tell()
    return _Run(path, since, until, size)


def _delete_others(root: Root, version: int) -> list[_Run]:
    """Delete all files but those that cover the history up to a version, and those of later ones.

    Returns:
        The files that cover it. Another run may have merged some meanwhile: the folder is listed
        again, so that its file is not deleted.
    """
    paths, runs = root.files(FOLDER, ""), _chain(root, version)
    kept, newest = {run.path for run in runs}, max((run.version for run in runs), default=-1)
    for path in paths:
        name = _NAME.fullmatch(path)
        if path not in kept and not (name and int(name[2][:20]) > newest):
            root.delete(path)
    return runs
