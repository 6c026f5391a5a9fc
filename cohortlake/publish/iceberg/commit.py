"""Adds and removes files of an Iceberg table in one snapshot, and keeps its manifests few.

A commit of PyIceberg that replaces files leaves a manifest of what it removed, and no later commit
takes it away. After a year of hourly publications each query would read thousands of them. So the
manifests are merged here, as PyIceberg does it when it only adds files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cohortlake.optional_dependencies import module

_MOST_MANIFESTS = 10
_MANIFEST_BYTES = 8 << 20


def transaction(held: Any) -> Any:
    """Begin a transaction on a table, for a `with` block. It is committed at the end of the block.

    PyIceberg copies the whole metadata some twenty times for a commit. With hundreds of snapshots
    that takes seconds, so this transaction keeps the copy until it has another update.
    """
    base: Any = module("pyiceberg.table").Transaction

    class Transaction(base):  # type: ignore[misc]
        _copied: tuple[Any, Any, Any] | None = None

        @property
        def table_metadata(self) -> Any:
            state = self._table.metadata, self._updates
            if self._copied is None or any(
                a is not b for a, b in zip(state, self._copied, strict=False)
            ):
                self._copied = (*state, base.table_metadata.fget(self))
            return self._copied[2]

    return Transaction(held)


def replace_files(
    held: Any,
    transaction: Any,
    properties: Mapping[str, str],
    new: Iterable[Any],
    old: Iterable[Any],
) -> None:
    """Replace files of a table, as a part of a transaction.

    Args:
        held: The table.
        transaction: The transaction.
        properties: The properties of the snapshot.
        new: The files to add.
        old: The files to remove.
    """
    internal = module("pyiceberg.table.update.snapshot")
    overwrite: Any = internal._OverwriteFiles
    operation = module("pyiceberg.table.snapshots").Operation
    is_first = transaction.table_metadata.current_snapshot_id is None

    class Replacement(overwrite):  # type: ignore[misc]
        def _process_manifests(self, manifests: list[Any]) -> list[Any]:
            merging = internal._ManifestMergeManager(
                target_size_bytes=_MANIFEST_BYTES,
                min_count_to_merge=_MOST_MANIFESTS,
                merge_enabled=True,
                snapshot_producer=self,
            )
            merged: list[Any] = merging.merge_manifests(manifests)
            return merged

    with Replacement(
        operation=operation.APPEND if is_first else operation.OVERWRITE,
        transaction=transaction,
        io=held.io,
        snapshot_properties=dict(properties),
    ) as snapshot:
        for file in new:
            snapshot.append_data_file(file)
        for file in old:
            snapshot.delete_data_file(file)
