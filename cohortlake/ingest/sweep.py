"""A sweep: all of one study-date partition, searched to the end, shows what is gone.

Deleted image sets just stop being returned. So what the lake holds in a partition and a
complete sweep of it did not find is a candidate; each one is confirmed by a second call
before anything is closed, because it may have moved to another partition meanwhile. Only
GetImageSet confirms: rights can be narrowed by study and series UID, so that no search finds an
image set that is there. Where it is denied, the candidate stays, and is counted as unconfirmed. A
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

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import AccessDenied
from cohortlake.healthimaging import EPOCH, Axis, Datastore, HealthImaging, Window
from cohortlake.history import coverage, image_sets
from cohortlake.increments import kinds, writer
from cohortlake.ingest import partitions
from cohortlake.ingest.extract import Extractor, Found, Search
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_CALLS_AT_ONCE = 8  # to confirm what is gone; the bucket paces them
_ALWAYS_ACCEPTED = 10  # whatever share of a small partition that is
_NOBODY = "nobody"  # can tell whether a candidate is gone


@dataclass(frozen=True)
class Swept:
    """What a sweep brought.

    Attributes:
        found: What it found.
        missing: Candidates: held by the lake, not found by the sweep.
        absent: Those of them that are confirmed gone.
        refused: Confirmed, but not closed, because they are too many.
        unconfirmed: Not found by a second search either, and not closed, because GetImageSet is
            denied.
    """

    found: Found
    missing: int
    absent: int
    refused: int = 0
    unconfirmed: int = 0


@dataclass(frozen=True)
class Verdict:
    """What a second call says of image sets that a search did not find.

    Attributes:
        gone: Id of each that is gone -> the call that showed it.
        unconfirmed: Ids of those of which nobody can tell, because GetImageSet is denied.
    """

    gone: dict[str, str]
    unconfirmed: frozenset[str]


class Held:
    """What the lake holds of a data store, by study-date partition, read once for many sweeps.

    Use it as a context manager, from any thread.

    Args:
        root: The lake.
        store: The data store; only what was seen before its `now` counts.
    """

    def __init__(self, root: Root, store: Datastore) -> None:
        self._stack = contextlib.ExitStack()
        self._con = self._stack.enter_context(engine.connection())
        register_seen(self._con, root, store)
        self._con.execute("CREATE TABLE held AS FROM seen WHERE is_earlier")

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, partition: str) -> list[dict[str, Any]]:
        """Return the rows of the view `seen` that a partition holds."""
        with self._con.cursor() as cursor:
            own = cursor.sql(
                "FROM held WHERE partition = $partition", params={"partition": partition}
            )
            rows: list[dict[str, Any]] = own.to_arrow_table().to_pylist()
        return rows


def register_seen(con: duckdb.DuckDBPyConnection, root: Root, store: Datastore) -> None:
    """Make what the lake holds of a data store readable, with when it was last seen.

    Args:
        con: Gets the view `seen`: datastore_id, image_set_id, SeriesInstanceUID,
            StudyInstanceUID, partition (of the study date), is_earlier (known before the
            store's `now`) and last_seen_at.
        root: The lake.
        store: The data store.
    """
    image_sets.register(con, root)
    con.register("ledger", coverage.searched(root))
    con.execute(
        _SEEN.format(
            partition=partitions.of_row_sql(store),
            datastore_id=store.datastore_id,
            began=store.now.isoformat(),
        )
    )


# A sweep that missed nothing saw all that was known by then.
_SEEN = """
CREATE TEMP VIEW seen AS
WITH swept AS (
    SELECT "partition", run_id, max(searched_at) AS swept_at FROM ledger
    WHERE datastore_id = '{datastore_id}' AND axis IN ('study_date', 'created_at')
    GROUP BY "partition", run_id HAVING count(*) = count(*) FILTER (missing = 0)
), last_swept AS (
    SELECT "partition", max(swept_at) AS swept_at FROM swept GROUP BY "partition"
), held AS (
    SELECT datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID, observed_at,
           {partition} AS "partition"
    FROM current WHERE datastore_id = '{datastore_id}'
)
SELECT held.* EXCLUDE (observed_at), observed_at < TIMESTAMPTZ '{began}' AS is_earlier,
       greatest(observed_at, swept_at) AS last_seen_at
FROM held LEFT JOIN last_swept USING ("partition")
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
    verdict = confirmed(run, missing)
    gone, unconfirmed = verdict.gone, len(verdict.unconfirmed)
    refused = len(gone) if len(gone) > max(_ALWAYS_ACCEPTED, most * len(rows)) else 0
    left_open = refused + unconfirmed
    close(run, search, missing, {} if refused else gone, left_open)
    found = _recorded(run.root, found, left_open)
    return Swept(found, len(missing), len(gone) - refused, refused, unconfirmed)


def _recorded(root: Root, found: Found, left_open: int) -> Found:
    """Write what a sweep without news says of itself, now that it was compared."""
    if found.is_written:
        return found
    records = tuple(replace(record, missing=left_open) for record in found.records)
    for record in records:
        writer.write_empty(root, record)
    return replace(found, records=records, is_written=True)


def confirmed(run: Extractor, missing: Iterable[dict[str, Any]]) -> Verdict:
    """Ask a second time for image sets that a search did not find.

    Args:
        run: The client.
        missing: The candidates: datastore_id, image_set_id, SeriesInstanceUID, StudyInstanceUID.
    """
    ids = {c["image_set_id"]: c for c in missing}
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        calls = dict(zip(ids, pool.map(partial(_absence, run), ids.values()), strict=True))
    return Verdict(
        {i: call for i, call in calls.items() if call and call != _NOBODY},
        frozenset(i for i, call in calls.items() if call == _NOBODY),
    )


def close(
    run: Extractor,
    search: Search,
    missing: Iterable[dict[str, Any]],
    gone: Mapping[str, str],
    left_open: int = 0,
) -> None:
    """Write down which image sets are gone.

    Args:
        run: The client, and where to write.
        search: What did not find them.
        missing: The candidates, rows of the view `seen`.
        gone: See `Verdict`.
        left_open: How many it did not find and are not closed; written down too.
    """
    if gone or left_open:
        rows = [
            {**c, "confirmed_by": gone[c["image_set_id"]]}
            for c in missing
            if c["image_set_id"] in gone
        ]
        _write_absences(run, search, rows, left_open)


def _absence(run: Extractor, candidate: dict[str, Any]) -> str | None:
    """Return the call that shows that a candidate is gone, or None where it is not."""
    datastore_id, image_set_id = candidate["datastore_id"], candidate["image_set_id"]
    try:
        exists = run.service.has_image_set(datastore_id, image_set_id)
        return None if exists else "GetImageSet"
    except AccessDenied:
        if not is_not_found(run.service, candidate):
            return None
        return "SearchImageSets" if run.trusts_search else _NOBODY


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


def _write_absences(
    run: Extractor, search: Search, rows: list[dict[str, Any]], left_open: int
) -> None:
    datastore_id = search.store.datastore_id
    record = replace(
        search.record(run.run_id),
        axis=kinds.ABSENCE_AXIS,
        searched_at=run.service.datastore(datastore_id).now,  # when the last one was confirmed
        rows=len(rows),
        kept_rows=len(rows),
        missing=left_open or None,
    )
    gone = pa.Table.from_pylist(rows, kinds.ABSENCE_WITHOUT_RUN)
    writer.write_table(run.root, record, kinds.with_run_columns(gone, record))
