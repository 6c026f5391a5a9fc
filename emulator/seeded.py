"""Seeded chance: the one place where the emulator's random numbers come from.

Everything random in the emulator is drawn from a generator made here, so that a seed repeats a run.
Nothing secret may be drawn from it.
"""

from __future__ import annotations

import random
from hashlib import sha256


def generator(*seeds: object) -> random.Random:
    """A generator whose numbers depend on the seeds given and on nothing else."""
    return random.Random("/".join(map(str, seeds)))  # noqa: S311 - repeatable data, no secret


def identifier(*parts: object) -> str:
    """A HealthImaging identifier, 32 characters of [0-9a-z], that follows from its parts."""
    return sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]
