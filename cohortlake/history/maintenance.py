"""Maintenance: fewer files, a shorter log of each table, no leftovers.

Each commit adds a file or two. Maintenance compacts them, and deletes what is older than the
retention: old versions, which readers and publications may still use before, and files that killed
runs never committed, which cannot be told from those of a running one until they are old.

Other runs may read and write meanwhile. No row changes, so the next publication only writes down
which version it shows. No increment is removed, because it proves what was found; see `packing` for
how their files become fewer, and `headers.merge` for those of headers. Published files are few, and
each is replaced as a whole.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from cohortlake.headers import merge
from cohortlake.history import coverage, history_index, image_sets, packing
from cohortlake.history.index_sections import FOLDER
from cohortlake.storage import delta, delta_log
from cohortlake.storage.root import Root

# Fewer small files do not slow a reader down. Compaction makes files up to this size.
_FEWEST_SMALL_FILES = 16
_FILE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Maintained:
    """What maintenance did to a table, the increments, the headers or the index of the history.

    All counts are numbers of files.

    Attributes:
        table: The name of the table, `increments`, `headers` or `history_index`.
        version: Its version now; None if it is no table.
        compacted: Files that were replaced by fewer ones.
        files: Files that hold the table now.
        log_files_deleted: Deleted log files: needed only for versions older than the retention.
        files_deleted: Deleted data files: not part of any version within the retention, or copied
            into packed files before it.
    """

    table: str
    version: int | None
    compacted: int
    files: int
    log_files_deleted: int
    files_deleted: int


def maintain(
    root: Root, retention: timedelta, held: Collection[int] = ()
) -> tuple[Maintained, ...]:
    """Compact the tables, pack increments and headers, and delete what is older than the retention.

    Args:
        root: The lake.
        retention: How long a version can be read after the next one was committed, and how long an
            uncommitted or packed file is kept. It must be longer than any run takes.
        held: Versions of the version history to keep however old they are.

    Returns:
        What was done to each table, to the index, to the headers and to the increments. If there
        was nothing to do, no file was written.

    Raises:
        CommitConflict: Other writers kept committing first.
        RootNotUsable: The root cannot be written.
    """
    by_table = {image_sets.TABLE: held, coverage.TABLE: ()}
    tables = [
        _maintain(root, name, retention, kept)
        for name, kept in by_table.items()
        if delta.open_table(root, name)
    ]
    if merged := history_index.merge(root):
        files = len(root.files(FOLDER, ""))
        tables.append(Maintained(FOLDER, None, merged, files, 0, merged))
    merged_headers = merge.merge(root, retention)
    if merged_headers.files:
        files, deleted = merged_headers.files, merged_headers.deleted
        tables.append(Maintained("headers", None, merged_headers.copied, files, 0, deleted))
    packed = packing.pack(root, retention)
    if packed.files:
        done = Maintained("increments", None, packed.increments, packed.files, 0, packed.deleted)
        tables.append(done)
    return tuple(tables)


def _maintain(root: Root, name: str, retention: timedelta, held: Collection[int]) -> Maintained:
    state_retention(root, name, retention)
    compacted = compact(root, name)
    # A version whose log was deleted cannot be kept.
    kept = [version for version in sorted(held) if delta.open_table(root, name, version)]
    shortened = shorten_log(root, name, kept)
    deleted = vacuum(root, name, kept)
    table = delta.reopened(root, name)
    files = len(table.file_uris())
    return Maintained(name, table.version(), compacted, files, shortened, deleted)


def state_retention(root: Root, name: str, retention: timedelta) -> None:
    """Write the retention into the table's properties, which Delta Lake and other tools read.

    The properties also forbid commits to clean up the log. Otherwise a compaction would do it.
    """
    interval = f"interval {retention // timedelta(hours=1)} hours"
    wanted = {
        "delta.logRetentionDuration": interval,
        "delta.deletedFileRetentionDuration": interval,
        "delta.enableExpiredLogCleanup": "false",
    }

    def attempt() -> None:
        table = delta.reopened(root, name)
        if not wanted.items() <= table.metadata().configuration.items():
            with delta.explained(root):
                table.alter.set_table_properties(wanted, post_commithook_properties=delta.HOOKS)

    delta.retrying(name, attempt)


def compact(root: Root, name: str) -> int:
    """Replace many small files by few large ones, in one commit.

    Returns:
        How many files were replaced.
    """

    def attempt() -> int:
        sizes = delta_log.file_sizes(delta.reopened(root, name), name).values()
        if sum(size < _FILE_BYTES for size in sizes) < _FEWEST_SMALL_FILES:
            return 0
        return delta.compact(root, name, _FILE_BYTES)

    return delta.retrying(name, attempt)


def shorten_log(root: Root, name: str, held: Collection[int]) -> int:
    """Write a checkpoint, and delete the log files that only versions before it need.

    Args:
        root: The lake.
        name: The table.
        held: Versions to keep however old they are.

    Returns:
        How many files of the log were deleted.
    """
    before = _log_files(root, name)
    newest = delta.reopened(root, name).version()
    oldest = min(held, default=newest)
    with delta.explained(root):
        for version in {oldest, newest}:
            if f"{name}/_delta_log/{version:020}.checkpoint.parquet" not in before:
                delta.reopened(root, name, version).create_checkpoint()
        # Log files of the version that is open here, and of later ones, are kept.
        delta.reopened(root, name, oldest).cleanup_metadata()
    return len(before - _log_files(root, name))


def vacuum(root: Root, name: str, held: Collection[int]) -> int:
    """Delete the files that no version has any more, and those that none ever had.

    Args:
        root: The lake.
        name: The table.
        held: Versions to keep however old they are.

    Returns:
        How many files were deleted.
    """
    table = delta.reopened(root, name)
    vacuum = functools.partial(table.vacuum, full=True, keep_versions=list(held))
    with delta.explained(root):
        if not vacuum(dry_run=True):
            return 0  # the call below would commit even if there is nothing to delete
        return len(vacuum(dry_run=False))


def forget_past(root: Root, name: str) -> None:
    """Delete everything of a table but its newest version: all other files, and their log.

    No other run may use the table meanwhile.
    """
    with delta.explained(root):
        delta.reopened(root, name).vacuum(
            0, dry_run=False, enforce_retention_duration=False, full=True
        )
        table = delta.reopened(root, name)
        table.create_checkpoint()
    for path in _log_files(root, name):
        number = path.rsplit("/", 1)[1][:20]
        if int(number) < table.version():
            root.delete(path)


def _log_files(root: Root, name: str) -> set[str]:
    return set(root.files(f"{name}/_delta_log", ""))
