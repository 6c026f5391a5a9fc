"""A browser, a hospital's lake and small ones, and their reports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

import cohortlake
from cohortlake import Lake, Settings, Sync
from emulator import running

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
    with pytest.MonkeyPatch.context() as patch, running(synthetic=2500, seed=2) as emulator:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        sync = Sync(Settings(emulator.datastores, root, tps=500, workers=8))
        sync.run()
        emulator.admin.live(21, seed=1)
        sync.run()
    return root


@pytest.fixture
def hospital(hospital_root: str) -> Iterator[Lake]:
    with cohortlake.open(hospital_root) as lake:
        yield lake


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")
