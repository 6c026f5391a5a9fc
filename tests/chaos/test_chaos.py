"""The short form of `make chaos`: two short storms."""

from __future__ import annotations

import importlib
from operator import attrgetter
from pathlib import Path

import pytest

from chaos.steps import SMALL, STEPS
from chaos.storm import run_storm


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.chaos)])
def test_after_a_storm_the_lake_equals_the_data_store(seed: int, tmp_path: Path) -> None:
    result = run_storm(seed, tmp_path, kills=3)
    assert result.differences == []
    assert result.kills.total() >= 3
    assert result.faults.total() > 0, "no fault was injected"


@pytest.mark.parametrize("target", [*(step.target for step in STEPS), *SMALL])
def test_each_step_is_a_function_of_the_library(target: str) -> None:
    module, _, attribute = target.partition(":")
    assert attrgetter(attribute)(importlib.import_module(module)) is not None
