"""Beside the layer `increments`: what the events in a queue hint at.

See `cohortlake.hints` for what an event may cause, and when its message is removed.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.increments import POOL
from assets.metadata import column_schema
from assets.progress import progress_of
from cohortlake import Sync, take_hints
from cohortlake.schema import ABSENCE


@dg.asset(
    retry_policy=RETRY,
    pool=POOL,
    group_name="increments",
    kinds={"sqs", "parquet"},
    metadata={"dagster/column_schema": column_schema(ABSENCE)},
)
def event_hints(
    context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]
) -> dg.MaterializeResult[None]:
    """Image sets that events announce as deleted, once confirmed. What is due is searched too."""
    with failures_told():
        result = take_hints(sync, progress_of(context, sync))
    return dg.MaterializeResult(
        metadata={
            "messages": result.messages,
            "hints": result.hints,
            "removed": result.removed,
            "unsettled": result.unsettled,
            "unconfirmed": result.unconfirmed,
            "foreign": result.foreign,
            **result.changes,
        }
    )
