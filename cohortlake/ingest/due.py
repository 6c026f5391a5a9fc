"""Which windows of updatedAt are due, and how windows are joined and cut for a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from cohortlake.healthimaging import EPOCH, Datastore, Window
from cohortlake.ingest.partitions import day_window, days_until_now


class ProvenInterval(Protocol):
    """An interval [start, end) of updatedAt that is proven complete. See `history.coverage`."""

    @property
    def start(self) -> datetime:
        """First instant."""

    @property
    def end(self) -> datetime:
        """First instant after it."""

    @property
    def is_open(self) -> bool:
        """Whether it ends only because the search index may lag."""


def due_windows(
    store: Datastore, proven: Sequence[ProvenInterval], lookback: timedelta
) -> dict[str, list[Window]]:
    """Return the windows to search so that nothing is missing up to now.

    Everything that is not proven is due, however long ago the last run was. After an open
    interval the window begins earlier by the lookback.

    Args:
        store: The data store, with the service's present instant.
        proven: The proven intervals, in order, see `coverage.covered_intervals`.
        lookback: Overlap with an open interval.

    Returns:
        Day (YYYY-MM-DD) -> windows, in order. Days without a window are left out.
    """
    due: dict[str, list[Window]] = {}
    for key in days_until_now(store):
        window = day_window(key, store)
        gaps = _gaps(window, proven, lookback) if window else []
        if gaps:
            due[key] = gaps
    return due


def windows_of_days(
    store: Datastore, days: Iterable[str], due: Mapping[str, Sequence[Window]]
) -> dict[str, list[Window]]:
    """Return the windows to search for days that somebody named.

    Args:
        store: The data store, with the service's present instant.
        days: The days (YYYY-MM-DD).
        due: What is due, see `due_windows`.

    Returns:
        Day -> what is due of it, or its whole window where nothing is due. A day before the data
        store's first, or in the future, has no window.

    Raises:
        WindowError: A key is not a day.
    """
    windows = {}
    for day in days:
        whole = day_window(day, store)
        windows[day] = list(due.get(day) or [whole]) if whole else []
    return windows


def without_overlap(windows: Mapping[str, Sequence[Window]]) -> list[tuple[str, Window]]:
    """Return windows in order, with the overlap cut from the later one of two neighbours."""
    cut = []
    searched_to = EPOCH
    for key, own in sorted(windows.items()):
        for window in own:
            cut.append((key, replace(window, start=max(searched_to, window.start))))
            searched_to = window.end
    return cut


def merge_adjacent(windows: Iterable[Window]) -> Iterator[Window]:
    """Merge windows that follow one another without a gap on the same axis."""
    merged: Window | None = None
    for window in windows:
        if merged and (merged.axis, merged.end) == (window.axis, window.start):
            merged = replace(merged, end=window.end)
            continue
        if merged:
            yield merged
        merged = window
    if merged:
        yield merged


def _gaps(window: Window, proven: Sequence[ProvenInterval], lookback: timedelta) -> list[Window]:
    """Return what of a window is not proven, in order."""
    gaps, start = [], window.start
    for interval in proven:
        if start < interval.start < window.end:
            gaps.append(replace(window, start=start, end=interval.start))
        if interval.start < window.end and interval.end >= start:
            start = interval.end - (lookback if _ends_openly(interval, window) else timedelta())
    if start < window.end:
        gaps.append(replace(window, start=max(EPOCH, start)))
    return gaps


def _ends_openly(interval: ProvenInterval, window: Window) -> bool:
    return interval.is_open and window.start <= interval.end < window.end
