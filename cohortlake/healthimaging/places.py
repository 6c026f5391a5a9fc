"""Where the rows of a page lie, seen from the chain that asked for it.

The criteria ask for a little more than a window (`healthimaging.windows`), so a page also
brings rows of the neighbouring windows. A chain skips them, and nothing that it decides
depends on them but one thing: that it has come past its end. It is cut, sliced, paged from
both ends and resumed at rows of its own window, and its density counts only these. This
module decides which rows they are.
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
class Rows:
    """The rows of a page.

    Attributes:
        places: Where the rows of the window lie on its axis, by id, in the order sent.
        ids: The rows of the window, and those that say nothing readable of where they lie.
        outside: The ids of all others.
        pass_the_start: Whether one of them lies before the window, on its axis.
        pass_the_end: Whether one of them lies behind it.
    """

    places: Mapping[str, datetime]
    ids: Sequence[str]
    outside: frozenset[str]
    pass_the_start: bool
    pass_the_end: bool


def rows_of(heads: Iterable[Head], window: Window, day: Window | None = None) -> Rows:
    """Sort the rows of a page by whether they lie in a window.

    Args:
        heads: The rows, in the order sent.
        window: The window.
        day: A second window, in which they must lie too.
    """
    places: dict[str, datetime] = {}
    ids: list[str] = []
    outside: set[str] = set()
    passes_start = passes_end = False
    for head in heads:
        place = _place(head, window.axis)
        passes_start |= place is not None and place < window.start
        passes_end |= place is not None and place >= window.end
        if _is_outside(place, window) or (day and _is_outside(_place(head, day.axis), day)):
            outside.add(head.image_set_id)
            continue
        ids.append(head.image_set_id)
        if place is not None:
            places[head.image_set_id] = place
    return Rows(places, ids, frozenset(outside), passes_start, passes_end)


def grain(axis: Axis) -> timedelta:
    """Return the step of an axis: no cut can part rows that lie closer."""
    return _DAY if axis is Axis.STUDY_DATE else _MILLISECOND


def next_cut(place: datetime, axis: Axis) -> datetime:
    """Return the first place behind a row where a cut may lie.

    The criteria of what lies behind it do not find the row again, unless it is a study at the
    last instant of its day.
    """
    if axis is Axis.STUDY_DATE:
        return place + _DAY
    behind = place + 2 * MARGIN
    cut = floor(behind, axis)
    return cut if cut == behind else cut + _MILLISECOND


def floor(instant: datetime, axis: Axis) -> datetime:
    """Return the last place before an instant, or the instant itself, where a cut may lie.

    Cuts lie on the service's own grain, so that no row lies between two of them.
    """
    if axis is Axis.STUDY_DATE:
        return instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _is_outside(place: datetime | None, window: Window) -> bool:
    return place is not None and not window.start <= place < window.end


def _place(head: Head, axis: Axis) -> datetime | None:
    if axis is Axis.STUDY_DATE:
        return _study_day(head.tags)
    return _instant(head.updated_at if axis is Axis.UPDATED_AT else head.created_at)


def _instant(value: object) -> datetime | None:
    seconds = epoch_seconds(value)
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


def _study_day(raw_tags: msgspec.Raw) -> datetime | None:
    """Return a study date, if it is written so that the service reads it as we do."""
    tags = msgspec.json.decode(raw_tags)
    text = tags.get("DICOMStudyDate") if isinstance(tags, dict) else None
    day, other_text = read_da(text) if isinstance(text, str) else (None, None)
    if day is None or other_text is not None:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
