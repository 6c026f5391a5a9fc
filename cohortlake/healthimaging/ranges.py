"""Ranges and the chains that page them: how far each has come, and how its rest is cut.

A *range* is a stretch of an axis whose rows land together. A *chain* follows the tokens of
one search. A range has one chain as a rule. What remains of a chain can be given to another
worker in three ways:

- cut: the far half of what it has not seen becomes a range of its own. Within a burst, where
  rows lie much closer than elsewhere, all that lies beyond the next so many rows does: halving
  a day to find the end of a minute would take ten requests that bring nothing;
- slice: a day of studies, which no window of the study date cuts, is searched by creation
  with the day as a second filter, and those chains can be cut again;
- both ends: an instant that nothing cuts is paged in descending order by a second chain,
  until the two meet (`healthimaging.ends`).

Who pages what is `healthimaging.sharing`'s.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cohortlake.healthimaging.ends import BothEnds
from cohortlake.healthimaging.page import Page
from cohortlake.healthimaging.places import Rows, floor, grain, next_cut, rows_of
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

_PAGE_ROWS = 50
# Below this a helper would mostly read what its victim is about to read anyway.
_LEAST_ROWS_TO_SHARE = 3 * _PAGE_ROWS
# So many pages within one grain of the axis: halving the rest of it would not help.
_PAGES_OF_A_HOT_INSTANT = 4
_PAGES_OF_DENSITY = 4
_TIMES_DENSER_IS_A_BURST = 8
_LEAST_ROWS_OF_A_BURST = 16 * _PAGE_ROWS
_DAY = timedelta(days=1)


class Range:
    """A stretch whose rows land together.

    Attributes:
        window: The stretch as it was handed out.
        position: All rows before it have come.
        end: First instant that is not its own any more; comes nearer when some is cut off.
        chains: How many chains are still to finish; `sharing` counts them.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.position = window.start
        self.end = window.end
        self.chains = 1


