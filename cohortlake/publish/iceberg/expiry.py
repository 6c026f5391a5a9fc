"""Expires snapshots of the Iceberg tables, and deletes the files that no other snapshot reads.

A snapshot expires at once if it may show what the present one may not: it was made under another
policy or key, or before the last erasure. All others expire with the retention. The files are
deleted before the snapshot is removed from the table. So a run that is killed in between does the
rest the next time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from cohortlake.publish.iceberg import data_files
from cohortlake.storage.root import Root

LINEAGE = "cohortlake.lineage"
"""The property of a snapshot: a hash of the policy, the key and the erasures behind it. Snapshots
of one lineage may be read beside each other."""

_BEING_WRITTEN = timedelta(days=1)


def expire_other_lineages(root: Root, folder: str, held: Any, lineage: str) -> None:
    """Expire the snapshots of another lineage, also those that a tag or a branch names.

    Args:
        root: The lake.
        folder: The folder of the table.
        held: The table.
        lineage: The lineage that is published now.
    """
    current = held.metadata.current_snapshot_id
    others = {
        snapshot.snapshot_id
        for snapshot in held.snapshots()
        if snapshot.snapshot_id != current and snapshot.summary[LINEAGE] != lineage
    }
    if not others:
        return
    _delete_unread(root, folder, held, others, None)
    with held.manage_snapshots() as manage:
        for name, ref in held.refs().items():
            if ref.snapshot_id in others and ref.snapshot_ref_type.value == "tag":
                manage.remove_tag(name)
            elif ref.snapshot_id in others:
                manage.remove_branch(name)
    held.maintenance.expire_snapshots().by_ids(sorted(others)).commit()


def expire_older(root: Root, folder: str, held: Any, instant: datetime) -> None:
    """Expire the snapshots from before an instant that no tag or branch names.

    Files that are in no snapshot are deleted too, because a run was killed after it wrote them.

    Args:
        root: The lake.
        folder: The folder of the table.
        held: The table.
        instant: Snapshots from before it expire.
    """
    named = {ref.snapshot_id for ref in held.refs().values()}
    older = {
        snapshot.snapshot_id
        for snapshot in held.snapshots()
        if snapshot.timestamp_ms < instant.timestamp() * 1000 and snapshot.snapshot_id not in named
    }
    _delete_unread(root, folder, held, older, _BEING_WRITTEN)
    if older:
        held.maintenance.expire_snapshots().by_ids(sorted(older)).commit()


def _delete_unread(
    root: Root, folder: str, held: Any, expired: Collection[int], spared: timedelta | None
) -> None:
    """Delete the files of a table that no snapshot needs but the expired ones.

    Args:
        root: The lake.
        folder: The folder of the table.
        held: The table.
        expired: The ids of the expired snapshots.
        spared: Files that are younger than this stay: another run may be adding them.
    """
    read = {held.metadata_location, *(entry.metadata_file for entry in held.metadata.metadata_log)}
    for snapshot in held.snapshots():
        if snapshot.snapshot_id not in expired:
            read.add(snapshot.manifest_list)
            read.update(manifest.manifest_path for manifest in snapshot.manifests(held.io))
            read.update(file.file_path for file in data_files.files_of(held, snapshot))
    written = root.modified(folder, "")
    youngest = max(written.values(), default=None)
    unread = [
        path
        for path, instant in written.items()
        if root.uri_of(path) not in read
        and (spared is None or (youngest is not None and instant < youngest - spared))
    ]
    # What describes the rows goes last: a killed run finds them by it.
    for path in sorted(unread, key=lambda path: "/metadata/" in path):
        root.delete(path)
