"""The emulator and the credentials for it, for fixtures that outlast a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cohortlake import Settings, Sync
from emulator import Emulator, running


@contextmanager
def emulated(**options: Any) -> Iterator[Emulator]:
    """Serve a hospital, of the emulator's options, to all clients made within the block."""
    with pytest.MonkeyPatch.context() as patch, running(**options) as emulator:
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
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
