"""The layer `image_sets`: the version history, every state ever seen and how it ended."""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.hints import event_hints
from assets.increments import image_set_increments, study_date_sweeps, undated_sweeps
from assets.metadata import column_schema
from assets.versions import older_versions
from cohortlake import Sync
from cohortlake.schema import IMAGE_SETS


@dg.asset(
    deps=[image_set_increments, study_date_sweeps, undated_sweeps, event_hints, older_versions],
    retry_policy=RETRY,
    group_name="image_sets",
    kinds={"deltalake"},
    metadata={"dagster/column_schema": column_schema(IMAGE_SETS)},
)
def image_sets(sync: dg.ResourceParam[Sync]) -> dg.MaterializeResult[None]:
    """Every state of every image set, only ever appended to.

    Applies all pending increments, whichever run wrote them. The lake knows which these are;
    Dagster's event log is not asked.
    """
    with failures_told():
        applied = sync.apply()
    return dg.MaterializeResult(
        metadata={
            **({} if applied.total_rows is None else {"dagster/row_count": applied.total_rows}),
            "path": dg.MetadataValue.path(sync.root.uri_of("image_sets")),
            "rows_appended": applied.rows,
            **applied.changes,
            **({} if applied.version is None else {"version": applied.version}),
        }
    )
