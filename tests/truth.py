"""What a lake holds and what the emulator does, in one shape, to compare."""

from __future__ import annotations

from cohortlake import read_table
from emulator import Emulator

State = tuple[int, int]


def published(root: str) -> dict[str, State]:
    """Image set -> version and updatedAt, of `published/`."""
    frame = read_table(root, "image_sets")
    assert not frame.duplicated(["datastore_id", "image_set_id"]).any()
    return {
        row.image_set_id: (row.version, round(row.updated_at.timestamp() * 1000))
        for row in frame.itertuples()
    }


def truth(emulator: Emulator) -> dict[str, State]:
    """The same, of the emulator's first data store."""
    return {
        row["imageSetId"]: (row["version"], round(row["updatedAt"] * 1000))
        for row in emulator.admin.truth()
    }
