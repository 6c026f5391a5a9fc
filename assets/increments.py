"""The layer `increments`: what each search window found, by day of updatedAt or study month.

A run that names partitions searches those; one that names none searches whatever is due,
as the ledger and the service's clock tell it, however long ago the last run was. Either
way many partitions are searched side by side in one run, and each is recorded as it lands:
a run that dies at the eleventh keeps ten. What is done with what they hold is `image_sets`'.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.metadata import Metadata, column_schema, search_metadata
from assets.partitions import (
    DATASTORES,
    STUDY_MONTHS,
    UPDATED_DAYS,
    day_key,
    month_key,
    names_partitions,
    requested,
)
from cohortlake import Sync, Window
from cohortlake.failures import Failures
from cohortlake.healthimaging import Datastore
from cohortlake.ingest.partitions import day_window, months_until_now
from cohortlake.ingest.progress import Progress, Told, in_words
from cohortlake.ingest.sweep import Swept
from cohortlake.schema import FOUND, UNDATED

POOL = "healthimaging"
"""The pool that the account's quota stands behind; `dagster.yaml` has its limit."""

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
    progress = progress_of(context, sync)
    with failures_told():
        wanted = requested(context, sync.settings.require_datastores())
        failures = Failures()
        for datastore_id, days in wanted.items():
            with failures.of(datastore_id), _searching(sync, datastore_id, days, progress) as store:
                windows = _windows(sync, store, days)
                for day, found in sync.extract(store, windows, progress):
                    key = day_key(datastore_id, day)
                    _record(context, key, search_metadata(found, sync.root))
                for day in sorted({*(days or ())} - {*windows}):
                    _record(context, day_key(datastore_id, day), {"dagster/row_count": 0})
        failures.raise_them()


@_search_asset(partitions_def=STUDY_MONTHS)
def study_date_sweeps(context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """All image sets of a study month, and those of the lake's that are gone from it."""
    with failures_told():
        wanted = requested(context, sync.settings.require_datastores())

        def months_of(store: Datastore) -> list[str]:
            return wanted[store.datastore_id] or months_until_now(store)

        swept_months = sync.sweep(wanted, months_of, progress_of(context, sync))
        for datastore_id, month, swept in swept_months:
            _record(context, month_key(datastore_id, month), _sweep_metadata(swept, sync))


@_search_asset(partitions_def=DATASTORES)
def undated_sweeps(context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """All image sets that no study month holds: to find them a whole data store is read."""
    with failures_told():
        everywhere = sync.settings.require_datastores()
        wanted = context.partition_keys if names_partitions(context) else everywhere
        for datastore_id, _, swept in sync.sweep(
            wanted, lambda _: [UNDATED], progress_of(context, sync)
        ):
            _record(context, datastore_id, _sweep_metadata(swept, sync))


def _searching(
    sync: Sync, datastore_id: str, days: list[str] | None, progress: Progress
) -> AbstractContextManager[Datastore]:
    """Search what is due when no other run does; named days, beside other runs."""
    if days is None:
        return sync.searching(datastore_id, progress)
    return nullcontext(sync.datastore(datastore_id))


def _windows(sync: Sync, store: Datastore, days: list[str] | None) -> dict[str, list[Window]]:
    """Return what is due of some days; those that are not due are searched again, whole."""
    due = sync.due(store)
    if days is None:
        return due
    whole = {day: day_window(day, store) for day in days}
    return {day: due.get(day) or [window] for day, window in whole.items() if window}


def _sweep_metadata(swept: Swept, sync: Sync) -> Metadata:
    """Return what a sweep cost and what it missed."""
    return {
        **search_metadata(swept.found, sync.root),
        "missing": swept.missing,
        "confirmed_absent": swept.absent,
        "refused": swept.refused,
        "unconfirmed": swept.unconfirmed,
    }


def progress_of(context: dg.AssetExecutionContext, sync: Sync) -> Progress:
    """Return what writes a line a minute into the run's log."""
    return Told(
        lambda now: context.log.info(in_words(now, sync.settings.tps)),
        seconds=60,
        note=context.log.info,
    )


def _record(context: dg.AssetExecutionContext, key: str, metadata: Metadata) -> None:
    """Record a partition now, and not when the whole run has ended well."""
    context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
    if names_partitions(context):
        # Dagster records the partitions a run names once more at its end.
        context.add_asset_metadata(metadata, partition_key=key)
