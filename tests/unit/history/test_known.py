"""What the lake knows, asked many times a run."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cohortlake.history.image_sets import KnownStates
from cohortlake.storage.root import Root


def _known(path: Path, keys: list[int] | np.ndarray) -> KnownStates:
    known = KnownStates(Root(str(path)))
    known._state_keys = np.array(keys, np.int64)
    return known


@pytest.mark.parametrize("keys", [[], [-5], [0], [-5, 7], [1, 2, 2**63 - 1]])
def test_lacks_exactly_what_is_not_there(keys: list[int], tmp_path: Path) -> None:
    asked = [-(2**63), -6, -5, 0, 1, 2, 7, 8, 2**63 - 1]
    lacks = _known(tmp_path, keys).lacks(np.array(asked, np.int64))
    assert lacks.tolist() == [key not in keys for key in asked]


def test_a_question_copies_no_keys(tmp_path: Path) -> None:
    known, asked = _known(tmp_path, np.arange(1_000_000)), np.arange(50)
    tracemalloc.start()
    try:
        assert not known.lacks(asked).any()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
