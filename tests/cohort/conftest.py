"""A hospital's lake, filled over HTTP, and small ones made of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cohortlake
from cohortlake import Lake, Settings, Sync
from emulator import running


@pytest.fixture(scope="session")
def hospital_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("hospital") / "lake")
    with pytest.MonkeyPatch.context() as patch, running(synthetic=1500, seed=2) as emulator:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        Sync(Settings(emulator.datastores, root, tps=500, workers=8, privacy="limited")).run()
    return root


@pytest.fixture
def hospital(hospital_root: str) -> Iterator[Lake]:
    with cohortlake.open(hospital_root) as lake:
        yield lake


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")
