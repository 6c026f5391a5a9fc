"""What the lake holds of a data store, by study-date partition."""

from __future__ import annotations

import contextlib
from typing import Any

import duckdb

from cohortlake.healthimaging import Datastore
from cohortlake.history import coverage, image_sets
from cohortlake.ingest import partitions
from cohortlake.storage import engine
from cohortlake.storage.root import Root


class HeldIndex:
    """Image sets of a data store that were held before a run began, read once for many sweeps.

    Use it as a context manager, from any thread.

    Args:
        root: The lake.
        store: The data store; image sets first seen before its `now` count.
    """

    def __init__(self, root: Root, store: Datastore) -> None:
        self._stack = contextlib.ExitStack()
        self._con = self._stack.enter_context(engine.connection())
        register_held(self._con, root, store)
        self._con.execute("CREATE TABLE held_before AS FROM held WHERE is_earlier")

    def __enter__(self) -> HeldIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, partition: str) -> list[dict[str, Any]]:
        """Return the rows of the view `held` that lie in a partition."""
        with self._con.cursor() as cursor:
            own = cursor.sql(
                "FROM held_before WHERE partition = $partition", params={"partition": partition}
            )
            rows: list[dict[str, Any]] = own.to_arrow_table().to_pylist()
        return rows


def register_held(con: duckdb.DuckDBPyConnection, root: Root, store: Datastore) -> None:
    """Create the view `held`: the current image sets of a data store, with when each was last seen.

    Args:
        con: Gets the view, with datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID,
            partition (of the study date), is_earlier (known before the store's `now`) and
            last_seen_at.
        root: The lake.
        store: The data store.
    """
    image_sets.register(con, root)
    con.register("coverage", coverage.searched(root))
    con.execute(
        _HELD.format(
            partition=partitions.partition_sql(store),
            datastore_id=store.datastore_id,
            began=store.now.isoformat(),
        )
    )


# A sweep without missing image sets saw everything that was known when it began.
_HELD = """
CREATE TEMP VIEW held AS
WITH complete_sweeps AS (
    SELECT "partition", run_id, max(searched_at) AS swept_at FROM coverage
    WHERE datastore_id = '{datastore_id}' AND axis IN ('study_date', 'created_at')
    GROUP BY "partition", run_id HAVING count(*) = count(*) FILTER (missing = 0)
), last_sweeps AS (
    SELECT "partition", max(swept_at) AS swept_at FROM complete_sweeps GROUP BY "partition"
), own AS (
    SELECT datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID, observed_at,
           {partition} AS "partition"
    FROM current WHERE datastore_id = '{datastore_id}'
)
SELECT own.* EXCLUDE (observed_at), observed_at < TIMESTAMPTZ '{began}' AS is_earlier,
       greatest(observed_at, swept_at) AS last_seen_at
FROM own LEFT JOIN last_sweeps USING ("partition")
"""
