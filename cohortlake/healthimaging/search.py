"""Paging: one range in, its pages out, each row once.

A page that keeps failing is asked again with its token (`client`); when the token itself
is refused, the search goes on from the last row seen. Who pages which range, and how one
is cut while it is being paged, is `healthimaging.ranges`'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from cohortlake.errors import ServiceUnavailable, TokenRefused
from cohortlake.healthimaging.client import HealthImaging, Meter
from cohortlake.healthimaging.page import Head, Page
from cohortlake.healthimaging.ranges import Range
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

_RESTARTS_WITHOUT_A_NEW_ROW = 10


def search_range(
    service: HealthImaging, datastore_id: str, part: Range, meter: Meter | None = None
) -> Iterator[Page]:
    """Yield the pages that hold a range, in ascending order of its axis.

    Args:
        service: The client.
        datastore_id: The data store to search.
        part: What to find. It may lose some of its end to others meanwhile.
        meter: Counts the requests.

    Yields:
        Pages. They hold a little more than the range: cut it with `Window.mask`, and leave
        out the rows whose id is in `Page.skip`.

    Raises:
        ServiceError: See `errors`; what lies behind `part.position` is not known then.
    """
    rest, token, restarts = part.window, None, 0
    trail = _Trail(part.window)
    while True:
        try:
            page = service.search_page(datastore_id, rest.criteria(), token, meter)
        except TokenRefused:
            restarts += 1
            if restarts > _RESTARTS_WITHOUT_A_NEW_ROW:
                raise ServiceUnavailable("SearchImageSets kept refusing its own tokens") from None
            rest, token = trail.rest(), None
            continue
        page = replace(page, skip=trail.follow(page.heads))
        token = page.next_token
        new = len(page.heads) - len(page.skip)
        if new:
            restarts = 0
        if token is None:
            part.close()
        elif trail.first and trail.last:
            part.advance(trail.first, trail.last, new)
        yield page
        if token is None or part.position >= part.end:
            return


class _Trail:
    """How far a search has come: the last position, and the rows seen there."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._resumed_at: datetime | None = None
        self._seen: set[str] = set()

    def follow(self, heads: tuple[Head, ...]) -> frozenset[str]:
        """Take note of a page's rows, and return the ids that were seen before."""
        known = set()
        for head in heads:
            position = _position(head, self._window.axis)
            if self._is_behind(position) or head.image_set_id in self._seen:
                known.add(head.image_set_id)
                continue
            if position is not None and (self.last is None or position > self.last):
                self.first, self.last = self.first or position, position
                self._seen.clear()
            self._seen.add(head.image_set_id)
        return frozenset(known)

    def rest(self) -> Window:
        """Return the window from the last row seen on."""
        if self.last is None:
            return self._window
        self._resumed_at = self.last
        return self._window.resumed_at(self.last)

    def _is_behind(self, position: datetime | None) -> bool:
        # A resumed search brings rows from a little before where it was resumed.
        resumed = self._resumed_at
        return resumed is not None and position is not None and position < resumed


def _position(head: Head, axis: Axis) -> datetime | None:
    if axis is Axis.STUDY_DATE:
        return _study_day(head.tags)
    value = head.updated_at if axis is Axis.UPDATED_AT else head.created_at
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(value).astimezone(UTC)
    return EPOCH + timedelta(seconds=value) if isinstance(value, int | float) else None


def _study_day(raw_tags: msgspec.Raw) -> datetime | None:
    tags = msgspec.json.decode(raw_tags)
    text = tags.get("DICOMStudyDate") if isinstance(tags, dict) else None
    with contextlib.suppress(ValueError):
        return datetime.strptime(str(text), "%Y%m%d").replace(tzinfo=UTC)
    return None
