"""Beside the layer `increments`: what the events in a queue hint at.

What an event may cause, and when its message is removed, is `cohortlake.hints`'.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.increments import POOL, progress_of
from assets.metadata import column_schema
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
    """Image sets that events said were deleted, confirmed gone; what else is new is searched."""
    with failures_told():
        taken = take_hints(sync, progress_of(context, sync))
    return dg.MaterializeResult(
        metadata={
            "messages": taken.messages,
            "hints": taken.hints,
            "removed": taken.removed,
            "unsettled": taken.unsettled,
            "unconfirmed": taken.unconfirmed,
            "foreign": taken.foreign,
            **taken.changes,
        }
    )
