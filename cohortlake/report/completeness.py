"""Up to when each data store is complete: what the ledger says, where it may be read.

A reader of `published/` has no right on it, and the report says so.
"""

from __future__ import annotations

from datetime import timedelta

from deltalake.exceptions import DeltaError

from cohortlake.admin.status import DatastoreStatus, datastores
from cohortlake.errors import LakeError
from cohortlake.storage.root import Root


def completeness(root: Root, settle: timedelta) -> tuple[DatastoreStatus, ...] | None:
    """Read how complete each data store on the ledger is.

    Args:
        root: The lake.
        settle: How long the search index may lag.

    Returns:
        One each, or None where there is no ledger or it may not be read.
    """
    try:
        return datastores(root, (), settle) or None
    except (LakeError, OSError, DeltaError):
        return None
