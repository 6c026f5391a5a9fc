"""The emulator and the credentials for it, for fixtures that outlast a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from cohortlake import Settings, Sync
from cohortlake.ingest import partitions
from emulator import Emulator, running
from emulator.data import history, hospital


@contextmanager
def emulated(
    *,
    first_day: date | None = None,
    first_month: date | None = None,
    imported_years: float = 0.7,
    archive_years: float = 0.3,
    **options: Any,
) -> Iterator[Emulator]:
    """Serve a hospital to all clients made within the block.

    A first sync writes a file for each day since the service began, and a sweep asks for each month
    since 1990, which takes seconds. So within the block the partitions begin shortly before today:
    the first day holds all earlier changes, and `undated` all earlier studies. Each month with a
    study is four published files, which every query reads: so there are fewer months too.

    Args:
        first_day: The first partition of `updatedAt`; by default a week before today.
        first_month: The first partition of the study date; by default last year's January.
        imported_years: For how long studies have been imported.
        archive_years: How old the studies of an old archive are at most when they are imported.
        **options: The emulator's.
    """
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(history, "HISTORY_MS", round(imported_years * 365 * hospital.DAY_MS))
        patch.setattr(hospital, "ARCHIVE_YEARS", archive_years)
        emulator = stack.enter_context(running(**options))
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        today = datetime.fromtimestamp(emulator.admin.clock()["epochSeconds"], UTC).date()
        patch.setattr(partitions, "FIRST_DAY", first_day or today - timedelta(days=7))
        patch.setattr(partitions, "FIRST_MONTH", first_month or date(today.year - 1, 1, 1))
        yield emulator


def fill_lake(emulator: Emulator, root: object, *, days: int = 0, **settings: Any) -> Sync:
    """Fill a lake, let the hospital live so many days, and bring the lake up to date."""
    given = {"tps": 500, "workers": 8, "privacy": "limited"} | settings
    sync = Sync(Settings(emulator.datastores, str(root), **given))
    sync.run()
    if days:
        emulator.admin.live(days, seed=1)
        sync.run()
    return sync
