"""The three policies, as an allow-list over what schema.py says of each column.

- `safe`: what identifies directly stays out, and so do birth dates and free text.
- `limited`: birth dates are in, as in a limited data set (45 CFR 164.514(e)); names, ids
  and free text are not.
- `identified`: everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from cohortlake.schema import Column, Identifies

_SAFE = frozenset({Identifies.NO, Identifies.INDIRECTLY})
_SHOWN = {
    "safe": _SAFE,
    "limited": _SAFE | {Identifies.BIRTH_DATE},
    "identified": frozenset(Identifies),
}


def visible(columns: Iterable[Column], policy: str) -> tuple[Column, ...]:
    """Return those of some columns that a policy shows, in their order."""
    shown = _SHOWN[policy]
    return tuple(column for column in columns if column.identifies in shown)
