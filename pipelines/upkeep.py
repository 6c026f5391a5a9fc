"""The job `maintain`. It produces no data, so it is an op and not an asset."""

import dagster as dg

from assets.failures import RETRY, failures_told
from cohortlake import Sync


@dg.op(retry_policy=RETRY)
def compact_and_clean_up(context: dg.OpExecutionContext, sync: dg.ResourceParam[Sync]) -> None:
    """Compact the version history and the coverage, and delete what is older than the retention."""
    with failures_told():
        maintained = sync.maintain()
    for table in maintained:
        context.log.info(
            f"{table.table}: {table.compacted} files compacted, {table.files} left; "
            f"{table.log_files_deleted} log files and {table.files_deleted} others deleted"
        )


@dg.job(
    description="Few files instead of many small ones, and nothing that is older than the "
    "retention. Other jobs may run meanwhile.",
    tags={"dagster/max_runtime": f"{6 * 3600}"},
)
def maintain() -> None:
    """Maintain the tables."""
    compact_and_clean_up()
