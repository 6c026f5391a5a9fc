"""Paging: one window in, its pages out, each row once.

A page that keeps failing is asked again with its token (`client`); when the token itself
is refused, the search goes on from the last row seen. How many windows are searched at
once is the caller's.
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
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

_RESTARTS_WITHOUT_A_NEW_ROW = 10


def search_window(
    service: HealthImaging, datastore_id: str, window: Window, meter: Meter | None = None
) -> Iterator[Page]:
    """Yield the pages that hold a window, in ascending order of its axis.

    Args:
        service: The client.
        datastore_id: The data store to search.
        window: What to find. Pages hold a little more; `Window.mask` cuts it.
        meter: Counts the requests.

    Yields:
        Pages; leave out the rows whose id is in `Page.skip`.

    Raises:
        ServiceError: See `errors`; nothing is known of the rest of the window then.
    """
    rest, token, restarts = window, None, 0
    trail = _Trail(window)
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
        if len(page.skip) < len(page.heads):
            restarts = 0
        yield page
        token = page.next_token
        if token is None:
            return


class _Trail:
    """How far a search has come: the last position, and the rows seen there."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._last: datetime | None = None
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
            if position is not None and (self._last is None or position > self._last):
                self._last = position
                self._seen.clear()
            self._seen.add(head.image_set_id)
        return frozenset(known)

    def rest(self) -> Window:
        """Return the window from the last row seen on."""
        if self._last is None:
            return self._window
        self._resumed_at = self._last
        return self._window.resumed_at(self._last)

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
