"""The jobs: which assets run together. Each ends with published tables, cohorts and checks.

A run that names no partitions takes whatever is due, for all data stores: that is how the
schedules run them, and how a new lake is filled. One that names a range takes that range,
in one run. A pool limits what a job takes of the account's quota, see `dagster.yaml`. See
`schedules` and `sensors` for when a job runs by itself.
"""

import dagster as dg

from assets.cohorts import cohorts
from assets.headers import series_headers
from assets.hints import event_hints
from assets.image_sets import image_sets
from assets.increments import image_set_increments, study_date_sweeps, undated_sweeps
from assets.published import published
from assets.versions import older_versions

# A run that takes longer is ended, and frees the pool. What was written stays.
_TICK = {"dagster/max_runtime": f"{6 * 3600}"}
_LONG = {"dagster/max_runtime": f"{7 * 24 * 3600}", "dagster/priority": "-1"}


def _into_published(source: dg.AssetsDefinition) -> dg.AssetSelection:
    return dg.AssetSelection.assets(source, image_sets, published, *cohorts)


tick = dg.define_asset_job(
    "tick",
    _into_published(image_set_increments),
    description="Every day that is not proven complete, however long ago the last tick was.",
    run_tags=_TICK,
)

backfill = dg.define_asset_job(
    "backfill",
    _into_published(image_set_increments),
    description="The same, or the days it is given, started by hand: may take long, and lets "
    "waiting ticks go first.",
    run_tags=_LONG,
)

reconcile = dg.define_asset_job(
    "reconcile",
    _into_published(study_date_sweeps),
    description="Every study month, or those it is given: closes what was deleted. Also how to "
    "have the months that a study asks for before all others.",
    run_tags=_LONG,
)

reconcile_undated = dg.define_asset_job(
    "reconcile_undated",
    _into_published(undated_sweeps),
    description="What no study month holds, found by reading whole data stores: closes what "
    "was deleted of it.",
    run_tags=_LONG,
)

hints = dg.define_asset_job(
    "hints",
    _into_published(event_hints),
    description="What the events in the queue hint at: what is due is searched now, and "
    "deletions are confirmed.",
    run_tags=_TICK,
)

fill_versions = dg.define_asset_job(
    "fill_versions",
    _into_published(older_versions),
    description="Versions that no search saw, started by hand: reads a metadata document for "
    "each, which moves archived image sets back to the frequent tier.",
    run_tags=_LONG,
)

headers = dg.define_asset_job(
    "headers",
    _into_published(series_headers),
    description="The whole headers of the modalities in COHORTLAKE_HEADERS that are not fetched "
    "yet. Each costs a request.",
    run_tags=_LONG,
)

JOBS = [tick, backfill, reconcile, reconcile_undated, hints, fill_versions, headers]
