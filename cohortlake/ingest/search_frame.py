"""One search as a pandas frame, for notebooks and `cohortlake search`. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.flatten import flatten_pages, to_frame
from cohortlake.healthimaging import HealthImaging

if TYPE_CHECKING:
    import pandas as pd


def search_image_sets(
    service: HealthImaging,
    datastore_id: str,
    criteria: Mapping[str, Any],
    limit: int | None = None,
) -> pd.DataFrame:
    """Search a data store, and return what it finds as a frame.

    Args:
        service: The client.
        datastore_id: The data store.
        criteria: `searchCriteria` of the SearchImageSets API: one or two `filters`, and `sort`.
        limit: Maximum number of rows; all by default.

    Returns:
        One row per image set, with the columns of `schema.STATE`. See `flatten.frame` for the
            dtypes.

    Raises:
        ServiceError: See `errors`.
    """
    tables, rows, token = [schema.arrow_schema(schema.STATE).empty_table()], 0, None
    while limit is None or rows < limit:
        page = service.search_page(datastore_id, criteria, token)
        tables.append(flatten_pages([page.body], datastore_id))
        rows += len(tables[-1])
        token = page.next_token
        if token is None:
            break
    return to_frame(pa.concat_tables(tables)[:limit])
