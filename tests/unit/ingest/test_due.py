"""Which windows a named day has, and which windows are searched as one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cohortlake.errors import WindowError
from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window
from cohortlake.ingest.due import due_windows, merge_adjacent, windows_of_days

DAYS = [datetime(2026, 1, n, tzinfo=UTC) for n in range(5, 10)]
NOON = DAYS[3] + timedelta(hours=12)
STORE = Datastore("d" * 32, DAYS[0] + timedelta(hours=9), NOON)


def window(start: datetime, end: datetime, axis: Axis = Axis.UPDATED_AT) -> Window:
    return Window(axis, start, end)


def test_a_named_day_has_what_is_due_of_it_or_else_its_whole_window() -> None:
    gap = window(DAYS[1], DAYS[1] + timedelta(hours=1))
    named = windows_of_days(STORE, ["2026-01-06", "2026-01-07"], {"2026-01-06": [gap]})
    assert named == {"2026-01-06": [gap], "2026-01-07": [window(DAYS[2], DAYS[3])]}


@pytest.mark.parametrize(
    ("day", "windows"),
    [
        ("2026-01-04", []),
        ("2026-01-05", [window(EPOCH, DAYS[1])]),
        ("2026-01-08", [window(DAYS[3], NOON)]),
        ("2026-01-09", []),
    ],
    ids=["before the first", "the first", "today", "tomorrow"],
)
def test_a_named_day_is_cut_where_time_is(day: str, windows: list[Window]) -> None:
    assert windows_of_days(STORE, [day], {}) == {day: windows}


def test_a_key_that_is_not_a_day_is_refused() -> None:
    with pytest.raises(WindowError, match="write days as YYYY-MM-DD"):
        windows_of_days(STORE, ["2026-13-01"], {})


def test_adjacent_windows_of_an_axis_are_merged() -> None:
    first, second = window(DAYS[0], DAYS[1]), window(DAYS[1], DAYS[2])
    after_a_gap = window(DAYS[3], DAYS[4])
    other_axis = window(DAYS[4], DAYS[4] + timedelta(days=1), Axis.CREATED_AT)
    merged = list(merge_adjacent([first, second, after_a_gap, other_axis]))
    assert merged == [window(DAYS[0], DAYS[2]), after_a_gap, other_axis]
    assert list(merge_adjacent([])) == []


def test_all_that_is_due_of_a_new_data_store_is_searched_as_one_window() -> None:
    due = [w for own in due_windows(STORE, [], timedelta(minutes=10)).values() for w in own]
    assert len(due) == 4
    assert list(merge_adjacent(due)) == [window(EPOCH, NOON)]
