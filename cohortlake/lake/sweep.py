"""A sweep: all of one study-date partition, searched to the end, shows what is gone.

Deleted image sets just stop being returned. So what the lake holds in a partition and a
complete sweep of it did not find is a candidate; each one is confirmed by a second call
before anything is closed, because it may have moved to another partition meanwhile. A
sweep that fails before its last token proves nothing, and closes nothing. Nor does one that
misses more of a partition than somebody should look at first.

The sweep of `undated` reads all image sets by creation, so it also comes upon those that
moved between study months while these were swept: what the lake does not know is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import AccessDenied
from cohortlake.healthimaging import EPOCH, Axis, Datastore, HealthImaging, Window
from cohortlake.lake import engine, image_sets, increments, partitions
from cohortlake.lake.extract import Extractor, Found, Search
from cohortlake.lake.root import Root

_CALLS_AT_ONCE = 8  # to confirm what is gone; the bucket paces them
_ALWAYS_ACCEPTED = 10  # whatever share of a small partition that is


@dataclass(frozen=True)
class Swept:
    """What a sweep brought.

    Attributes:
        found: What it found.
        missing: Candidates: held by the lake, not found by the sweep.
        absent: Those of them that are confirmed gone.
        refused: Confirmed, but not closed, because they are too many.
    """

    found: Found
    missing: int
    absent: int
    refused: int = 0


class Held:
    """What the lake holds of a data store, by study-date partition, read once for many sweeps.

    Use it as a context manager, from any thread.

    Args:
        root: The lake.
        store: The data store; only what was seen before its `now` counts.
    """

    def __init__(self, root: Root, store: Datastore) -> None:
        self._store = store
        self._stack = contextlib.ExitStack()
        self._con = self._stack.enter_context(engine.connection())
        image_sets.register(self._con, root)
        self._con.execute(_HELD, {"id": store.datastore_id, "began": store.now})
        months = self._con.sql("SELECT DISTINCT study_month FROM held").fetchall()
        self._months = {str(month) for (month,) in months}

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, partition: str) -> list[dict[str, Any]]:
        """Return the ids and UIDs of a partition's image sets."""
        months = [m for m in self._months if partitions.of_month(m, self._store) == partition]
        if not months:
            return []
        with self._con.cursor() as cursor:
            own = cursor.sql(
                "SELECT * FROM held WHERE study_month IN $months", params={"months": months}
            )
            rows: list[dict[str, Any]] = own.to_arrow_table().to_pylist()
        return rows


_HELD = f"""
CREATE TABLE held AS
SELECT datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID,
       {partitions.SWEPT_MONTH_SQL} AS study_month
FROM current WHERE datastore_id = $id AND observed_at < $began
"""


def search_of(store: Datastore, partition: str) -> Search:
    """Return the search that sweeps a study month, or `undated`.

    Raises:
        WindowError: The partition is no month.
    """
    if partition == schema.UNDATED:
        # No study date finds these: all image sets are looked at, by creation.
        window = Window(Axis.CREATED_AT, EPOCH, store.now)
        keep = partial(partitions.in_no_month, store)
        return Search(store, partition, window, keep, is_sweep=True)
    return Search(store, partition, partitions.month_window(partition), is_sweep=True)


def close_missing(run: Extractor, held: Held, search: Search, found: Found, most: float) -> Swept:
    """Close what of a partition a complete sweep did not find.

    Args:
        run: The client, and where to write.
        held: The image sets that the lake held before.
        search: The partition's.
        found: All that it brought.
        most: Share of the partition that may be closed.

    Raises:
        ServiceError: A candidate could not be confirmed.
    """
    rows = held.rows(search.partition)
    missing = [c for c in rows if c["image_set_id"] not in found.image_set_ids]
    gone = confirmed(run, missing)
    if len(gone) > max(_ALWAYS_ACCEPTED, most * len(rows)):
        return Swept(found, len(missing), 0, refused=len(gone))
    close(run, search, gone)
    return Swept(found, len(missing), len(gone))


def confirmed(run: Extractor, missing: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Ask a second time for image sets that a search did not find.

    Args:
        run: The client.
        missing: The candidates: datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID.

    Returns:
        Id of each that is gone -> the call that showed it.
    """
    candidates = list(missing)
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        calls = pool.map(partial(_absence, run.service), candidates)
        return {c["image_set_id"]: call for c, call in zip(candidates, calls, strict=True) if call}


def close(run: Extractor, search: Search, gone: Mapping[str, str]) -> None:
    """Write down which image sets are gone.

    Args:
        run: The client, and where to write.
        search: What did not find them.
        gone: See `confirmed`.
    """
    if gone:
        rows = [{"image_set_id": i, "confirmed_by": call} for i, call in gone.items()]
        _write_absences(run, search, rows)


def _absence(service: HealthImaging, candidate: dict[str, Any]) -> str | None:
    """Return the call that shows that a candidate is gone, or None where it is not."""
    datastore_id, image_set_id = candidate["datastore_id"], candidate["image_set_id"]
    try:
        exists = service.has_image_set(datastore_id, image_set_id)
        return None if exists else "GetImageSet"
    except AccessDenied:
        gone = is_not_found(service, candidate)
        return "SearchImageSets" if gone else None


def is_not_found(service: HealthImaging, candidate: dict[str, Any]) -> bool:
    """Search for a candidate by its series or study; one without either is never closed."""
    for column in ("SeriesInstanceUID", "StudyInstanceUID"):
        if candidate[column]:
            value = {f"DICOM{column}": candidate[column]}
            criteria = {"filters": [{"operator": "EQUAL", "values": [value]}]}
            ids = _ids(service, candidate["datastore_id"], criteria)
            return candidate["image_set_id"] not in ids
    return False


def _ids(service: HealthImaging, datastore_id: str, criteria: dict[str, Any]) -> Iterator[str]:
    token = None
    while True:
        page = service.search_page(datastore_id, criteria, token)
        yield from (head.image_set_id for head in page.heads)
        token = page.next_token
        if token is None:
            return


def _write_absences(run: Extractor, search: Search, rows: list[dict[str, str]]) -> None:
    datastore_id = search.store.datastore_id
    record = replace(
        search.record(run.run_id),
        axis=increments.ABSENCE_AXIS,
        searched_at=run.service.datastore(datastore_id).now,  # when the last one was confirmed
        rows=len(rows),
        kept_rows=len(rows),
    )
    gone = pa.Table.from_pylist(
        [{"datastore_id": datastore_id, **row} for row in rows],
        schema.arrow_schema(schema.ABSENCE[:3]),
    )
    increments.write_table(run.root, record, increments.with_run(gone, record))
