"""Reading the published tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cohortlake import schema
from cohortlake.errors import NotALake, UnknownColumn
from cohortlake.flatten import to_frame
from cohortlake.lake import engine
from cohortlake.lake.publish import read_marker
from cohortlake.lake.root import Root
from cohortlake.privacy import visible


def read_table(root: str, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a published table.

    Args:
        root: The lake: a folder or an `s3://` URL.
        table: `image_sets`, `series`, `studies`, `patients` or `history`.
        columns: Which columns; all that the policy shows by default.

    Returns:
        One row per entity, with Arrow-backed dtypes.

    Raises:
        UnknownTable: There is no such table.
        UnknownColumn: The table has no such column, or its policy does not show it.
        NotALake: Nothing was ever published there.
    """
    known = schema.published(table)
    place = Root(root)
    marker = read_marker(place)
    if marker is None:
        raise NotALake(f"nothing is published below {place.uri}; run `cohortlake sync` first")
    names = [column.name for column in visible(known, marker.policy)]
    for name in columns or ():
        if name not in names:
            raise UnknownColumn(name, table, names)
    shown = schema.arrow_schema(c for c in known if c.name in names)
    files = engine.dataset(place, marker.paths(table), shown, hive=True)
    return to_frame(files.to_table(columns=list(columns or names)))
