"""The emulator's clock: simulated time that starts where it is told and can be moved on.

It owns what "now" is for every timestamp the emulator writes and for its `Date` header. How long a
request takes and how fast requests may come are real time and do not belong here.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Simulated time in milliseconds since the epoch, never going back.

    Args:
        start_ms: Where the clock starts; the real time when `None`.
        stopped: A stopped clock moves only when it is told to, which makes whole runs repeatable.
    """

    def __init__(self, start_ms: int | None = None, *, stopped: bool = False) -> None:
        self.stopped = stopped
        self._base_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
        self._started_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """The simulated time in milliseconds since the epoch."""
        if self.stopped:
            return self._base_ms
        return self._base_ms + (time.monotonic_ns() - self._started_ns) // 1_000_000

    def now(self) -> datetime:
        """The simulated time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.now_ms() / 1000, UTC)

    def advance(self, milliseconds: int) -> int:
        """Moves the clock on and returns its new time.

        Raises:
            ValueError: If `milliseconds` is negative; a service's clock does not go back.
        """
        if milliseconds < 0:
            raise ValueError("the clock only moves forward; advance by zero or more")
        self._base_ms += milliseconds
        return self.now_ms()

    def move_to(self, moment_ms: int) -> int:
        """Moves the clock on to a moment, if that still lies ahead, and returns its new time."""
        return self.advance(max(0, moment_ms - self.now_ms()))
