"""The catalogue: invented names, examinations and unusual values for synthetic data.

It reads `catalogue.json` into tables that values can be drawn from. All names are invented. Some
values are not ASCII or not valid on purpose. See `hospital` for how often they are drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import accumulate
from random import Random
from typing import Any

ABSENT = "absent"


@dataclass(frozen=True)
class Weighted:
    """Values that are drawn with different weights. `None` means an absent tag."""

    values: tuple[str | None, ...]
    cumulative: tuple[int, ...]

    def draw(self, chance: Random) -> str | None:
        """Draws one value."""
        return chance.choices(self.values, cum_weights=self.cumulative)[0]


@dataclass(frozen=True)
class Examination:
    """An examination: one body part, with one modality."""

    modality: str
    body_part: str
    description: str
    fewest_instances: int
    most_instances: int


@dataclass(frozen=True)
class Catalogue:
    """All values that synthetic data is drawn from."""

    family: tuple[str, ...]
    given: tuple[str, ...]
    worldwide: tuple[str, ...]
    sexes: Weighted
    birth_dates: Weighted
    study_dates: Weighted
    study_times: Weighted
    examinations: tuple[Examination, ...]
    examination_weights: tuple[int, ...]


@cache
def catalogue() -> Catalogue:
    """Returns the catalogue. The file is read once."""
    raw: dict[str, Any] = json.loads(files("emulator.data").joinpath("catalogue.json").read_bytes())
    examinations, weights = [], []
    for modality in raw["modalities"]:
        chosen = [(part, text) for part, texts in modality["parts"].items() for text in texts]
        for part, text in chosen:
            examinations.append(Examination(modality["name"], part, text, *modality["instances"]))
            weights.append(60 * modality["weight"] // len(chosen))
    return Catalogue(
        family=tuple(raw["family"]),
        given=tuple(raw["given"]),
        worldwide=tuple(raw["worldwide"]),
        sexes=_weighted(raw["sexes"]),
        birth_dates=_weighted(raw["birth_dates"]),
        study_dates=_weighted(raw["study_dates"]),
        study_times=_weighted(raw["study_times"]),
        examinations=tuple(examinations),
        examination_weights=tuple(accumulate(weights)),
    )


def _weighted(raw: dict[str, int]) -> Weighted:
    values = tuple(None if value == ABSENT else value for value in raw)
    return Weighted(values, tuple(accumulate(raw.values())))
