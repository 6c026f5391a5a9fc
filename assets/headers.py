"""Beside the layer `increments`: the whole headers of image sets, by study month.

Off until COHORTLAKE_HEADERS names modalities, because each image set costs a request. See
`cohortlake.ingest.headers` for which headers are due.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.image_sets import image_sets
from assets.increments import POOL
from assets.metadata import column_schema
from assets.partitions import STUDY_MONTHS, requested
from assets.progress import progress_of
from cohortlake import Sync
from cohortlake.schema import HEADER


@dg.asset(
    partitions_def=STUDY_MONTHS,
    deps=[image_sets],
    backfill_policy=dg.BackfillPolicy.single_run(),
    retry_policy=RETRY,
    pool=POOL,
    group_name="headers",
    kinds={"parquet"},
    metadata={"dagster/column_schema": column_schema(HEADER)},
)
def series_headers(
    context: dg.AssetExecutionContext, sync: dg.ResourceParam[Sync]
) -> dg.MaterializeResult[None]:
    """Whole headers of the modalities in COHORTLAKE_HEADERS, each version fetched once.

    Archived image sets are left alone.
    """
    with failures_told():
        wanted = requested(context, sync.settings.require_datastores())
        result = sync.fetch_headers_of_months(wanted, progress_of(context, sync))
    return dg.MaterializeResult(
        metadata={
            "headers": result.headers,
            "left_alone": result.left_alone,
            "requests": result.requests,
            "throttles": result.throttles,
            "document_bytes": result.document_bytes,
            **{f"failed: {reason}": count for reason, count in result.failed.items()},
        }
    )
