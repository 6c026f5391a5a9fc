"""Sharing: a search is split between workers while it is being paged.

No call says how many rows a window holds. So each worker follows a chain of pages, and
whenever another is idle while slots of the quota go unused, the chain with the most rows
left to come gives some of them away. What is given away may turn out to be empty, which
costs a request: such requests are counted, and kept to a share of all.

How a chain is cut is `healthimaging.ranges`'.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cohortlake.healthimaging.ranges import Chain, Range, SoFar
from cohortlake.healthimaging.windows import Axis, Window

# Chains that brought nothing may be one in so many pages; the first few are free, so that a
# burst in a small window is found too.
_PAGES_PER_VAIN_CHAIN = 150
_FREE_VAIN_CHAINS = 8


class Sharing:
    """What is to be paged, for workers to take from until all of it is done.

    Attributes:
        is_stopped: Whether nothing is handed out any more.

    Args:
        windows: Where to begin.
        now: When the search began; what was created later does not matter.
        has_slack: Tells whether more requests in flight would be faster.
        origin: The first instant that can hold rows; windows may begin before it.
    """

    def __init__(
        self,
        windows: Iterable[Window],
        now: datetime,
        has_slack: Callable[[], bool],
        origin: datetime,
    ) -> None:
        self._waiting = [Chain(Range(window)) for window in reversed(list(windows))]
        self._active: list[Chain] = []
        self._has_slack = has_slack
        self._slices_until: datetime | None = now
        self._origin = origin
        self._whole = self._remaining() or timedelta(1)
        self._pages = self._rows = self._vain = 0
        self._changed = threading.Condition()
        self.is_stopped = False

    def take(self) -> Chain | None:
        """Return a chain to follow; wait while others may still share theirs.

        Returns:
            The chain, or None once nothing is left to do.
        """
        with self._changed:
            while not self.is_stopped:
                taken = self._waiting.pop() if self._waiting else self._shared()
                if taken is not None:
                    self._active.append(taken)
                    return taken
                if not self._active:
                    break
                self._changed.wait()
            return None

    def paged(self, new_rows: int) -> None:
        """Say that a page has come: somebody's chain may be worth sharing now."""
        with self._changed:
            self._pages += 1
            self._rows += new_rows
            self._changed.notify()

    def done(self, finished: Chain) -> bool:
        """Say that a chain is done.

        Returns:
            Whether its range is done with it.
        """
        with self._changed:
            self._active.remove(finished)
            self._vain += not finished.new_rows
            finished.part.chains -= 1
            self._changed.notify_all()
            return not finished.part.chains

    def refused(self, chain: Chain) -> bool:
        """Say that the service refused the criteria of a chain, which is done then.

        Returns:
            Whether the search goes on without it.
        """
        with self._changed:
            instead = chain.refuse()
            if instead is None:
                return False
            if instead:
                self._slices_until = None
            for other in instead:
                other.part.chains += 1
            self._waiting += instead
            return True

    def stop(self) -> None:
        """Hand nothing out any more."""
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()

    def covered(self) -> float:
        """Return the share of the time range that has been seen."""
        with self._changed:
            return 1 - self._remaining() / self._whole

    def rows_left(self) -> int:
        """Return how many rows are still to come, by the density of the last pages."""
        with self._changed:
            return round(sum(chain.rows_left() for chain in self._active))

    def _shared(self) -> Chain | None:
        trying = sum(not chain.new_rows for chain in self._active)
        if self._vain + trying >= _FREE_VAIN_CHAINS + self._pages / _PAGES_PER_VAIN_CHAIN:
            return None
        if not self._has_slack():
            return None
        so_far = SoFar(self._rows, self._whole - self._remaining())
        for victim in sorted(self._active, key=Chain.rows_left, reverse=True):
            given = victim.share(so_far, self._slices_until)
            if given is not None:
                if given.part is victim.part:
                    given.part.chains += 1
                return given
        return None

    def _remaining(self) -> timedelta:
        chains = (*self._waiting, *self._active)
        return sum((self._left_of(chain) for chain in chains), timedelta())

    def _left_of(self, chain: Chain) -> timedelta:
        window = chain.window
        if window.axis is not Axis.STUDY_DATE and window.start < self._origin < window.end:
            return min(chain.remaining(), window.end - self._origin)
        return chain.remaining()
