"""Ranges: a stretch of an axis, shared out between workers while it is being paged.

No call says how many rows a window holds, so work is split as it goes: a worker pages its
range in ascending order, and whenever another is idle, the range with the most rows left to
come, by its density so far, gives away the far half of what it has not seen. A burst is
found by halving: each cut that hands out nothing but empty time costs one request and
halves what is left.

Owns who pages what. How a range is paged is `healthimaging.search`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

from cohortlake.healthimaging.windows import Axis, Window

_PAGE_ROWS = 50
# Below this a helper would mostly read what its victim is about to read anyway.
_LEAST_ROWS_TO_SHARE = 3 * _PAGE_ROWS
_MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


class Range:
    """A stretch that one worker pages. Its end comes nearer when some of it is given away.

    Attributes:
        window: The stretch as it was handed out.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self._end = window.end
        self._position = window.start
        self._first: datetime | None = None
        self._rows = 0
        self._lock = threading.Lock()

    @property
    def end(self) -> datetime:
        """First instant that is not this range's any more."""
        return self._end

    @property
    def position(self) -> datetime:
        """The last row seen; all before it is done."""
        return self._position

    def advance(self, first: datetime, last: datetime, rows: int) -> None:
        """Take note of a page.

        Args:
            first: Position of its first row.
            last: Position of its last row.
            rows: How many new ones it brought.
        """
        with self._lock:
            self._first = self._first or first
            self._position = max(self._position, last)
            self._rows += rows

    def close(self) -> None:
        """Take note that its last page has come: there is nothing left to give away."""
        with self._lock:
            self._position = self._end

    def rows_left(self) -> float:
        """Return how many rows are still to come, as far as its density tells.

        The density is that of all it has seen, from its first row on: of a single page it
        would take every burst for the rule. Before the first page nothing is known.
        """
        if self._first is None:
            return 0.0
        seen = max(self._position - self._first, _MILLISECOND)
        return self._rows * ((self._end - self._position) / seen)

    def split(self) -> Range | None:
        """Give away the far half of what was not seen, if it can be cut and is worth it."""
        with self._lock:
            grain = _DAY if self.window.axis is Axis.STUDY_DATE else _MILLISECOND
            steps = (self._end - self._position) // grain
            if steps < 4 or self.rows_left() < _LEAST_ROWS_TO_SHARE:
                return None
            cut = self._floor(self._position + (steps // 2 + 1) * grain)
            given = Range(Window(self.window.axis, cut, self._end))
            self._end = cut
            return given

    def _floor(self, instant: datetime) -> datetime:
        # Cuts lie on the service's own grain, so that no row lies between two of them.
        if self.window.axis is Axis.STUDY_DATE:
            return instant.replace(hour=0, minute=0, second=0, microsecond=0)
        return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


class Ranges:
    """What is to be paged, for workers to take from until all of it is done.

    Args:
        windows: Where to begin.
    """

    def __init__(self, windows: Iterable[Window]) -> None:
        self._waiting = [Range(window) for window in reversed(list(windows))]
        self._active: list[Range] = []
        self._changed = threading.Condition()
        self._stopped = False

    def take(self) -> Range | None:
        """Return a range to page; wait while others may still share theirs.

        Returns:
            The range, or None once nothing is left to do.
        """
        with self._changed:
            while not self._stopped:
                taken = self._waiting.pop() if self._waiting else self._shared()
                if taken is not None:
                    self._active.append(taken)
                    return taken
                if not self._active:
                    break
                self._changed.wait()
            return None

    def paged(self) -> None:
        """Say that a page has come: somebody's range may be worth sharing now."""
        with self._changed:
            self._changed.notify_all()

    def done(self, finished: Range) -> None:
        """Say that a range is done."""
        with self._changed:
            self._active.remove(finished)
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand nothing out any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _shared(self) -> Range | None:
        for victim in sorted(self._active, key=Range.rows_left, reverse=True):
            given = victim.split()
            if given is not None:
                return given
        return None
