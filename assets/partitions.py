"""The partitions of the assets, and which of them a run asks for.

They are here and not in `pipelines`, because an asset is declared with its partitions. See
`cohortlake.ingest.partitions` for the window of time of each; no clock is read here. The data
stores come from COHORTLAKE_DATASTORES when the code location loads. If it is not set there are no
partitions, and a run says so.
"""

import itertools
from collections.abc import Iterable
from operator import itemgetter

import dagster as dg

from cohortlake import Settings
from cohortlake.ingest.partitions import FIRST_DAY, FIRST_MONTH

_DATASTORE, _DAY, _MONTH = "datastore", "day", "study_month"

# Today and this month are partitions too. They are searched again until they are over.
_PRESENT_PARTITION = 1

DATASTORES = dg.StaticPartitionsDefinition(Settings.from_env().datastores)

UPDATED_DAYS = dg.MultiPartitionsDefinition(
    {
        _DATASTORE: DATASTORES,
        _DAY: dg.DailyPartitionsDefinition(
            start_date=FIRST_DAY.isoformat(), timezone="UTC", end_offset=_PRESENT_PARTITION
        ),
    }
)
"""Data store x UTC day of updatedAt."""

STUDY_MONTHS = dg.MultiPartitionsDefinition(
    {
        _DATASTORE: DATASTORES,
        _MONTH: dg.MonthlyPartitionsDefinition(
            start_date=f"{FIRST_MONTH:%Y-%m}",
            timezone="UTC",
            fmt="%Y-%m",
            end_offset=_PRESENT_PARTITION,
        ),
    }
)
"""Data store x month of the study date."""


def day_key(datastore_id: str, day: str) -> dg.MultiPartitionKey:
    """Return the key of a data store's UTC day."""
    return dg.MultiPartitionKey({_DATASTORE: datastore_id, _DAY: day})


def month_key(datastore_id: str, month: str) -> dg.MultiPartitionKey:
    """Return the key of a data store's study month."""
    return dg.MultiPartitionKey({_DATASTORE: datastore_id, _MONTH: month})


def names_partitions(context: dg.AssetExecutionContext) -> bool:
    """Return whether a run names its partitions. A run that names none wants what is due."""
    return bool(context.has_partition_key or context.has_partition_key_range)


def requested(
    context: dg.AssetExecutionContext, datastore_ids: Iterable[str]
) -> dict[str, list[str] | None]:
    """Return what a run of a two-dimensional asset asks for.

    Args:
        context: The context of the run.
        datastore_ids: All data stores.

    Returns:
        Data store -> days or months, or None for whatever is due.
    """
    if not names_partitions(context):
        return dict.fromkeys(datastore_ids)
    pairs = [key.split("|") for key in context.partition_keys]
    return {
        datastore_id: [window for _, window in own]
        for datastore_id, own in itertools.groupby(pairs, key=itemgetter(0))
    }


def requested_datastores(
    context: dg.AssetExecutionContext, datastore_ids: Iterable[str]
) -> Iterable[str]:
    """Return the data stores that a run names, or all of them where it names none."""
    return context.partition_keys if names_partitions(context) else datastore_ids
