"""Maintenance of the memory and the ledger: fewer files, a short log, no leftovers.

Each commit adds a file or two. Owns how these become few again, and how long what is no longer
current can still be read: old versions, for readers and publishers that stand on one, and files
that killed runs never committed, which look like those of a run at work until they are old.

Readers and writers go on meanwhile. No row changes, so a publication has nothing to write but
which version it shows. Increments are never compacted or removed: they are the proof of what was
found. Published files are few, and replaced whole.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from deltalake import DeltaTable

from cohortlake.history import coverage, image_sets
from cohortlake.storage import delta
from cohortlake.storage.root import Root

# Fewer are no burden to a reader, and a file is rewritten up to this size to take them in.
_FEWEST_SMALL_FILES = 16
_FILE_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Maintained:
    """What maintenance did to a table.

    Attributes:
        table: Its name.
        version: Its version now.
        compacted: Files that became fewer.
        files: Files that hold it now.
        log_files_deleted: Files of its log that only led to versions older than the retention.
        files_deleted: Files that no version within the retention holds.
    """

    table: str
    version: int
    compacted: int
    files: int
    log_files_deleted: int
    files_deleted: int


def maintain(
    root: Root, retention: timedelta, held: Collection[int] = ()
) -> tuple[Maintained, ...]:
    """Compact the tables, and delete what is older than the retention.

    Args:
        root: The lake.
        retention: How long a version can be read after the next one was committed, and a file
            may lie about uncommitted: longer than any run takes.
        held: Versions of the memory to keep longer.

    Returns:
        What was done to each table that there is. Where nothing was to do, no file was written.

    Raises:
        CommitConflict: Other writers kept committing first.
        RootNotUsable: The root cannot be written.
    """
    by_table = {image_sets.TABLE: held, coverage.TABLE: ()}
    return tuple(
        _maintain(root, name, retention, kept)
        for name, kept in by_table.items()
        if delta.open_table(root, name)
    )


def _maintain(root: Root, name: str, retention: timedelta, held: Collection[int]) -> Maintained:
    state_retention(root, name, retention)
    compacted = compact(root, name)
    # Those whose log is gone already cannot be kept.
    kept = [version for version in sorted(held) if delta.open_table(root, name, version)]
    shortened = shorten_log(root, name, kept)
    deleted = vacuum(root, name, kept)
    table = DeltaTable(root.table_uri_of(name))
    files = len(table.file_uris())
    return Maintained(name, table.version(), compacted, files, shortened, deleted)


def state_retention(root: Root, name: str, retention: timedelta) -> None:
    """Write the retention into the table, where Delta Lake looks for it; other tools do too.

    And that no commit cleans up the log by itself: a compaction would, whatever it is told.
    """
    interval = f"interval {retention // timedelta(hours=1)} hours"
    wanted = {
        "delta.logRetentionDuration": interval,
        "delta.deletedFileRetentionDuration": interval,
        "delta.enableExpiredLogCleanup": "false",
    }

    def attempt() -> None:
        table = DeltaTable(root.table_uri_of(name))
        if not wanted.items() <= table.metadata().configuration.items():
            with delta.explained(root):
                table.alter.set_table_properties(wanted, post_commithook_properties=delta.HOOKS)

    delta.retrying(name, attempt)


def compact(root: Root, name: str) -> int:
    """Make few files of many small ones, in one commit; return how many these were."""

    def attempt() -> int:
        table = DeltaTable(root.table_uri_of(name))
        sizes: list[int] = pa.table(table.get_add_actions())["size_bytes"].to_pylist()
        if sum(size < _FILE_BYTES for size in sizes) < _FEWEST_SMALL_FILES:
            return 0
        with delta.explained(root):
            done = table.optimize.compact(
                target_size=_FILE_BYTES, writer_properties=delta.WRITER_PROPERTIES
            )
        return int(done["numFilesRemoved"])

    return delta.retrying(name, attempt)


def shorten_log(root: Root, name: str, held: Collection[int]) -> int:
    """Write a checkpoint, and delete what of the log leads only to versions that are too old.

    Args:
        root: The lake.
        name: The table.
        held: Versions to keep however old they are.

    Returns:
        How many files of the log were deleted.
    """
    before = _log_files(root, name)
    newest = DeltaTable(root.table_uri_of(name)).version()
    oldest = min(held, default=newest)
    with delta.explained(root):
        for version in {oldest, newest}:
            if f"{name}/_delta_log/{version:020}.checkpoint.parquet" not in before:
                DeltaTable(root.table_uri_of(name), version=version).create_checkpoint()
        # Nothing is deleted from the version on that is open here.
        DeltaTable(root.table_uri_of(name), version=oldest).cleanup_metadata()
    return len(before - _log_files(root, name))


def vacuum(root: Root, name: str, held: Collection[int]) -> int:
    """Delete the files that no version holds any more, and those that none ever held.

    Args:
        root: The lake.
        name: The table.
        held: Versions to keep however old they are.

    Returns:
        How many files were deleted.
    """
    table = DeltaTable(root.table_uri_of(name))
    vacuum = functools.partial(table.vacuum, full=True, keep_versions=list(held))
    with delta.explained(root):
        if not vacuum(dry_run=True):
            return 0  # and commits nothing, where else it would commit that it was there
        return len(vacuum(dry_run=False))


def forget_past(root: Root, name: str) -> None:
    """Delete all of a table but its newest version: every other file, and what its log says.

    No other run may be at work.
    """
    with delta.explained(root):
        DeltaTable(root.table_uri_of(name)).vacuum(
            0, dry_run=False, enforce_retention_duration=False, full=True
        )
        table = DeltaTable(root.table_uri_of(name))
        table.create_checkpoint()
    for path in _log_files(root, name):
        number = path.rsplit("/", 1)[1][:20]
        if int(number) < table.version():
            root.delete(path)


def _log_files(root: Root, name: str) -> set[str]:
    return set(root.files(f"{name}/_delta_log", ""))
