"""The layer `increments`: what each search window found, by day of updatedAt or study month.

A run that names partitions searches those. A run that names none searches whatever is due,
however long ago the last run was. Each partition is recorded as soon as it is written, so a run
that dies at the eleventh keeps ten. See `assets.image_sets` for what follows from the increments.
"""

from functools import partial

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.metadata import Metadata, column_schema, search_metadata, sweep_metadata
from assets.partitions import (
    DATASTORES,
    STUDY_MONTHS,
    UPDATED_DAYS,
    day_key,
    month_key,
    names_partitions,
    requested,
    requested_datastores,
)
from assets.progress import progress_of
from cohortlake import Sync
from cohortlake.schema import FOUND

POOL = "healthimaging"
"""The pool that holds the account's quota. See `dagster.yaml` for its limit."""

_search_asset = partial(
    dg.asset,
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY,
    pool=POOL,
    group_name="increments",
    kinds={"parquet"},
    metadata={"dagster/column_schema": column_schema(FOUND)},
)


@_search_asset(partitions_def=UPDATED_DAYS)
def image_set_increments(context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """Image sets whose updatedAt lies in a UTC day, exactly as the service sent them."""
    with failures_told():
        wanted = requested(context, sync.settings.require_datastores())
        for datastore_id, day, found in sync.search_days(wanted, progress_of(context, sync)):
            _record(context, day_key(datastore_id, day), search_metadata(found, sync.root))


@_search_asset(partitions_def=STUDY_MONTHS)
def study_date_sweeps(context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """All image sets of a study month, and those that the lake holds and that were deleted."""
    with failures_told():
        wanted = requested(context, sync.settings.require_datastores())
        for datastore_id, month, swept in sync.sweep_months(wanted, progress_of(context, sync)):
            _record(context, month_key(datastore_id, month), sweep_metadata(swept, sync.root))


@_search_asset(partitions_def=DATASTORES)
def undated_sweeps(context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """All image sets that lie in no study month. To find them, a whole data store is read."""
    with failures_told():
        wanted = requested_datastores(context, sync.settings.require_datastores())
        for datastore_id, _, swept in sync.sweep_undated(wanted, progress_of(context, sync)):
            _record(context, datastore_id, sweep_metadata(swept, sync.root))


def _record(context: dg.AssetExecutionContext, key: str, metadata: Metadata) -> None:
    """Record a partition now, and not only when the whole run has succeeded."""
    context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
    if names_partitions(context):
        # Dagster records the named partitions once more at the end of the run.
        context.add_asset_metadata(metadata, partition_key=key)
