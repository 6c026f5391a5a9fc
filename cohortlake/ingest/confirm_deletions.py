"""Deletions that events told of: what of it the lake holds, and what of that is gone.

An event alone closes nothing. It takes what it takes after a sweep: a search that does not
find the image set, and a second call that confirms it (`ingest.sweep`). The search matters
even where GetImageSet is sure: while the index still shows an image set that is gone, the
next tick would find it, and take it for one that came back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window
from cohortlake.ingest.extract import Extractor, Search
from cohortlake.ingest.sweep import close, confirmed, is_not_found, register_seen
from cohortlake.storage import engine

_EVENTS = "events"


@dataclass(frozen=True)
class Confirmed:
    """What became of deletions that events told of. The lake holds none of all others.

    Attributes:
        gone: Ids of those that are closed now.
        unsettled: Ids of those that the service does not say are gone, or not yet.
        unconfirmed: Ids of those of them that no search finds, and of which nobody can tell
            because GetImageSet is denied.
    """

    gone: frozenset[str]
    unsettled: frozenset[str]
    unconfirmed: frozenset[str]

    @classmethod
    def of_nothing(cls) -> Confirmed:
        """Return what there is to say where no deletion was told of."""
        return cls(frozenset(), frozenset(), frozenset())


def confirm(run: Extractor, store: Datastore, image_set_ids: Iterable[str]) -> Confirmed:
    """Close which of some image sets of a data store are gone.

    Args:
        run: The client, and where to write.
        store: The data store; only what the lake saw before its `now` can be gone after it.
        image_set_ids: What events said was deleted.

    Raises:
        ServiceError: See `errors`. Nothing was written.
    """
    held = _held(run, store, image_set_ids)
    missing = [c for c in held if c["is_earlier"] and is_not_found(run.service, c)]
    window = Window(Axis.CREATED_AT, EPOCH, store.now)
    verdict = confirmed(run, missing)
    close(run, Search(store, _EVENTS, window), missing, verdict.gone)
    ids = frozenset(verdict.gone)
    unsettled = frozenset(c["image_set_id"] for c in held) - ids
    return Confirmed(ids, unsettled, verdict.unconfirmed)


def _held(run: Extractor, store: Datastore, image_set_ids: Iterable[str]) -> list[dict[str, Any]]:
    with engine.connection() as con:
        register_seen(con, run.root, store)
        con.register("told", pa.table({"image_set_id": pa.array(image_set_ids, pa.string())}))
        held = con.sql("FROM seen SEMI JOIN told USING (image_set_id)")
        rows: list[dict[str, Any]] = held.to_arrow_table().to_pylist()
    return rows
