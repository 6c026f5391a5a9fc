"""Ranges, and the chains of pages that search them: progress, and how the rest is divided.

A *range* is a stretch of an axis whose rows are written together. A *chain* follows the tokens of
one search. A range usually has one chain. A chain can give a part of its remaining work to another
worker in three ways:

- cut: the second half of its unseen window becomes a range of its own. Within a burst, where rows
  lie much closer than elsewhere, the cut lies after as many rows as have come so far: halving a
  day to find the end of a minute would take ten requests that bring nothing;
- slice: a day of studies cannot be cut on the study date axis. It is searched by creation instant,
  with the day as a second filter, and those chains can be cut again;
- both ends: a single instant cannot be cut at all. A second chain reads it in descending order
  until the two meet (`healthimaging.both_ends`).

See `healthimaging.work_queue` for which worker follows which chain.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cohortlake.healthimaging.both_ends import BothEnds
from cohortlake.healthimaging.page import Page
from cohortlake.healthimaging.positions import PageRows, floor, grain, next_cut, rows_of
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

_PAGE_ROWS = 50
# Below this a helper would mostly read what its donor is about to read anyway.
_LEAST_ROWS_TO_GIVE_AWAY = 3 * _PAGE_ROWS
# After so many pages within one grain of the axis, halving the rest would not help.
_PAGES_OF_A_SINGLE_INSTANT = 4
_PAGES_OF_DENSITY = 4
_TIMES_DENSER_IS_A_BURST = 8
_LEAST_ROWS_OF_A_BURST = 16 * _PAGE_ROWS
_DAY = timedelta(days=1)


class Range:
    """A stretch of an axis whose rows are written together.

    Attributes:
        window: The stretch as it was given to a worker.
        position: All rows before it have arrived.
        end: First instant after the range. A cut moves it closer.
        chains: How many chains are not finished; `WorkQueue` counts them.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.position = window.start
        self.end = window.end
        self.chains = 1


@dataclass(frozen=True)
class SearchedSoFar:
    """What all chains of a search have seen so far.

    Attributes:
        rows: Number of rows.
        span: The part of the time range in which they lie.
    """

    rows: int
    span: timedelta


@dataclass(frozen=True)
class _Seen:
    position: datetime
    rows: int


