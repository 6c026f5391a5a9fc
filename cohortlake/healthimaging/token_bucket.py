"""The token bucket that all requests of this process share.

A reservation bucket: each caller takes the next free slot and sleeps until it comes, so
waiting threads are served in turn and none polls. Retries take a slot like any request.
A pause saves slots up to the burst, which may then be taken at once. The quota is the
account's, and others may be using it: the pace falls when the service throws a request
back, and comes back little by little.
"""

from __future__ import annotations

import threading
import time

from cohortlake.errors import SettingError
from cohortlake.stop import Stop

# One step down takes forty requests to win back: one in forty is thrown back at the most,
# for as long as the quota is less than the setting says.
_SLOWER = 1.5
_FASTER = 0.99
_SLOWEST = 64.0


class TokenBucket:
    """Hands out slots, evenly spaced.

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
            Stopped: Somebody asked to end.
        """
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now - self._saved * self._interval)
            self._next = slot + self._interval
            self._interval = max(self._shortest, self._interval * _FASTER)
        self._stop.wait(max(0.0, slot - now))

    def slow_down(self) -> None:
        """Take note that the service threw a request back."""
        with self._lock:
            self._interval = min(self._interval * _SLOWER, self._shortest * _SLOWEST)
            self._next = max(self._next, time.monotonic())  # and what was saved is gone

    def has_slack(self) -> bool:
        """Return whether slots go unused: more requests in flight would be faster."""
        with self._lock:
            return self._next <= time.monotonic()
