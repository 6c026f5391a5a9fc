"""The short form: two storms, of the kind that `make chaos` lets pass by the dozen."""

from __future__ import annotations

import importlib
from operator import attrgetter
from pathlib import Path

import pytest

from chaos.steps import SMALL, STEPS
from chaos.storm import storm


@pytest.mark.parametrize("seed", [1, 2])
def test_after_a_storm_the_lake_equals_the_data_store(seed: int, tmp_path: Path) -> None:
    account = storm(seed, tmp_path, kills=3)
    assert account.differences == []
    assert account.kills.total() >= 3
    assert account.faults.total() > 0, "it was no storm"


@pytest.mark.parametrize("target", [*(step.target for step in STEPS), *SMALL])
def test_each_step_is_a_function_of_the_library(target: str) -> None:
    module, _, attribute = target.partition(":")
    assert attrgetter(attribute)(importlib.import_module(module)) is not None