class Chain:
    """A search that one worker follows from token to token.

    Args:
        part: The range whose rows it brings.
        window: What it searches; the window of the range by default.
        day: The study day that is the second filter, for a slice of that day.
        skip: Ids that another chain of the range has brought.
        ends: Set for the helper, the chain in descending order.
    """

    def __init__(
        self,
        part: Range,
        window: Window | None = None,
        *,
        day: Window | None = None,
        skip: frozenset[str] = frozenset(),
        ends: BothEnds | None = None,
    ) -> None:
        self.part = part
        self.day = day
        self.new_rows = 0
        self._window = self._asked = window or part.window
        self._start, self._end = self._window.start, self._window.end
        self._skip = skip
        self._ends = ends
        self.is_helper = ends is not None
        self._position: datetime | None = None
        self._at_position: dict[str, None] = {}  # the rows there, in order
        self._pages_at_position = 0
        self._lately: deque[_Seen] = deque(maxlen=_PAGES_OF_DENSITY + 1)
        self._may_give_away = False
        self._is_over = False
        self._is_untouched = True
        self._lock = threading.Lock()

    @property
    def axis(self) -> Axis:
        """The axis that it is ordered by."""
        return self._window.axis

    @property
    def is_over(self) -> bool:
        """Whether all of its rows have been seen."""
        return self._is_over or bool(self._ends and self._ends.have_met)

    @property
    def window(self) -> Window:
        """Where its own rows lie: without what it gave away, and from where it resumed."""
        return replace(self._window, start=self._start, end=self._end)

    def criteria(self) -> dict[str, Any]:
        """Return the `searchCriteria` of its next search."""
        return self._asked.criteria("DESC" if self.is_helper else "ASC", self.day)

    def follow(self, page: Page) -> Page:
        """Record a page.

        Returns:
            The page; its `skip` has the rows that came before or lie outside.
        """
        with self._lock:
            self._is_untouched = False
            if self._is_over:  # it was sliced while this page was requested
                return replace(page, skip=frozenset(head.image_set_id for head in page.heads))
            rows = rows_of(page.heads, self.window, self.day)
            known = self._known(rows)
            self._advance(rows, known)
            passed = rows.pass_the_start if self.is_helper else rows.pass_the_end
            self._is_over = passed or page.next_token is None
            self._may_give_away = not self.is_over
            if self._ends:
                if self._ends.are_unordered and self.is_helper:
                    self._is_over = True
                elif self._is_over:
                    self._ends.finish()
            followed = replace(page, skip=rows.outside | known)
            self.new_rows += followed.new_rows
            return followed

    def resume(self) -> None:
        """Search again from the last row seen, because the service refused the token.

        A helper leaves the rest to the other chain.
        """
        with self._lock:
            if self.is_helper:
                self._is_over = True
            elif self._position is not None:
                self._start = self._position
                self._asked = self.window

    def refuse(self) -> list[Chain] | None:
        """Return the chains that replace this one, because the service refused its criteria.

        A helper leaves the rest to the other chain, without a replacement. The whole day replaces
        its slices: the service takes no second filter. None means that nothing can replace it.
        """
        with self._lock:
            if self.is_helper:
                self._is_over = True
                return []
            if self.day and self._is_untouched and self._window.start == EPOCH:
                self._is_over = True
                return [Chain(self.part, self.day, skip=self._skip)]
            return None

    def rows_left(self) -> float:
        """Estimate how many rows are still to come, by the density of its last pages.

        Before the first page the answer is 0.
        """
        if self._position is None or self.is_over:
            return 0.0
        return max(0.0, (self._end - self._position).total_seconds()) * self._rows_per_second()

    def remaining(self) -> timedelta:
        """Return how much of its axis is not searched yet."""
        if self.is_over or self.is_helper:
            return timedelta()
        return max(timedelta(), self._end - (self._position or self._window.start))

    def give_away(
        self, so_far: SearchedSoFar, slices_until: datetime | None = None
    ) -> Chain | None:
        """Return a chain for a part of the unseen rows, if that saves time.

        A chain gives away once a page at most: until the next page nothing more is known about
        the half that it keeps.

        Args:
            so_far: What all chains of the search have seen.
            slices_until: Image sets that were created later do not count. None if the service
                takes no second filter.
        """
        with self._lock:
            if not self._may_give_away or self.is_over or self._ends or self._position is None:
                return None
            given = self._cut(so_far)
            if given is None and self._is_at_single_instant():
                if slices_until and self.axis is Axis.STUDY_DATE:
                    given = self._slice(slices_until)
                else:
                    given = self._from_far_end()
            self._may_give_away = given is None
            return given

    def _cut(self, so_far: SearchedSoFar) -> Chain | None:
        assert self._position  # noqa: S101 - `give_away` has checked
        first = next_cut(self._position, self.axis)
        if self._is_at_single_instant():
            cut = first  # all rows at this instant lie before it
        elif self._pages_at_position or self.rows_left() < _LEAST_ROWS_TO_GIVE_AWAY:
            return None
        else:
            steps = (self._end - self._position) // grain(self.axis)
            cut = self._position + (steps // 2 + 1) * grain(self.axis)
            cut = floor(min(cut, self._end_of_burst(so_far)), self.axis)
        if not first <= cut < self._end:
            return None
        window = replace(self._window, start=cut, end=self._end)
        self._end = cut
        if self.day:
            return Chain(self.part, window, day=self.day, skip=self._skip)
        self.part.end = cut
        return Chain(Range(window))

    def _end_of_burst(self, so_far: SearchedSoFar) -> datetime:
        """Return where a burst may end: after as many more rows as have come so far."""
        assert self._position  # noqa: S101 - `give_away` has checked
        rate = self._rows_per_second()
        if rate * so_far.span.total_seconds() <= _TIMES_DENSER_IS_A_BURST * so_far.rows:
            return self._end
        rows = max(_LEAST_ROWS_OF_A_BURST, so_far.rows)
        return self._position + timedelta(seconds=min(rows / rate, 1e9))

    def _rows_per_second(self) -> float:
        first, *pages = self._lately
        assert self._position  # noqa: S101 - there is a page
        span = max(self._position - first.position, grain(self.axis))
        return sum(page.rows for page in pages) / span.total_seconds()

    def _slice(self, until: datetime) -> Chain:
        assert self._position  # noqa: S101 - `give_away` has checked
        day = replace(self._window, start=self._position, end=self._position + _DAY)
        seen = self._skip | self._at_position.keys()
        # A page may be requested already; the slices bring its rows.
        self._is_over = True
        return Chain(self.part, Window(Axis.CREATED_AT, EPOCH, until), day=day, skip=seen)

    def _from_far_end(self) -> Chain:
        assert self._position  # noqa: S101 - `give_away` has checked
        self._ends = BothEnds(self._at_position)
        window = replace(self._window, start=self._position, end=self._end)
        return Chain(self.part, window, day=self.day, skip=self._skip, ends=self._ends)

    @property
    def is_plain(self) -> bool:
        """Whether it brings the rows of its range in ascending order, and is no slice."""
        return not self.is_helper and self.day is None

    def _is_at_single_instant(self) -> bool:
        return self._pages_at_position >= _PAGES_OF_A_SINGLE_INSTANT

    def _known(self, rows: PageRows) -> frozenset[str]:
        """Return the rows that have come before."""
        ids = frozenset(rows.ids)
        known = (self._skip & ids) | (self._at_position.keys() & ids)
        if self._ends:
            known |= self._ends.follow(rows.ids, is_descending=self.is_helper)
        return known

    def _advance(self, rows: PageRows, known: frozenset[str]) -> None:
        if not rows.positions:
            return
        first, last = min(rows.positions.values()), max(rows.positions.values())
        position = first if self.is_helper else last
        if position != self._position:
            self._pages_at_position = 0
            self._at_position = {}
        self._pages_at_position += first == last
        if not self._lately:
            self._lately.append(_Seen(first, 0))
        self._position = position
        if self.is_plain:
            self.part.position = max(self.part.position, position)
        self._at_position |= {id_: None for id_, at in rows.positions.items() if at == position}
        self._lately.append(_Seen(position, len(rows.positions.keys() - known)))
