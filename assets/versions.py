"""Beside the layer `increments`: versions of image sets that no search saw.

See `cohortlake.ingest.older_versions` for which versions are read, and which are not read again.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.increments import POOL
from assets.metadata import column_schema
from assets.progress import progress_of
from cohortlake import Sync
from cohortlake.schema import FOUND


@dg.asset(
    retry_policy=RETRY,
    pool=POOL,
    group_name="increments",
    kinds={"parquet"},
    metadata={"dagster/column_schema": column_schema(FOUND)},
)
def older_versions(
    context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]
) -> dg.MaterializeResult[None]:
    """Versions that came and went between two searches, read one by one.

    Reads metadata documents, which moves archived image sets back to the frequent tier.
    """
    with failures_told():
        result = sync.fill_versions(progress_of(context, sync))
    return dg.MaterializeResult(metadata=vars(result))
