"""Reads instants as people give them: a datetime, a date, or ISO text of either, in UTC."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, time
from typing import Any

from cohortlake.errors import InstantError

Instant = datetime | date | str


def instant(given: Instant) -> datetime:
    """Return an instant. A date means the midnight at which it begins.

    Raises:
        InstantError: The value is not an instant.
    """
    value = _parsed(given) if isinstance(given, str) else _plain(given)
    if value is None:
        raise InstantError(
            f"{given!r} is no instant; give a date like 2026-06-01, which stands for its midnight "
            "UTC, or a time like 2026-06-01T12:00:00"
        )
    if not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _plain(given: Any) -> date | None:
    """Return a date or a datetime of Python, pandas or NumPy; None where it is neither."""
    if type(given).__name__ == "datetime64":
        given = given.astype("datetime64[us]").item()
    # pandas.NaT is a datetime, too. It is the one that differs from itself.
    return given if isinstance(given, date) and given == given else None


def is_instant(text: str) -> bool:
    """Return whether a text can be read as a date or a datetime."""
    return _parsed(text) is not None


def _parsed(text: str) -> datetime | None:
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text)
    return None
