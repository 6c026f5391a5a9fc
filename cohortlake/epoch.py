"""Reads instants as the service sends them: epoch seconds, or a text or datetime instead.

Paging decides with it in which window a row lies (`healthimaging.ranges`), and `flatten.table`
fills columns with it. Both must read a value alike, or a row could be lost between two windows. See
`instants` for instants that people give.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

# Year 1 to year 9999, as Python's datetime has them.
_MIN_EPOCH_SECONDS, _MAX_EPOCH_SECONDS = -62_135_596_800.0, 253_402_300_799.0


def epoch_seconds(value: object) -> float | None:
    """Return an instant as epoch seconds, or None for a value that is not an instant.

    Args:
        value: A number of seconds, ISO 8601 text or a datetime; without an offset in UTC.
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if is_instant(value) else None


def is_instant(seconds: float) -> bool:
    """Return whether epoch seconds lie in the years that a column can hold."""
    return _MIN_EPOCH_SECONDS <= seconds <= _MAX_EPOCH_SECONDS
