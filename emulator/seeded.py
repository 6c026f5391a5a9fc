"""Seeded random numbers: the only source of random numbers in the emulator.

All random choices use a generator from this module, so that the same seed gives the same run. The
numbers are predictable, so do not use them for secrets.
"""

from __future__ import annotations

import random
import zlib
from hashlib import sha256


def generator(*seeds: object) -> random.Random:
    """Returns a generator whose numbers depend only on the seeds."""
    return random.Random("/".join(map(str, seeds)))  # noqa: S311 - repeatable data, no secret


def identifier(*parts: object) -> str:
    """Returns a HealthImaging identifier, 32 characters of [0-9a-z], made from its parts."""
    return sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def fraction(*parts: object) -> float:
    """Returns a number from 0 to less than 1 made from its parts, faster than a generator."""
    return zlib.crc32("/".join(map(str, parts)).encode()) / 2**32
