"""The layer `published`: the tables that notebooks and BI read, under the privacy policy."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.headers import series_headers
from assets.image_sets import image_sets
from assets.metadata import Metadata, column_schema
from cohortlake import Sync
from cohortlake.publish.publication.marker import Publication
from cohortlake.publish.series_headers import TABLES as OF_HEADERS
from cohortlake.schema import PUBLISHED

MEANINGS = {
    "image_sets": "One row per image set that there is now.",
    "series": "One row per series that there is now.",
    "studies": "One row per study that there is now.",
    "patients": "One row per patient that there is now.",
    "history": "One row per state of an image set, with when it was valid and when it was seen.",
    "series_headers": "One row per series whose whole header was fetched.",
    "earlier_headers": "One row per other version of an image set whose header was fetched.",
}

FRESH = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=25), fail_window=timedelta(hours=30)
)
"""Each tick publishes, also if nothing is new: older tables mean that no tick came to its end."""


def published_key(table: str) -> dg.AssetKey:
    """Return the key of a published table's asset."""
    return dg.AssetKey(f"published_{table}")


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            published_key(table),
            deps=[image_sets, series_headers] if table in OF_HEADERS else [image_sets],
            description=meaning,
            group_name="published",
            kinds={"parquet"},
            metadata={"dagster/column_schema": column_schema(PUBLISHED[table])},
            freshness_policy=FRESH,
        )
        for table, meaning in MEANINGS.items()
    ],
    retry_policy=RETRY,
)
def published(sync: dg.ResourceParam[Sync]) -> Iterator[dg.MaterializeResult[None]]:
    """Update all tables from the version history, in the partitions that changed."""
    with failures_told():
        publication = sync.publish()
    for table in MEANINGS:
        metadata = {
            "path": dg.MetadataValue.path(sync.root.uri_of("published", table)),
            **(_of_table(publication, table) if publication else {"dagster/row_count": 0}),
        }
        yield dg.MaterializeResult(asset_key=published_key(table), metadata=metadata)


def _of_table(publication: Publication, table: str) -> Metadata:
    folder = f"published/{table}/"
    return {
        # The columns that the policy shows, which are those in the files.
        "dagster/column_schema": column_schema(publication.shown(table)),
        "dagster/row_count": publication.rows(table),
        "files": sum(path.startswith(folder) for path in publication.files),
        "files_written": sum(path.startswith(folder) for path in publication.written),
        "files_removed": sum(path.startswith(folder) for path in publication.removed),
        "policy": publication.policy,
        "published_at": publication.published_at,
        "image_sets_version": publication.image_sets_version,
    }
