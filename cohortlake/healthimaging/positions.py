"""Where the rows of a page lie on the axis that a chain is ordered by.

The criteria ask for a little more than a window (`healthimaging.windows`), so a page also
brings rows of the adjacent windows. A chain skips them. It uses them for one decision only: that
it has passed the end of its window. Cuts, slices, restarts and the density count rows of the
chain's own window. This module says which rows these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from cohortlake.dicom_values import read_da
from cohortlake.epoch import epoch_seconds
from cohortlake.healthimaging.page import Head
from cohortlake.healthimaging.windows import EPOCH, MARGIN, Axis, Window

_DAY = timedelta(days=1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class PageRows:
    """The rows of a page, sorted by whether they lie in a window.

    Attributes:
        positions: Id -> position on the axis, for rows of the window, in the order sent.
        ids: Rows of the window, and rows without a readable position.
        outside: Ids of all other rows.
        pass_the_start: Whether a row lies before the window on its axis.
        pass_the_end: Whether a row lies after it.
    """

    positions: Mapping[str, datetime]
    ids: Sequence[str]
    outside: frozenset[str]
    pass_the_start: bool
    pass_the_end: bool


def rows_of(heads: Iterable[Head], window: Window, day: Window | None = None) -> PageRows:
    """Sort the rows of a page by whether they lie in a window.

    Args:
        heads: The rows, in the order sent.
        window: The window.
        day: A second window, in which they must lie too.
    """
    positions: dict[str, datetime] = {}
    ids: list[str] = []
    outside: set[str] = set()
    passes_start = passes_end = False
    for head in heads:
        position = _position(head, window.axis)
        passes_start |= position is not None and position < window.start
        passes_end |= position is not None and position >= window.end
        if _is_outside(position, window) or (day and _is_outside(_position(head, day.axis), day)):
            outside.add(head.image_set_id)
            continue
        ids.append(head.image_set_id)
        if position is not None:
            positions[head.image_set_id] = position
    return PageRows(positions, ids, frozenset(outside), passes_start, passes_end)


def grain(axis: Axis) -> timedelta:
    """Return the resolution of an axis. A cut cannot separate rows that lie closer together."""
    return _DAY if axis is Axis.STUDY_DATE else _MILLISECOND


def next_cut(position: datetime, axis: Axis) -> datetime:
    """Return the first possible cut after a row.

    The criteria of the window after the cut do not find the row again, except for a study at the
    last instant of its day.
    """
    if axis is Axis.STUDY_DATE:
        return position + _DAY
    after = position + 2 * MARGIN
    cut = floor(after, axis)
    return cut if cut == after else cut + _MILLISECOND


def floor(instant: datetime, axis: Axis) -> datetime:
    """Return the last possible cut at or before an instant.

    Cuts lie on the service's own resolution, so that no row lies between two of them.
    """
    if axis is Axis.STUDY_DATE:
        return instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _is_outside(position: datetime | None, window: Window) -> bool:
    return position is not None and not window.start <= position < window.end


def _position(head: Head, axis: Axis) -> datetime | None:
    if axis is Axis.STUDY_DATE:
        return _study_day(head.tags)
    return _instant(head.updated_at if axis is Axis.UPDATED_AT else head.created_at)


def _instant(value: object) -> datetime | None:
    seconds = epoch_seconds(value)
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def _study_day(raw_tags: msgspec.Raw) -> datetime | None:
    """Return a study date if it is written YYYYMMDD; how the service reads others is unknown."""
    tags = msgspec.json.decode(raw_tags)
    text = tags.get("DICOMStudyDate") if isinstance(tags, dict) else None
    day, other_text = read_da(text) if isinstance(text, str) else (None, None)
    if day is None or other_text is not None:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
