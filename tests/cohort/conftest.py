"""A hospital's lake, filled over HTTP, and small ones made of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import emulated, fill_lake

import cohortlake
from cohortlake import Lake


@pytest.fixture(scope="session")
def hospital_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("hospital") / "lake")
    with emulated(synthetic=900, seed=2, now="2026-06-01T12:00:00Z") as emulator:
        fill_lake(emulator, root)
    return root


@pytest.fixture
def hospital(hospital_root: str) -> Iterator[Lake]:
    with cohortlake.open(hospital_root) as lake:
        yield lake


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "lake")
