"""A browser, a hospital's lake and small ones, and their reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import emulated, fill_lake
from playwright.sync_api import Browser, sync_playwright

import cohortlake
from cohortlake import Lake

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for the session: as long as it is open Playwright's event loop runs in this thread, and
    # Dagster's tests need one of their own.
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed: run scripts/chromium.sh as root")
    with sync_playwright() as playwright:
        # In a container root has no sandbox; what it opens is our own file.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def hospital_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("reported") / "hospital")
    # At a time of day by which something happened: a day without news is not on the ledger yet.
    noon = {"now": "2026-03-01T12:00:00Z", "clock": "stopped"}
    with emulated(synthetic=2500, seed=2, **noon) as emulator:
        fill_lake(emulator, root, days=21, privacy="safe")
    return root


@pytest.fixture
def hospital(hospital_root: str) -> Iterator[Lake]:
    with cohortlake.open(hospital_root) as lake:
        yield lake


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")
