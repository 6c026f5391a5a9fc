"""Absences: image sets that a search did not find, confirmed by a second call, and written down.

Only GetImageSet confirms that an image set is deleted. Rights can be limited to some studies and
series, so a search may not return an image set that exists. Where GetImageSet is denied, the image
set stays in the lake and counts as unconfirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cohortlake.errors import AccessDenied
from cohortlake.healthimaging import HealthImaging
from cohortlake.increments import kinds, writer
from cohortlake.ingest.partition_search import PartitionSearch, SearchRun

Candidate = Mapping[str, Any]
"""An image set that may be deleted. See `ingest.held_index.HeldIndex.in_partition`."""

_CALLS_AT_ONCE = 8  # the request rate is limited by the client
_UNCONFIRMED = "unconfirmed"  # neither call can show whether a candidate is deleted


@dataclass(frozen=True)
class Confirmation:
    """What the second call shows about image sets that a search did not find.

    Attributes:
        gone: Id of each deleted image set -> the call that showed it.
        unconfirmed: Ids for which nothing can show it, because GetImageSet is denied.
    """

    gone: dict[str, str]
    unconfirmed: frozenset[str]


def confirm_absences(run: SearchRun, missing: Iterable[Candidate]) -> Confirmation:
    """Ask a second time for image sets that a search did not find.

    Args:
        run: The client.
        missing: The candidates.

    Raises:
        ServiceError: A candidate could not be asked for.
    """
    candidates = {c["image_set_id"]: c for c in missing}
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        answers = pool.map(partial(_call_that_shows_absence, run), candidates.values())
        calls = dict(zip(candidates, answers, strict=True))
    return Confirmation(
        {i: call for i, call in calls.items() if call and call != _UNCONFIRMED},
        frozenset(i for i, call in calls.items() if call == _UNCONFIRMED),
    )


def write_absences(
    run: SearchRun,
    search: PartitionSearch,
    missing: Iterable[Candidate],
    gone: Mapping[str, str],
    left_open: int = 0,
) -> None:
    """Write the increment that says which image sets are deleted, if there is anything to say.

    Args:
        run: The client, and where to write.
        search: The search that did not find them.
        missing: The candidates.
        gone: See `Confirmation`.
        left_open: How many image sets the search did not find and the lake keeps.
    """
    if not gone and not left_open:
        return
    rows = [
        {**c, "confirmed_by": gone[c["image_set_id"]]} for c in missing if c["image_set_id"] in gone
    ]
    record = replace(
        search.record(run),
        axis=kinds.ABSENCE_AXIS,
        # When the last one was confirmed.
        searched_at=run.service.datastore(run.store.datastore_id).now,
        rows=len(rows),
        kept_rows=len(rows),
        missing=left_open or None,
    )
    table = pa.Table.from_pylist(rows, kinds.ABSENCE_WITHOUT_RUN)
    writer.write_table(run.root, record, kinds.with_run_columns(table, record))


def is_not_found(service: HealthImaging, candidate: Candidate) -> bool:
    """Return whether a search by series or study UID does not find a candidate.

    A candidate without either UID cannot be searched: it counts as found.
    """
    for column in ("SeriesInstanceUID", "StudyInstanceUID"):
        if candidate[column]:
            value = {f"DICOM{column}": candidate[column]}
            criteria = {"filters": [{"operator": "EQUAL", "values": [value]}]}
            ids = _found_ids(service, candidate["datastore_id"], criteria)
            return candidate["image_set_id"] not in ids
    return False


def _call_that_shows_absence(run: SearchRun, candidate: Candidate) -> str | None:
    """Return the call that shows that a candidate is deleted, or None where it is not."""
    try:
        exists = run.service.has_image_set(candidate["datastore_id"], candidate["image_set_id"])
    except AccessDenied:
        if not is_not_found(run.service, candidate):
            return None
        return "SearchImageSets" if run.trusts_search else _UNCONFIRMED
    return None if exists else "GetImageSet"


def _found_ids(
    service: HealthImaging, datastore_id: str, criteria: dict[str, Any]
) -> Iterator[str]:
    token = None
    while True:
        page = service.search_page(datastore_id, criteria, token)
        yield from (head.image_set_id for head in page.heads)
        token = page.next_token
        if token is None:
            return
