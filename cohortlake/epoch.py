"""Instants as the service sends them: epoch seconds, or text or a datetime in their place.

Paging asks here in which window a row lies (`healthimaging.ranges`), and the table what its
columns say (`flatten.table`): both must read a value alike, or one of two neighbouring
windows is thought to have a row that the other has. Instants that people give are
`instants`'.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

# Year 1 to year 9999, as Python's datetime has them.
_MIN_EPOCH_SECONDS, _MAX_EPOCH_SECONDS = -62_135_596_800.0, 253_402_300_799.0


def epoch_seconds(value: object) -> float | None:
    """Return an instant as epoch seconds, or None for what is none.

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
    """Return whether epoch seconds lie in the years that there are columns for."""
    return _MIN_EPOCH_SECONDS <= seconds <= _MAX_EPOCH_SECONDS
