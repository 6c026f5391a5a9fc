"""The token bucket that all requests of this process share.

A reservation bucket: each caller takes the next free slot and sleeps until it comes, so
waiting threads are served in turn and none polls. Retries take a slot like any request.
The quota is the account's, and others may be using it: the pace falls when the service
throws a request back, and comes back little by little.
"""

from __future__ import annotations

import threading
import time

# One step down takes forty requests to win back: one in forty is thrown back at the most,
# for as long as the quota is less than the setting says.
_SLOWER = 1.5
_FASTER = 0.99
_SLOWEST = 64.0


class TokenBucket:
    """Hands out slots, evenly spaced.

    Args:
        rate: Slots per second, above 0: the fastest pace.
    """

    def __init__(self, rate: float) -> None:
        self._shortest = 1 / rate
        self._interval = self._shortest
        self._next = 0.0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Wait for the next slot."""
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + self._interval
            self._interval = max(self._shortest, self._interval * _FASTER)
        time.sleep(slot - now)

    def slow_down(self) -> None:
        """Take note that the service threw a request back."""
        with self._lock:
            self._interval = min(self._interval * _SLOWER, self._shortest * _SLOWEST)
