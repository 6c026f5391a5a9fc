"""How many examples a slow law gets: few in `make test`, all in `make laws` and `make chaos`."""

from __future__ import annotations

from hypothesis import settings


def examples(thorough: int, quick: int) -> int:
    """Return the number of examples for the profile that is loaded."""
    return thorough if settings.get_current_profile_name() == "thorough" else quick
