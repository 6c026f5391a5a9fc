"""Delta tables below the root: open one, commit to one, and detect other writers.

Each commit claims the next number of one application transaction. If two writers read the same
version, only one can claim the number. The commit of the other one fails, and it starts again from
the new version. See `delta_log` for what a log says, `history.image_sets` and `history.coverage`
for what the tables hold, and `history.maintenance` for the deletion of old files.
"""

from __future__ import annotations

import contextlib
import re
import uuid
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from cohortlake import schema
from cohortlake.errors import CommitConflict, DamagedFile
from cohortlake.storage import delta_errors
from cohortlake.storage.delta_log import (
    actions,
    damaged_log_file,
    empty_in_log,
    file_sizes,
    log_files,
)
from cohortlake.storage.root import Root

# Ids and keys do not repeat within a row group, and instants lie close together: without
# dictionaries the table is a seventh smaller, and is read in two thirds of the time.
_KEY = ColumnProperties(dictionary_enabled=False)
_ID = ColumnProperties(dictionary_enabled=False, encoding="DELTA_LENGTH_BYTE_ARRAY")
_INSTANT = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
_COLUMNS = {
    **dict.fromkeys(("state_key", "image_set_key", "interval_key"), _KEY),
    **dict.fromkeys(("study_hash", "series_hash", "patient_hash"), _KEY),
    **dict.fromkeys(("image_set_id", "StudyInstanceUID", "SeriesInstanceUID"), _ID),
    **{column.name: _INSTANT for column in schema.IMAGE_SETS if column.type == schema.INSTANT},
}
_ROW_GROUP_ROWS = 100_000  # a reader holds a row group of each of its threads in memory
WRITER_PROPERTIES = WriterProperties(
    compression="ZSTD",
    compression_level=3,
    max_row_group_size=_ROW_GROUP_ROWS,
    column_properties=_COLUMNS,
)
# Commits do not clean up the log: `history.maintenance` knows which versions must stay readable.
HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)

# To open a table on S3 takes two requests for each commit since the last checkpoint.
_CONFIGURATION: dict[str, str | None] = {"delta.checkpointInterval": "10"}

_WRITER = "cohortlake"
_COMPACTION = "cohortlake.compaction"  # the property of a table that names its last compaction
_ATTEMPTS = 10

_COMMIT = re.compile(r"\d{20}\.json")

T = TypeVar("T")


@dataclass(frozen=True)
class _Opened:
    """A table on S3 that was opened.

    Attributes:
        listing: The listing of its log, from before it was opened.
        version: Its version then.
        table: The table.
    """

    listing: frozenset[tuple[str, int, datetime]]
    version: int
    table: DeltaTable


_OPENED: weakref.WeakKeyDictionary[Root, dict[str, _Opened]] = weakref.WeakKeyDictionary()
"""The tables on S3 that a run has opened, by name."""


def open_table(root: Root, name: str, version: int | None = None) -> DeltaTable | None:
    """Return a table, or None if it does not exist yet.

    Args:
        root: The lake.
        name: The table.
        version: Which of its versions; the newest by default.

    Raises:
        RootNotUsable: The root cannot be read.
    """
    if root.location_of(name).is_local:
        return _open(root, name, version)
    newest = _open_on_s3(root, name)
    if newest is None or version is None or newest.version() == version:
        return newest
    return _open(root, name, version)


def version(root: Root, name: str) -> int | None:
    """Return the newest version of a table, or None if it does not exist yet."""
    if root.location_of(name).is_local:
        table = _open(root, name, None)
        return table.version() if table else None
    names = (path.rsplit("/", 1)[1] for path in log_files(root, name))
    return max((int(name[:20]) for name in names if _COMMIT.fullmatch(name)), default=None)


def _open_on_s3(root: Root, name: str) -> DeltaTable | None:
    """Return the newest version of a table, opened again only if its log is another one.

    To open a table takes a request for the listing and two for each file of the log. A run asks for
    it again and again. A commit changes the object that made it, and so its version.
    """
    listing = root.listing(f"{name}/_delta_log")
    if not listing:
        return None
    opened = _OPENED.setdefault(root, {})
    known = opened.get(name)
    if known and known.listing == listing and known.table.version() == known.version:
        return known.table
    table = _open(root, name, None)
    if table:
        opened[name] = _Opened(listing, table.version(), table)
    return table


def _open(root: Root, name: str, version: int | None) -> DeltaTable | None:
    failed: DeltaError
    try:
        with root.explained(), delta_errors.s3_explained(), delta_errors.without_panic():
            return DeltaTable(root.table_uri_of(name), version=version)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        failed = error
    # Raised outside `except`, so that `__context__` cannot expose deltalake's message.
    if damaged := damaged_log_file(root, name):
        raise DamagedFile(damaged)
    raise failed


def make_table(
    root: Root, name: str, columns: pa.Schema, partition_by: Sequence[str] = ()
) -> DeltaTable:
    """Open a table; create it without rows if it does not exist.

    Two writers that each create a table with their first rows would not see each other.

    Args:
        root: The lake.
        name: The table.
        columns: Its columns.
        partition_by: Its partition columns.

    Raises:
        RootNotUsable: The root cannot be written.
        DamagedFile: Its log is damaged.
    """
    table = open_table(root, name)
    if table is None:
        # If another writer is faster, its table counts.
        with contextlib.suppress(DeltaError), explained(root):
            DeltaTable.create(
                root.table_uri_of(name),
                columns,
                partition_by=list(partition_by) or None,
                configuration=_CONFIGURATION,
            )
        table = reopened(root, name)
    return table


