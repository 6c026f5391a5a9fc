"""Reads up to when each data store is complete, from coverage.

A reader of `published/` may not read coverage. The report then says so.
"""

from __future__ import annotations

from datetime import timedelta

from deltalake.exceptions import DeltaError

from cohortlake.admin.status import DatastoreStatus, datastores
from cohortlake.errors import LakeError
from cohortlake.storage.root import Root


def completeness(root: Root, settle: timedelta) -> tuple[DatastoreStatus, ...] | None:
    """Read how complete each data store is.

    Args:
        root: The lake.
        settle: How long the search index may lag.

    Returns:
        One status each, or None if there is no coverage, or it may not be read.
    """
    try:
        return datastores(root, (), settle) or None
    except (LakeError, OSError, DeltaError):
        return None
