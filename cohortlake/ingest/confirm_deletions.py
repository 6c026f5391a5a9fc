"""Deletions that events announce: which of these image sets the lake holds, and which are deleted.

An event alone closes nothing. Like a sweep, it takes a search that does not find the image set and
a second call that confirms it (see `ingest.absences`). The search matters even where GetImageSet
is sure: while the search index still has a deleted image set, the next tick would find it and take
it for one that came back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cohortlake.healthimaging import EPOCH, Axis, Window
from cohortlake.ingest.absences import confirm_absences, is_not_found, write_absences
from cohortlake.ingest.held_index import HeldIndex
from cohortlake.ingest.partition_search import PartitionSearch, SearchRun

_EVENTS = "events"


@dataclass(frozen=True)
class DeletionResult:
    """What became of image sets that events say are deleted.

    An image set in none of the three is not in the lake.

    Attributes:
        gone: Ids of those that are closed now.
        unsettled: Ids of those that the service does not confirm, or not yet.
        unconfirmed: Ids of those in `unsettled` that no search finds, where GetImageSet is denied.
    """

    gone: frozenset[str] = frozenset()
    unsettled: frozenset[str] = frozenset()
    unconfirmed: frozenset[str] = frozenset()


def confirm_deletions(run: SearchRun, image_set_ids: Iterable[str]) -> DeletionResult:
    """Close those of some image sets that are deleted.

    Args:
        run: The client, and where to write. Only what the lake saw before the run began can be
            deleted after it.
        image_set_ids: The image sets that events say are deleted.

    Raises:
        ServiceError: See `errors`. Nothing was written.
    """
    ids = set(image_set_ids)
    if not ids:
        return DeletionResult()
    held = HeldIndex(run.root, run.store).of_image_sets(ids).to_pylist()
    missing = [row for row in held if row["is_earlier"] and is_not_found(run.service, row)]
    search = PartitionSearch(_EVENTS, Window(Axis.CREATED_AT, EPOCH, run.store.now))
    confirmation = confirm_absences(run, missing)
    write_absences(run, search, missing, confirmation.gone)
    gone = frozenset(confirmation.gone)
    unsettled = frozenset(row["image_set_id"] for row in held) - gone
    return DeletionResult(gone, unsettled, confirmation.unconfirmed)
