"""Progress of the library in Dagster's log: a line a minute."""

import dagster as dg

from cohortlake import Sync
from cohortlake.ingest.progress import (
    PeriodicProgress,
    Progress,
    describe_headers,
    describe_search,
    describe_versions,
)


def progress_of(context: dg.AssetExecutionContext, sync: Sync) -> Progress:
    """Return progress that writes into the log of a run."""
    return PeriodicProgress(
        lambda now: context.log.info(describe_search(now, sync.settings.tps)),
        seconds=60,
        show_versions=lambda so_far: context.log.info(describe_versions(so_far)),
        note=context.log.info,
        show_headers=lambda so_far: context.log.info(describe_headers(so_far)),
    )
