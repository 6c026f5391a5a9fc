"""Ranges tile their windows however they are cut, and hand out all work until it is done."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cohortlake.healthimaging import Axis, Range, Ranges, Window

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _window(minutes: int, axis: Axis = Axis.UPDATED_AT) -> Window:
    unit = timedelta(days=1) if axis is Axis.STUDY_DATE else MINUTE
    return Window(axis, START, START + minutes * unit)


@given(
    st.sampled_from(list(Axis)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=40),
)
def test_cuts_tile_the_window(axis: Axis, pages: list[tuple[float, int]]) -> None:
    whole = _window(3000, axis)
    parts = [Range(whole)]
    for number, (share, rows) in enumerate(pages):
        part = parts[number % len(parts)]
        before = part.position
        last = before + share * (part.end - before)
        part.advance(before, last, rows)
        given_away = part.split()
        if given_away is not None:
            parts.append(given_away)
            assert part.position < part.end == given_away.window.start
            if axis is Axis.STUDY_DATE:
                assert part.end.time() == START.time()
            else:
                assert part.end.microsecond % 1000 == 0
    bounds = sorted((part.window.start, part.end) for part in parts)
    assert bounds[0][0] == whole.start
    assert bounds[-1][1] == whole.end
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


def test_little_work_is_not_shared() -> None:
    part = Range(_window(60))
    assert part.split() is None, "nothing is known of it yet"
    part.advance(START, START + 30 * MINUTE, 50)
    assert part.split() is None, "two more pages at the most"
    part.advance(START, START + 31 * MINUTE, 300)
    assert part.split() is not None
    part.close()
    assert part.split() is None, "nothing is left of it"


def test_a_millisecond_is_not_cut() -> None:
    part = Range(Window(Axis.UPDATED_AT, START, START + timedelta(milliseconds=1)))
    part.advance(START, START, 50)
    assert part.split() is None


def test_idle_workers_wait_until_there_is_something_to_share_or_all_is_done() -> None:
    ranges = Ranges([_window(60)])
    first = ranges.take()
    assert first is not None
    taken: list[Range | None] = []
    helper = threading.Thread(target=lambda: taken.append(ranges.take()))
    helper.start()
    first.advance(START, START + MINUTE, 50)
    ranges.paged()
    helper.join(timeout=10)
    (second,) = taken
    assert second is not None
    assert second.window.start == first.end

    first.close()
    second.close()
    idle = threading.Thread(target=lambda: taken.append(ranges.take()))
    idle.start()
    ranges.done(first)
    ranges.done(second)
    idle.join(timeout=10)
    assert taken == [second, None]


def test_a_stop_hands_nothing_out_any_more() -> None:
    ranges = Ranges([_window(1), _window(2)])
    ranges.stop()
    assert ranges.take() is None
