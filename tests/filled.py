"""Lakes that are filled once, and of which each test that changes one gets a copy."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from endpoint import DATASTORE, Endpoint, serving

from cohortlake import Settings, Sync
from cohortlake.ingest import partitions

FIRST_DAY, FIRST_MONTH = date(2026, 1, 1), date(2025, 1, 1)
"""Where the partitions of the endpoint begin: it is created on that day, and its studies are
younger. A sweep of all months that the library knows takes seconds."""


@dataclass(frozen=True)
class FilledLake:
    """A lake and the state of the data store that it was filled from."""

    root: Path
    image_sets: list[dict[str, Any]]
    now: datetime

    def copy_to(self, root: str, endpoint: Endpoint) -> None:
        """Copy the lake, and let an endpoint hold what the first one held."""
        shutil.copytree(self.root, root)
        endpoint.image_sets = copy.deepcopy(self.image_sets)
        endpoint.now = self.now


def filled(
    folder: Path,
    fill: Callable[[Endpoint, Sync], None],
    first_day: date = FIRST_DAY,
    first_month: date = FIRST_MONTH,
) -> FilledLake:
    """Fill a lake in an empty folder, for fixtures that outlast a test.

    Args:
        folder: Where the lake is written.
        fill: Gives the endpoint its image sets, and runs what fills the lake.
        first_day: The first partition of `updatedAt`.
        first_month: The first partition of the study date.
    """
    settings = Settings((DATASTORE,), f"{folder}/lake", tps=1000, workers=8, privacy="limited")
    with pytest.MonkeyPatch.context() as patch, serving() as endpoint:
        patch.setattr(partitions, "FIRST_DAY", first_day)
        patch.setattr(partitions, "FIRST_MONTH", first_month)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", endpoint.url)
        fill(endpoint, Sync(settings))
        return FilledLake(Path(settings.root), endpoint.image_sets, endpoint.now)