def reopened(root: Root, name: str, version: int | None = None) -> DeltaTable:
    """Return a table that exists, as its log says now.

    Args:
        root: The lake.
        name: The table.
        version: Which of its versions; the newest by default.

    Raises:
        RootNotUsable: The root cannot be read.
    """
    with delta_errors.explained(root):
        return DeltaTable(root.table_uri_of(name), version=version)


def discard_unreadable(root: Root, name: str) -> None:
    """Delete a table if its log cannot be read, so that it can be rebuilt."""
    is_readable = not empty_in_log(root, name)
    try:
        open_table(root, name)
    except (DamagedFile, DeltaError):
        is_readable = False
    if not is_readable:
        for path in (*root.files(name, ""), f"{name}/_delta_log/_last_checkpoint"):
            root.delete(path)


def retrying(name: str, attempt: Callable[[], T]) -> T:
    """Repeat an attempt to commit as long as other writers commit first.

    Args:
        name: The table.
        attempt: One attempt. It begins by reading the table.

    Raises:
        CommitConflict: Another writer was faster at each attempt.
    """
    for _ in range(_ATTEMPTS):
        try:
            return attempt()
        except CommitFailedError:
            continue
    raise CommitConflict(f"{_ATTEMPTS} commits to {name} were overtaken by others; run it again")


def commit(
    root: Root,
    name: str,
    table: DeltaTable,
    rows: pa.Table | pa.RecordBatchReader,
    *,
    overwrite: bool = False,
) -> DeltaTable:
    """Append rows to a table, or replace all its rows.

    Args:
        root: The lake.
        name: The table.
        table: The table as it was read.
        rows: What to write.
        overwrite: Whether to replace all rows, and the columns too.

    Returns:
        The table after the commit.

    Raises:
        CommitFailedError: Another writer committed first; see `retrying`.
        RootNotUsable: The root cannot be written.
    """
    # A compaction claims no number. Without a predicate, the files that it wrote meanwhile would
    # stay beside the new ones, and each row would be there twice.
    mode: dict[str, Any] = {"mode": "append"}
    if overwrite:
        mode = {"mode": "overwrite", "predicate": "true", "schema_mode": "overwrite"}
    before = table.version()
    with delta_errors.explained(root):
        try:
            number = (table.transaction_version(_WRITER) or 0) + 1
            write_deltalake(
                table,
                rows,
                writer_properties=WRITER_PROPERTIES,
                commit_properties=CommitProperties(app_transactions=[Transaction(_WRITER, number)]),
                post_commithook_properties=HOOKS,
                **mode,
            )
        except BaseException:
            root.make_all_private(name)  # the log does not name the files of a failed commit
            raise
        if root.location_of(name).is_local:
            root.make_private(_written(root, name, range(before + 1, table.version() + 1)))
        return DeltaTable(root.table_uri_of(name))


def compact(root: Root, name: str, target_bytes: int) -> int:
    """Replace many small files of a table by few large ones, in one commit.

    deltalake lets two compactions of the same files commit, and then each row is there twice. But
    it refuses a commit if the properties changed since its writer read the table. So each
    compaction writes a property of its own before it reads the table. Of several, the last to begin
    succeeds.

    Args:
        root: The lake.
        name: The table.
        target_bytes: The size of a large file.

    Returns:
        How many files were replaced; 0 if no partition has several small files, or if another
        compaction began meanwhile.

    Raises:
        CommitFailedError: Another writer replaced the rows.
        RootNotUsable: The root cannot be written.
    """
    mine = {_COMPACTION: uuid.uuid4().hex}

    def is_last(table: DeltaTable) -> bool:
        return mine.items() <= table.metadata().configuration.items()

    try:
        with explained(root):
            table = reopened(root, name)
            if not _has_small_files(table, name, target_bytes):
                return 0  # also a property is a commit
            table.alter.set_table_properties(
                mine, raise_if_not_exists=False, post_commithook_properties=HOOKS
            )
            table = DeltaTable(root.table_uri_of(name))
            if is_last(table):
                done = table.optimize.compact(
                    target_size=target_bytes, writer_properties=WRITER_PROPERTIES
                )
                return int(done["numFilesRemoved"])
    except CommitFailedError:
        if is_last(reopened(root, name)):
            raise
    return 0


def _has_small_files(table: DeltaTable, name: str, target_bytes: int) -> bool:
    """Return whether a partition of a table has two files that are smaller than that."""
    sizes = file_sizes(table, name).items()
    small = Counter(path.rpartition("/")[0] for path, size in sizes if size < target_bytes)
    return max(small.values(), default=0) > 1


def _written(root: Root, name: str, versions: Iterable[int]) -> Iterator[str]:
    """Yield the files and folders that the commits of some versions made, and their log files."""
    log = f"{name}/_delta_log"
    yield f"{log}/_last_checkpoint"
    for version in versions:
        yield f"{log}/{version:020}.json"
        yield f"{log}/{version:020}.checkpoint.parquet"
        for action in (actions(root, name, version) or {}).get("add", ()):
            path = f"{name}/{unquote(action['path'])}"
            yield path
            yield path.rpartition("/")[0]


@contextlib.contextmanager
def explained(root: Root) -> Iterator[None]:
    """Explain errors inside a block that writes, and make private what it may have written."""
    with delta_errors.explained(root):
        yield
        root.make_all_private("image_sets", "coverage")
