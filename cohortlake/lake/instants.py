"""Instants as people give them: an aware datetime, a date, or ISO text of either."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

from cohortlake.errors import InstantError

Instant = datetime | date | str

_EXAMPLES = "2026-06-01T12:00:00+00:00 is an instant, and 2026-06-01 stands for its midnight UTC"


def instant(given: Instant) -> datetime:
    """Return an instant in UTC; a date stands for the midnight at which it begins.

    Raises:
        InstantError: It has no time zone, or is no instant at all.
    """
    value: object = _parsed(given) if isinstance(given, str) else given
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InstantError(f"{given!s} has no time zone; {_EXAMPLES}")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise InstantError(f"{given!r} is no instant; {_EXAMPLES}")


def is_instant(text: str) -> bool:
    """Return whether a text can be read as a date or a datetime, with or without a zone."""
    return _parsed(text) is not None


def _parsed(text: str) -> datetime | date | None:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        try:
            return parse(text)
        except ValueError:
            continue
    return None
