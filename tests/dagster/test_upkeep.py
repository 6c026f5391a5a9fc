"""The job that maintains the tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from endpoint import Endpoint

from cohortlake.history import maintenance

from .conftest import Run
from .store import image_set, published_ids

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_tables_are_maintained(
    endpoint: Endpoint, run: Run, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_FEWEST_SMALL_FILES", 2)
    endpoint.image_sets = [image_set(i, NOON) for i in range(3)]
    assert run("tick").success
    assert run("maintain").success
    assert list((lake / "image_sets" / "_delta_log").glob("*.checkpoint.parquet"))
    assert published_ids(lake) == {row["imageSetId"] for row in endpoint.image_sets}


def test_a_failure_names_its_remedy(run: Run, lake: Path) -> None:
    lake.write_text("no folder")
    result = run("maintain")
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert "COHORTLAKE_ROOT" in failure.step_failure_data.user_failure_data.description
