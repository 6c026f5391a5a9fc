"""The token bucket that all requests of this process share.

Each caller reserves the next free slot and sleeps until it comes, so waiting threads are served in
order and none polls. Retries take a slot like any request. A pause saves slots up to the burst,
which may then be taken at once. The quota belongs to the account, and others may use it too: the
pace falls when the service throttles a request, and recovers slowly.
"""

from __future__ import annotations

import threading
import time

from cohortlake.errors import SettingError
from cohortlake.stop import Stop

# Forty requests win back one step down. So at most one request in forty is throttled while the
# quota is less than the setting.
_SLOWER = 1.5
_FASTER = 0.99
_SLOWEST = 64.0


class TokenBucket:
    """Gives out evenly spaced slots.

    Args:
        rate: Slots per second, above 0: the fastest pace.
        burst: How many may be taken at once after a pause, 1 or more.
        stop: Ends the waiting.

    Raises:
        SettingError: There would be no slots.
    """

    def __init__(self, rate: float, burst: float = 1, stop: Stop | None = None) -> None:
        if rate <= 0 or burst < 1:
            raise SettingError(
                f"{rate:g} requests a second with bursts of {burst:g} are none at all; set "
                "COHORTLAKE_TPS above 0 and COHORTLAKE_BURST to 1 or more"
            )
        self._shortest = 1 / rate
        self._interval = self._shortest
        self._saved = burst - 1
        self._next = time.monotonic() - self._saved * self._interval
        self._lock = threading.Lock()
        self._stop = stop or Stop()

    def acquire(self) -> None:
        """Wait for the next slot.

        Raises:
            Stopped: A stop was asked for.
        """
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now - self._saved * self._interval)
            self._next = slot + self._interval
            self._interval = max(self._shortest, self._interval * _FASTER)
        self._stop.wait(max(0.0, slot - now))

    def slow_down(self) -> None:
        """Record that the service throttled a request."""
        with self._lock:
            self._interval = min(self._interval * _SLOWER, self._shortest * _SLOWEST)
            self._next = max(self._next, time.monotonic())  # the saved slots are lost

    def has_slack(self) -> bool:
        """Return whether slots are unused: more requests in flight would be faster."""
        with self._lock:
            return self._next <= time.monotonic()
