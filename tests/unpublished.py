"""Runs that publish nothing, and what they found, read from the version history.

Publishing is half the time of a run. A test of what a search finds needs it once at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from endpoint import Endpoint

from cohortlake import Sync
from cohortlake.history import image_sets
from cohortlake.storage import engine
from cohortlake.storage.root import Root


@contextmanager
def unpublished() -> Iterator[None]:
    """Let all runs within the block search and apply, and publish nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sync, "publish", lambda *_, **__: None)
        yield


def assert_history_equals_truth(root: str, endpoint: Endpoint) -> None:
    """Compare the current states of the history with the endpoint's own list, row by row."""
    columns = "image_set_id, version, epoch_ms(updated_at), Modality"
    with engine.connection() as con:
        image_sets.register(con, Root(root))
        current = con.sql(f"SELECT {columns} FROM current ORDER BY ALL").fetchall()
    assert current == sorted(
        (
            row["imageSetId"],
            row["version"],
            round(row["updatedAt"] * 1000),
            row["DICOMTags"].get("DICOMSeriesModality"),
        )
        for row in endpoint.image_sets
    )
