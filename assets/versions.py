"""Beside the layer `increments`: versions of image sets that no search saw.

What is asked for, and what is not asked for again, is `cohortlake.ingest.older_versions`'.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.increments import POOL
from assets.metadata import column_schema
from cohortlake import Sync
from cohortlake.failures import Failures
from cohortlake.ingest.older_versions import Filled
from cohortlake.ingest.progress import filled_in_words
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
    filled, failures = Filled(), Failures()
    with failures_told():
        for datastore_id in sync.settings.require_datastores():
            with failures.of(datastore_id):
                for landed in sync.fill_versions(sync.datastore(datastore_id)):
                    filled += landed
                    context.log.info(filled_in_words(filled))
        failures.raise_them()
    return dg.MaterializeResult(metadata=vars(filled))
