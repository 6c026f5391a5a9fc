"""The emulator's clock: simulated time with a chosen start, which can be moved forward.

Every timestamp that the emulator writes, and its `Date` header, come from this clock. Latency and
quota use real time, see `service.faults`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Simulated time in milliseconds since the epoch. It never goes back.

    Args:
        start_ms: The start of the clock; the real time if `None`.
        stopped: A stopped clock moves only by `advance` and `move_to`, so runs can be repeated.
    """

    def __init__(self, start_ms: int | None = None, *, stopped: bool = False) -> None:
        self.stopped = stopped
        self._base_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
        self._started_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """Returns the simulated time in milliseconds since the epoch."""
        if self.stopped:
            return self._base_ms
        return self._base_ms + (time.monotonic_ns() - self._started_ns) // 1_000_000

    def now(self) -> datetime:
        """Returns the simulated time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.now_ms() / 1000, UTC)

    def advance(self, milliseconds: int) -> int:
        """Moves the clock forward and returns the new time.

        Raises:
            ValueError: If `milliseconds` is negative. The clock of a service never goes back.
        """
        if milliseconds < 0:
            raise ValueError("the clock only moves forward; advance by zero or more")
        self._base_ms += milliseconds
        return self.now_ms()

    def move_to(self, moment_ms: int) -> int:
        """Moves the clock forward to a moment, unless that is past; returns the new time."""
        return self.advance(max(0, moment_ms - self.now_ms()))
