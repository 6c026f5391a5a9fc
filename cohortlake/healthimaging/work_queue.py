"""The work of a search, which idle workers take from busy ones (work stealing).

No call tells how many rows a window holds. So each worker follows a chain of pages. When another
worker is idle and slots of the quota are unused, the chain with the most rows to come gives a
part of them away. That part may be empty and cost a request for nothing: such chains are counted
and kept to a share of all requests. See `healthimaging.ranges` for how a chain is divided.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from cohortlake.healthimaging.ranges import Chain, Range, SearchedSoFar
from cohortlake.healthimaging.windows import Axis, Window

# One chain in so many pages may bring nothing. The first few are free, so that a burst in a small
# window is found too.
_PAGES_PER_EMPTY_CHAIN = 150
_FREE_EMPTY_CHAINS = 8


class WorkQueue:
    """The chains of a search; workers take from it until all work is done.

    Attributes:
        is_stopped: Whether it gives out no more work.

    Args:
        windows: The windows to search.
        now: When the search began. Image sets that were created later do not count.
        has_slack: Tells whether more requests in flight would be faster.
        origin: The first instant that can hold rows. Windows may begin before it.
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
        self._pages = self._rows = self._empty_chains = 0
        self._changed = threading.Condition()
        self.is_stopped = False

    def take(self) -> Chain | None:
        """Return a chain to follow; wait while other workers may still give some away.

        Returns:
            The chain, or None when nothing is left to do.
        """
        with self._changed:
            while not self.is_stopped:
                taken = self._waiting.pop() if self._waiting else self._given_away()
                if taken is not None:
                    self._active.append(taken)
                    return taken
                if not self._active:
                    break
                self._changed.wait()
            return None

    def page_arrived(self, new_rows: int) -> None:
        """Record that a page arrived: its chain may have enough rows to give away now."""
        with self._changed:
            self._pages += 1
            self._rows += new_rows
            self._changed.notify()

    def finish(self, chain: Chain) -> bool:
        """Record that a chain is finished.

        Returns:
            Whether its range is finished too.
        """
        with self._changed:
            self._active.remove(chain)
            self._empty_chains += not chain.new_rows
            chain.part.chains -= 1
            self._changed.notify_all()
            return not chain.part.chains

    def refuse(self, chain: Chain) -> bool:
        """Record that the service refused the criteria of a chain, which is finished then.

        Returns:
            Whether the search continues without it.
        """
        with self._changed:
            replacements = chain.refuse()
            if replacements is None:
                return False
            if replacements:
                self._slices_until = None
            for other in replacements:
                other.part.chains += 1
            self._waiting += replacements
            return True

    def stop(self) -> None:
        """Give out no more work."""
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()

    def covered(self) -> float:
        """Return the share of the time range that has been searched."""
        with self._changed:
            return 1 - self._remaining() / self._whole

    def rows_left(self) -> int:
        """Estimate how many rows are still to come, by the density of the last pages."""
        with self._changed:
            return round(sum(chain.rows_left() for chain in self._active))

    def _given_away(self) -> Chain | None:
        unproven = sum(not chain.new_rows for chain in self._active)
        allowed = _FREE_EMPTY_CHAINS + self._pages / _PAGES_PER_EMPTY_CHAIN
        if self._empty_chains + unproven >= allowed or not self._has_slack():
            return None
        so_far = SearchedSoFar(self._rows, self._whole - self._remaining())
        for donor in sorted(self._active, key=Chain.rows_left, reverse=True):
            given = donor.give_away(so_far, self._slices_until)
            if given is not None:
                if given.part is donor.part:
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
