"""The partitions of the two axes, and the window of each.

- updatedAt: UTC days. The first day of a data store begins at the epoch, so that the days cover
  all time without a gap.
- Study date: months of the modality's calendar, and `undated` for everything else: no date, a
  date before the first month, a date in the future, or a date that is not written as DICOM
  requires. It is unknown by which days the service finds the last kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import WindowError
from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window

FIRST_DAY = date(2023, 7, 19)
"""First daily partition: the date of the API's version. No image set can be older."""

FIRST_MONTH = date(1990, 1, 1)
"""First monthly partition. Older studies are swept with `undated`."""

_DAY = timedelta(days=1)


def first_day(store: Datastore) -> date:
    """Return the first UTC day that has a partition for a data store."""
    created = store.created_at.date() if store.created_at else FIRST_DAY
    return min(max(created, FIRST_DAY), store.now.date())


def day_window(key: str, store: Datastore) -> Window | None:
    """Return the window of a UTC day, cut at the present instant.

    Args:
        key: YYYY-MM-DD.
        store: The data store, with the service's present instant.

    Returns:
        The window, or None for a day before the data store's first or in the future.

    Raises:
        WindowError: The key is not a day.
    """
    try:
        day = date.fromisoformat(key)
    except ValueError:
        raise WindowError(f"{key!r} is not a day; write days as YYYY-MM-DD") from None
    midnight = datetime.combine(day, datetime.min.time(), UTC)
    start = EPOCH if day == first_day(store) else midnight
    end = min(midnight + _DAY, store.now)
    if day < first_day(store) or start >= end:
        return None
    return Window(Axis.UPDATED_AT, start, end)


def days_until_now(store: Datastore) -> Iterator[str]:
    """Yield the keys of all days from the first day of a data store to the service's today."""
    day = first_day(store)
    while day <= store.now.date():
        yield day.isoformat()
        day += _DAY


def months_until_now(store: Datastore) -> list[str]:
    """Return the keys of all study months up to the present one of the service."""
    months, month = [], FIRST_MONTH
    while month <= store.now.date():
        months.append(f"{month:%Y-%m}")
        month = _next_month(month)
    return months


def all_partitions(store: Datastore) -> list[str]:
    """Return the keys of all study-date partitions: the months, and `undated`."""
    return [*months_until_now(store), schema.UNDATED]


def month_window(key: str) -> Window:
    """Return the window of a study month.

    Raises:
        WindowError: The key is not a month.
    """
    try:
        first = date.fromisoformat(f"{key}-01")
    except ValueError:
        raise WindowError(f"{key!r} is not a month; write months as YYYY-MM") from None
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
    """Return which rows of `schema.STATE` the service surely finds by their study date."""
    return pc.and_(pc.is_valid(states["StudyDate"]), pc.is_null(states["StudyDate_raw"]))


SWEPT_MONTH_SQL = f"""
CASE WHEN StudyDate_raw IS NULL THEN study_month ELSE '{schema.UNDATED}' END
"""
"""SQL for the study month with which a row of the version history is swept."""


def partition_sql(store: Datastore) -> str:
    """Return SQL for the study-date partition of a row of the version history."""
    return f"""
        CASE WHEN {SWEPT_MONTH_SQL} BETWEEN '{FIRST_MONTH:%Y-%m}' AND '{store.now:%Y-%m}'
             THEN study_month ELSE '{schema.UNDATED}' END
    """


def _next_month(month: date) -> date:
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)
