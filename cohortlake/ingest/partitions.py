"""The partitions of the two axes, and which windows they stand for.

- updatedAt: UTC days. The first day of a data store reaches back to the epoch, so that
  the days tile the whole time line.
- study date: months of the modality's calendar, and `undated` for whatever lies in none of
  them: no usable date, a date before the first month, or one in the future. Nor does a date
  that is not written as the standard has it: by which days the service finds it nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import WindowError
from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window
from cohortlake.history.coverage import CoverageInterval

FIRST_DAY = date(2023, 7, 19)
"""No image set can be older: the API's version date. Where the daily partitions begin."""

FIRST_MONTH = date(1990, 1, 1)
"""Where the monthly partitions begin; older studies are swept with `undated`."""

_DAY = timedelta(days=1)


def first_day(store: Datastore) -> date:
    """Return the first UTC day that has a partition for a data store."""
    created = store.created_at.date() if store.created_at else FIRST_DAY
    return min(max(created, FIRST_DAY), store.now.date())


def day_window(key: str, store: Datastore) -> Window | None:
    """Return the window of a UTC day, as far as time has come.

    Args:
        key: YYYY-MM-DD.
        store: The data store, with the service's present instant.

    Returns:
        The window, or None for a day before the data store's first or in the future.

    Raises:
        WindowError: The key is no day.
    """
    try:
        day = date.fromisoformat(key)
    except ValueError:
        raise WindowError(f"{key!r} is no day; days are written YYYY-MM-DD") from None
    midnight = datetime.combine(day, datetime.min.time(), UTC)
    start = EPOCH if day == first_day(store) else midnight
    end = min(midnight + _DAY, store.now)
    if day < first_day(store) or start >= end:
        return None
    return Window(Axis.UPDATED_AT, start, end)


def due_windows(
    store: Datastore, proven: Sequence[CoverageInterval], lookback: timedelta
) -> dict[str, list[Window]]:
    """Return what must be searched so that nothing up to now is missing.

    That is whatever is not proven, however long ago the last run was. Where it begins
    because the search index was not trusted further, it begins earlier by the lookback.

    Args:
        store: The data store, with the service's present instant.
        proven: What is proven complete, see `coverage.covered_intervals`.
        lookback: Overlap with what is proven.

    Returns:
        Day (YYYY-MM-DD) -> windows, in order.
    """
    due: dict[str, list[Window]] = {}
    for key in days_until_now(store):
        window = day_window(key, store)
        gaps = _gaps(window, proven, lookback) if window else []
        if gaps:
            due[key] = gaps
    return due


def _gaps(window: Window, proven: Sequence[CoverageInterval], lookback: timedelta) -> list[Window]:
    """Return what of a window is not proven, in order."""
    gaps, start = [], window.start
    for stretch in proven:
        if start < stretch.start < window.end:
            gaps.append(replace(window, start=start, end=stretch.start))
        if stretch.start < window.end and stretch.end >= start:
            start = stretch.end - (lookback if _ends_openly(stretch, window) else timedelta())
    if start < window.end:
        gaps.append(replace(window, start=max(EPOCH, start)))
    return gaps


def _ends_openly(stretch: CoverageInterval, window: Window) -> bool:
    return stretch.is_open and window.start <= stretch.end < window.end


def disjoint(windows: Mapping[str, Sequence[Window]]) -> list[tuple[str, Window]]:
    """Return windows in order, cut where one reaches back into the one before: its lookback."""
    cut = []
    searched_to = EPOCH
    for key, own in sorted(windows.items()):
        for window in own:
            cut.append((key, replace(window, start=max(searched_to, window.start))))
            searched_to = window.end
    return cut


def days_until_now(store: Datastore) -> Iterator[str]:
    """Yield the keys of all days from a data store's first until the service's today."""
    day = first_day(store)
    while day <= store.now.date():
        yield day.isoformat()
        day += _DAY


def months_until_now(store: Datastore) -> list[str]:
    """Return the keys of all study months until the service's present one."""
    months, month = [], FIRST_MONTH
    while month <= store.now.date():
        months.append(f"{month:%Y-%m}")
        month = _next_month(month)
    return months


def month_window(key: str) -> Window:
    """Return the window of a study month.

    Raises:
        WindowError: The key is no month.
    """
    try:
        first = date.fromisoformat(f"{key}-01")
    except ValueError:
        raise WindowError(f"{key!r} is no month; months are written YYYY-MM") from None
    bounds = (datetime(d.year, d.month, 1, tzinfo=UTC) for d in (first, _next_month(first)))
    return Window(Axis.STUDY_DATE, *bounds)


def in_no_month(store: Datastore, states: pa.Table) -> pa.Array:
    """Return which rows of `schema.STATE` belong to the partition `undated`."""
    dates = states["StudyDate"]
    first = pa.scalar(FIRST_MONTH, dates.type)
    end = pa.scalar(_next_month(store.now.date()), dates.type)
    outside = pc.or_(pc.less(dates, first), pc.greater_equal(dates, end))
    return pc.if_else(is_dated(states), outside, pa.scalar(value=True))


def is_dated(states: pa.Table) -> pa.ChunkedArray:
    """Return which rows of `schema.STATE` the service can be trusted to find by study date."""
    return pc.and_(pc.is_valid(states["StudyDate"]), pc.is_null(states["StudyDate_raw"]))


SWEPT_MONTH_SQL = f"""
CASE WHEN StudyDate_raw IS NULL THEN study_month ELSE '{schema.UNDATED}' END
"""
"""SQL for the study month that rows of the memory are swept with."""


def of_row_sql(store: Datastore) -> str:
    """Return SQL for the study-date partition that a row of the memory belongs to."""
    return f"""
        CASE WHEN {SWEPT_MONTH_SQL} BETWEEN '{FIRST_MONTH:%Y-%m}' AND '{store.now:%Y-%m}'
             THEN study_month ELSE '{schema.UNDATED}' END
    """


def _next_month(month: date) -> date:
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)
