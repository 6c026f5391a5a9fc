"""The token bucket that all requests of this process share.

A reservation bucket: each caller takes the next free slot and sleeps until it comes, so
waiting threads are served in turn and none polls. Retries take a slot like any request.
"""

from __future__ import annotations

import threading
import time


class TokenBucket:
    """Hands out `rate` slots a second, evenly spaced.

    Args:
        rate: Slots per second, above 0.
    """

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._next = 0.0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Wait for the next slot."""
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + self._interval
        time.sleep(slot - now)
