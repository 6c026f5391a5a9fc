"""What the lake holds of a data store: by study-date partition, or of single image sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.healthimaging import Datastore
from cohortlake.history import coverage, timeline
from cohortlake.history.current_states import CurrentStates, Interval
from cohortlake.ingest import partitions
from cohortlake.schema import UNDATED
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_GROUP_ROWS = 100_000
_GROUPS_KEPT = 2  # the partitions of a search end roughly in order
_STUDY_DATE = "StudyDate"
_SWEEP_COLUMNS = ("datastore_id", "axis", "partition", "run_id", "searched_at", "missing")


class HeldIndex:
    """Image sets of a data store that were held before a run began.

    Partitions are read when they are asked for. Small ones are read together with their neighbours.

    Args:
        root: The lake, as it is when this is made.
        store: The data store.
        wanted: The partitions that will be asked for.
    """

    def __init__(self, root: Root, store: Datastore, wanted: Iterable[str] = ()) -> None:
        self._store = store
        self._current = CurrentStates(root)
        self._files = self._current.files(_STUDY_DATE)
        with engine.connection() as con:
            con.register("coverage", coverage.searched(root, _SWEEP_COLUMNS))
            self._last_sweeps = con.sql(
                _LAST_SWEEPS, params={"id": store.datastore_id}
            ).to_arrow_table()
        self._groups = self._grouped(sorted(wanted))
        self._read: dict[tuple[str, ...], pa.Table] = {}

    def in_partition(self, partition: str) -> pa.Table:
        """Return the image sets of a wanted partition that were held before the run began.

        The columns are datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID, partition,
        is_earlier (whether the lake saw it before the run began) and last_seen_at.
        """
        group = self._groups[partition]
        if group not in self._read:
            kept = list(self._read.items())[1 - _GROUPS_KEPT :]
            self._read = dict(kept) | {group: self._of_group(group)}
        rows = self._read[group]
        return rows.filter(pc.equal(rows["partition"], partition))

    def of_image_sets(self, image_set_ids: Collection[str]) -> pa.Table:
        """Return those of some image sets that the lake holds. See `in_partition` for the columns.

        The keys of all rows are scanned. The other columns are read in the months of these image
        sets only.
        """
        ids = pa.array(sorted(image_set_ids), pa.string())
        with engine.connection() as con:
            named = pa.table({"datastore_id": [self._store.datastore_id] * len(ids)})
            con.register("named", named.append_column("image_set_id", ids))
            keys = con.sql(f"SELECT {timeline.IMAGE_SET_KEY} AS image_set_key FROM named")
            found = keys.to_arrow_table()
        months = self._current.months_of(found)
        listed = ", ".join(map(str, found["image_set_key"].to_pylist())) or "NULL"
        where = f"image_set_key IN ({listed}) AND study_month IN {engine.text_list(months)}"
        rows = self._rows(where, self._paths_of(months))
        return rows.filter(pc.is_in(rows["image_set_id"], value_set=ids))

    def _grouped(self, wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return for each partition with which others it is read."""
        sizes = self._current.versions_by_month() if len(wanted) > 1 else {}
        groups: list[list[str]] = []
        size = 0
        for partition in wanted:
            size += sizes.get(partition, 0)
            if not groups or size > _GROUP_ROWS or partition == UNDATED:
                groups.append([])
                size = sizes.get(partition, 0)
            groups[-1].append(partition)
        return {partition: tuple(group) for group in groups for partition in group}

    def _of_group(self, group: Sequence[str]) -> pa.Table:
        wanted = engine.text_list(group)
        where = f"({partitions.partition_sql(self._store)}) IN {wanted}"
        if UNDATED not in group:
            where += f" AND study_month IN {wanted}"  # constants, so that row groups are skipped
        rows = self._rows(where, self._paths_of(group))
        return rows.filter(rows["is_earlier"])

    def _paths_of(self, months: Sequence[str]) -> list[str]:
        """Return the files that may have rows of some study months, or of `undated`."""
        files = self._files
        if UNDATED not in months:
            spans = [Interval.of_month(month) for month in months]
            files = [file for file in files if any(span.overlaps(file) for span in spans)]
        return [file.path for file in files]

    def _rows(self, where: str, paths: Sequence[str]) -> pa.Table:
        own = f"datastore_id = '{self._store.datastore_id}' AND {where}"
        columns = _COLUMNS.format(partition=partitions.partition_sql(self._store))
        held = self._current.read(columns, own, paths)
        with engine.connection() as con:
            con.register("held", held)
            con.register("last_sweeps", self._last_sweeps)
            began = self._store.now.isoformat()
            return con.sql(_WITH_LAST_SEEN.format(began=began)).to_arrow_table()


# A sweep without missing image sets saw everything that was known when it began.
_LAST_SWEEPS = """
SELECT "partition", max(swept_at) AS swept_at FROM (
    SELECT "partition", run_id, max(searched_at) AS swept_at FROM coverage
    WHERE datastore_id = $id AND axis IN ('study_date', 'created_at')
    GROUP BY "partition", run_id HAVING count(*) = count(*) FILTER (missing = 0)
) GROUP BY "partition"
"""

_COLUMNS = """
datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID, observed_at,
{partition} AS "partition"
"""

_WITH_LAST_SEEN = """
SELECT held.* EXCLUDE (observed_at), observed_at < TIMESTAMPTZ '{began}' AS is_earlier,
       greatest(observed_at, swept_at) AS last_seen_at
FROM held LEFT JOIN last_sweeps USING ("partition")
"""