@dataclass(frozen=True)
class SoFar:
    """What all chains of a search have seen.

    Attributes:
        rows: How many rows.
        span: In how much of the time range.
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
        window: What it searches; the range's by default.
        day: A study day as second filter, where it is a slice of that day.
        skip: Ids that another chain of the range has brought.
        ends: Set for the chain that comes from the far end, in descending order.
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
        self._may_share = False
        self._is_over = False
        self._is_untouched = True
        self._lock = threading.Lock()

    @property
    def axis(self) -> Axis:
        """The axis it is ordered by."""
        return self._window.axis

    @property
    def is_over(self) -> bool:
        """Whether all of it has been seen."""
        return self._is_over or bool(self._ends and self._ends.have_met)

    @property
    def window(self) -> Window:
        """Where its own rows lie: what it gave away is another's, what it resumed behind came."""
        return replace(self._window, start=self._start, end=self._end)

    def criteria(self) -> dict[str, Any]:
        """Return the `searchCriteria` of its next search."""
        return self._asked.criteria("DESC" if self.is_helper else "ASC", self.day)

    def follow(self, page: Page) -> Page:
        """Take note of a page.

        Returns:
            The page, with the rows in `skip` that came before or lie outside.
        """
        with self._lock:
            self._is_untouched = False
            if self._is_over:  # it was sliced while the page was on its way
                return replace(page, skip=frozenset(head.image_set_id for head in page.heads))
            rows = rows_of(page.heads, self.window, self.day)
            known = self._known(rows)
            self._advance(rows, known)
            passed = rows.pass_the_start if self.is_helper else rows.pass_the_end
            self._is_over = passed or page.next_token is None
            self._may_share = not self.is_over
            if self._ends:
                if self._ends.are_unordered and self.is_helper:
                    self._is_over = True
                elif self._is_over:
                    self._ends.finish()
            followed = replace(page, skip=rows.outside | known)
            self.new_rows += followed.new_rows
            return followed

    def resume(self) -> None:
        """Search anew from the last row seen, because the service refused the token.

        A helper just leaves the rest to the other chain.
        """
        with self._lock:
            if self.is_helper:
                self._is_over = True
            elif self._position is not None:
                self._start = self._position
                self._asked = self.window

    def refuse(self) -> list[Chain] | None:
        """Return the chains to follow instead, because the service refused its criteria.

        None where nothing can stand in for it. A helper leaves the rest to the other chain. The
        slices of a day give way to the whole day: the service takes no second filter.
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
        """Return how many rows are still to come, by the density of its last pages.

        Before the first page nothing is known.
        """
        if self._position is None or self.is_over:
            return 0.0
        return max(0.0, (self._end - self._position).total_seconds()) * self._rows_per_second()

    def remaining(self) -> timedelta:
        """Return how much of its axis it has not seen."""
        if self.is_over or self.is_helper:
            return timedelta()
        return max(timedelta(), self._end - (self._position or self._window.start))

    def share(self, so_far: SoFar, slices_until: datetime | None = None) -> Chain | None:
        """Give some of what it has not seen to another worker, if that is worth it.

        A chain is shared once a page at most: half of it is gone, and the other half is as
        unknown as before.

        Args:
            so_far: What all chains of the search have seen.
            slices_until: Until when image sets were created that matter; None where the
                service takes no second filter.
        """
        with self._lock:
            if not self._may_share or self.is_over or self._ends or self._position is None:
                return None
            given = self._cut(so_far)
            if given is None and self._is_hot():
                if slices_until and self.axis is Axis.STUDY_DATE:
                    given = self._slice(slices_until)
                else:
                    given = self._from_far_end()
            self._may_share = given is None
            return given

    def _cut(self, so_far: SoFar) -> Chain | None:
        assert self._position  # noqa: S101 - `share` has looked
        first = next_cut(self._position, self.axis)
        if self._is_hot():
            cut = first  # whatever is there is behind it
        elif self._pages_at_position or self.rows_left() < _LEAST_ROWS_TO_SHARE:
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

    def _end_of_burst(self, so_far: SoFar) -> datetime:
        """Return where a burst is looked for the end of: as many rows on as have come so far."""
        assert self._position  # noqa: S101 - `share` has looked
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
        assert self._position  # noqa: S101 - `share` has looked
        day = replace(self._window, start=self._position, end=self._position + _DAY)
        seen = self._skip | self._at_position.keys()
        # A page may be on its way here; the slices bring its rows.
        self._is_over = True
        return Chain(self.part, Window(Axis.CREATED_AT, EPOCH, until), day=day, skip=seen)

    def _from_far_end(self) -> Chain:
        assert self._position  # noqa: S101 - `share` has looked
        self._ends = BothEnds(self._at_position)
        window = replace(self._window, start=self._position, end=self._end)
        return Chain(self.part, window, day=self.day, skip=self._skip, ends=self._ends)

    @property
    def is_plain(self) -> bool:
        """Whether it brings the rows of its range in ascending order, and no slice of a day."""
        return not self.is_helper and self.day is None

    def _is_hot(self) -> bool:
        return self._pages_at_position >= _PAGES_OF_A_HOT_INSTANT

    def _known(self, rows: Rows) -> frozenset[str]:
        """Return the rows that came before."""
        ids = frozenset(rows.ids)
        known = (self._skip & ids) | (self._at_position.keys() & ids)
        if self._ends:
            known |= self._ends.follow(rows.ids, is_helper=self.is_helper)
        return known

    def _advance(self, rows: Rows, known: frozenset[str]) -> None:
        if not rows.places:
            return
        first, last = min(rows.places.values()), max(rows.places.values())
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
        self._at_position |= {id_: None for id_, place in rows.places.items() if place == position}
        self._lately.append(_Seen(position, len(rows.places.keys() - known)))
