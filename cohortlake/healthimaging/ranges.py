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

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from cohortlake.epoch import epoch_seconds
from cohortlake.healthimaging.ends import BothEnds
from cohortlake.healthimaging.page import Head, Page
from cohortlake.healthimaging.windows import EPOCH, MARGIN, Axis, Window

_PAGE_ROWS = 50
# Below this a helper would mostly read what its victim is about to read anyway.
_LEAST_ROWS_TO_SHARE = 3 * _PAGE_ROWS
# So many pages within one grain of the axis: halving the rest of it would not help.
_PAGES_OF_A_HOT_INSTANT = 4
_PAGES_OF_DENSITY = 4
_TIMES_DENSER_IS_A_BURST = 8
_LEAST_ROWS_OF_A_BURST = 16 * _PAGE_ROWS
_MILLISECOND = timedelta(milliseconds=1)
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
        self._end = self._window.end
        self._skip = skip
        self._ends = ends
        self._is_helper = ends is not None
        self._position: datetime | None = None
        self._at_position: dict[str, None] = {}  # the rows there, in order
        self._pages_at_position = 0
        self._lately: deque[_Seen] = deque(maxlen=_PAGES_OF_DENSITY + 1)
        self._resumed_at: datetime | None = None
        self._may_share = False
        self._is_over = False
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
        """What it searches, as far as it was not given away."""
        return replace(self._window, end=self._end)

    def criteria(self) -> dict[str, Any]:
        """Return the `searchCriteria` of its next search."""
        return self._asked.criteria("DESC" if self._is_helper else "ASC", self.day)

    def follow(self, page: Page) -> Page:
        """Take note of a page.

        Returns:
            The page, with the rows in `skip` that came before or lie outside.
        """
        with self._lock:
            positions = _positions(page.heads, self.axis)
            skip = self._known(page.heads, positions)
            self._advance(page.heads, positions, skip)
            self._is_over |= page.next_token is None or self._is_past_its_end()
            self._may_share = not self.is_over
            if self._ends:
                if self._ends.are_unordered and self._is_helper:
                    self._is_over = True
                elif self._is_over:
                    self._ends.finish()
            followed = replace(page, skip=skip)
            self.new_rows += followed.new_rows
            return followed

    def resume(self) -> None:
        """Search anew from the last row seen, because the service refused the token.

        A helper just leaves the rest to the other chain.
        """
        with self._lock:
            if self._is_helper:
                self._is_over = True
            elif self._position is not None:
                self._resumed_at = self._position
                self._asked = self._window.resumed_at(self._position)

    def rows_left(self) -> float:
        """Return how many rows are still to come, by the density of its last pages.

        Before the first page nothing is known.
        """
        if self._position is None or self.is_over:
            return 0.0
        return max(0.0, (self._end - self._position).total_seconds()) * self._rows_per_second()

    def remaining(self) -> timedelta:
        """Return how much of its axis it has not seen."""
        if self.is_over or self._is_helper:
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
            if not self._may_share or self.is_over or self._position is None:
                return None
            given = self._cut(so_far)
            if given is None and self._ends is None and self._is_hot():
                if slices_until and self.axis is Axis.STUDY_DATE:
                    given = self._slice(slices_until)
                else:
                    given = self._from_far_end()
            self._may_share = given is None
            return given

    def unsliced(self) -> Chain:
        """Return the chain to follow instead, because the service takes no second filter."""
        return Chain(self.part, self.day, skip=self._skip)

    def _cut(self, so_far: SoFar) -> Chain | None:
        assert self._position  # noqa: S101 - `share` has looked
        grain = _grain(self.axis)
        steps = (self._end - self._position) // grain
        if self._is_hot():
            cut = self._position + _behind(self.axis)  # whatever is there is behind it
        elif self._pages_at_position or self.rows_left() < _LEAST_ROWS_TO_SHARE:
            return None
        else:
            cut = self._position + (steps // 2 + 1) * grain
            cut = min(cut, self._end_of_burst(so_far))
        cut = _floor(cut, self.axis)
        if self._is_helper or cut < self._position + _behind(self.axis) or cut >= self._end:
            return None
        window = Window(self.axis, cut, self._end)
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
        span = max(self._position - first.position, _grain(self.axis))
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
    def _is_plain(self) -> bool:
        return not self._is_helper and self.day is None

    def _is_hot(self) -> bool:
        return self._pages_at_position >= _PAGES_OF_A_HOT_INSTANT

    def _known(self, heads: Sequence[Head], positions: Sequence[datetime | None]) -> frozenset[str]:
        ids = [head.image_set_id for head in heads]
        if self._is_over:
            return frozenset(ids)
        known = self._skip.intersection(ids)
        if self._ends:
            known |= self._ends.follow(ids, is_helper=self._is_helper)
        known |= self._at_position.keys() & set(ids)
        known |= _outside(self.window, ids, positions)  # what was given away is another's
        if self.day:
            known |= _outside(self.day, ids, _positions(heads, self.day.axis))
        if self._resumed_at:
            # A resumed search brings rows from a little before where it was resumed.
            known |= {
                image_set_id
                for image_set_id, position in zip(ids, positions, strict=True)
                if position and position < self._resumed_at
            }
        return frozenset(known)

    def _advance(
        self,
        heads: Sequence[Head],
        positions: Sequence[datetime | None],
        skip: frozenset[str],
    ) -> None:
        placed = [position for position in positions if position is not None]
        if not placed or self._is_over:
            return
        last = min(placed) if self._is_helper else max(placed)
        if last == self._position and min(placed) == max(placed):
            self._pages_at_position += 1
        elif last != self._position:
            self._pages_at_position = int(min(placed) == max(placed))
            self._at_position = {}
        if not self._lately:
            self._lately.append(_Seen(min(placed), 0))
        self._position = last
        if self._is_plain:
            self.part.position = max(self.part.position, last)
        self._at_position |= {
            head.image_set_id: None
            for head, position in zip(heads, positions, strict=True)
            if position == last
        }
        self._lately.append(_Seen(last, len(heads) - len(skip)))

    def _is_past_its_end(self) -> bool:
        if self._position is None:
            return False
        if self._is_helper:
            return self._position < self._window.start
        return self._position >= self._end


def _grain(axis: Axis) -> timedelta:
    return _DAY if axis is Axis.STUDY_DATE else _MILLISECOND


def _behind(axis: Axis) -> timedelta:
    """Return how far behind a row a cut must lie so that the part behind does not find it."""
    return _DAY if axis is Axis.STUDY_DATE else 2 * MARGIN


def _floor(instant: datetime, axis: Axis) -> datetime:
    # Cuts lie on the service's own grain, so that no row lies between two of them.
    if axis is Axis.STUDY_DATE:
        return instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _positions(heads: Sequence[Head], axis: Axis) -> list[datetime | None]:
    if axis is Axis.STUDY_DATE:
        return [_study_day(head.tags) for head in heads]
    if axis is Axis.UPDATED_AT:
        return [_instant(head.updated_at) for head in heads]
    return [_instant(head.created_at) for head in heads]


def _outside(window: Window, ids: Sequence[str], positions: Sequence[datetime | None]) -> set[str]:
    """Return the rows that the criteria found by asking for a little more than a window."""
    return {
        image_set_id
        for image_set_id, position in zip(ids, positions, strict=True)
        if position and not window.start <= position < window.end
    }


def _instant(value: object) -> datetime | None:
    seconds = epoch_seconds(value)
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def _study_day(raw_tags: msgspec.Raw) -> datetime | None:
    tags = msgspec.json.decode(raw_tags)
    text = tags.get("DICOMStudyDate") if isinstance(tags, dict) else None
    with contextlib.suppress(ValueError):
        return datetime.strptime(str(text), "%Y%m%d").replace(tzinfo=UTC)
    return None
