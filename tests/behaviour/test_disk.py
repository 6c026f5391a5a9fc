"""What is said when the disk is full, and that nothing is lost by it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from endpoint import Endpoint

from cohortlake import Settings, Sync, read_table
from cohortlake.errors import RootNotUsable


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond a size fail in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stage", ["extract", "apply", "publish"])
def test_a_full_disk_is_explained_and_healed(
    endpoint: Endpoint, lake_settings: Settings, stage: str
) -> None:
    for number in range(2):  # tables are made, and then added to
        at = endpoint.now.timestamp() - 3600
        endpoint.image_sets.append(
            {"imageSetId": f"{number:032x}", "version": 1, "createdAt": at, "updatedAt": at,
             "DICOMTags": {}}
        )  # fmt: skip
        _run_with_a_full_disk_at(stage, Sync(lake_settings))
        endpoint.now += timedelta(days=1)
    ids = read_table(lake_settings.root, "image_sets")["image_set_id"]
    assert sorted(ids) == [row["imageSetId"] for row in endpoint.image_sets]
    assert not [name for name in _files(Path(lake_settings.root)) if name.endswith(".tmp")]


def _run_with_a_full_disk_at(stage: str, work: Sync) -> None:
    store = work.datastore(work.settings.datastores[0])
    stages = {
        "extract": lambda: list(work.extract(store, work.due(store))),
        "apply": work.apply,
        "publish": work.publish,
    }
    for name, run in stages.items():
        if name == stage:
            with _files_no_larger_than(1500), pytest.raises(RootNotUsable, match="File too large"):
                run()
        run()
