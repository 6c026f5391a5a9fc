"""However a search is shared out, its ranges tile the windows and each row comes once."""

from __future__ import annotations

import functools
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from endpoint import Endpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from cohortlake.errors import RequestRefused, ServiceUnavailable, TokenRefused
from cohortlake.healthimaging import (
    Arrival,
    Axis,
    Datastore,
    Meter,
    Page,
    Range,
    Window,
    WindowSearch,
)
from cohortlake.healthimaging.work_queue import WorkQueue

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=30)
STORE = Datastore("d" * 32, START, END)
WHOLE = Window(Axis.UPDATED_AT, START, END)
MILLISECOND = timedelta(milliseconds=1)
_DAY = timedelta(days=1)


class Client:
    """Asks the endpoint's list as `HealthImaging` does, without HTTP; each order is sorted once.

    The answers alone decide how a search is shared, and tens of thousands of rows must come at
    once.

    Args:
        image_sets: Summaries as on the wire.
        reverses_ties: Whether descending order is the ascending one reversed among equals.
        takes_two_filters: Whether a second filter is allowed.
        refused_tokens: Share of tokens refused.
        latency: Seconds that each answer takes.
    """

    def __init__(
        self,
        image_sets: list[dict[str, Any]],
        *,
        reverses_ties: bool = True,
        takes_two_filters: bool = True,
        refused_tokens: float = 0.0,
        latency: float = 0.0,
    ) -> None:
        self.image_sets = image_sets
        self.requests: list[Mapping[str, Any]] = []
        self._endpoint = Endpoint()
        self._endpoint.image_sets = image_sets
        self._endpoint.reverses_ties = reverses_ties
        self._endpoint.in_order = functools.cache(self._endpoint.in_order)  # type: ignore[method-assign]
        self._takes_two_filters = takes_two_filters
        self._refused_tokens = refused_tokens
        self._latency = latency
        self._random = random.Random(0)  # noqa: S311
        self._lock = threading.Lock()

    def has_slack(self) -> bool:
        return True

    def search_page(
        self, _: str, criteria: Mapping[str, Any], token: str | None, meter: Meter
    ) -> Page:
        time.sleep(self._latency)
        with self._lock:
            meter.requests += 1
            self.requests.append(criteria)
            if len(criteria["filters"]) > 1 and not self._takes_two_filters:
                raise RequestRefused("one filter only")
            if token and self._random.random() < self._refused_tokens:
                raise TokenRefused("no")
            wire = json.dumps(criteria, default=datetime.timestamp)
            answer = self._endpoint.search(json.loads(wire), 50, token)
        return Page.checked(json.dumps(answer).encode())


def _image_sets(instants: Sequence[datetime]) -> list[dict[str, Any]]:
    return [
        {
            "imageSetId": f"{number:032d}",
            "updatedAt": instant.timestamp(),
            "createdAt": (START + number * timedelta(minutes=7)).timestamp(),
            "DICOMTags": {"DICOMStudyDate": f"{instant:%Y%m%d}"},
        }
        for number, instant in enumerate(instants)
    ]


def _search(service: Client, windows: Sequence[Window], workers: int = 4) -> WindowSearch:
    return WindowSearch(service, STORE, windows, workers)  # type: ignore[arg-type]


def _ids(arrivals: Sequence[Arrival]) -> list[str]:
    """Return the ids of the rows that count."""
    pages = [arrival.page for arrival in arrivals if arrival.page]
    return [h.image_set_id for p in pages for h in p.heads if h.image_set_id not in p.skip]


def _assert_tiled(arrivals: Sequence[Arrival], windows: Sequence[Window]) -> None:
    parts = {arrival.part for arrival in arrivals}
    done = [arrival.part for arrival in arrivals if arrival.page is None]
    assert Counter(done) == Counter(parts), "each range is done once"
    bounds = sorted((part.window.start, part.end) for part in parts)
    assert (bounds[0][0], bounds[-1][1]) == (windows[0].start, windows[-1].end)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


clusters = st.lists(
    st.tuples(
        st.integers(0, 30 * 86_400_000 - 1),  # where, in milliseconds
        st.integers(1, 400),  # how many
        st.sampled_from([0, 1, 1000, 3_600_000]),  # how far apart
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=examples(60, quick=10))
@given(clusters, st.integers(1, 6), st.sampled_from([0.0, 0.1]), st.booleans(), st.booleans())
def test_each_row_comes_once(
    found: list[tuple[int, int, int]], workers: int, refused: float, ties: bool, two: bool
) -> None:
    places = [at + n * apart for at, count, apart in found for n in range(count)]
    instants = [START + place % (30 * 86_400_000) * MILLISECOND for place in places]
    for axis in Axis:
        service = Client(
            _image_sets(instants),
            reverses_ties=ties or axis is Axis.STUDY_DATE,
            takes_two_filters=two,
            refused_tokens=refused,
        )
        windows = [Window(axis, START, START + 9 * _DAY), Window(axis, START + 9 * _DAY, END)]
        arrivals = list(_search(service, windows, workers).arrivals())
        expected = _expected(service, axis)
        assert sorted(_ids(arrivals)) == expected
        _assert_tiled(arrivals, windows)


def _expected(service: Client, axis: Axis) -> list[str]:
    rows = service.image_sets
    if axis is Axis.STUDY_DATE:
        return sorted(row["imageSetId"] for row in rows)
    return sorted(
        row["imageSetId"] for row in rows if START.timestamp() <= row[axis.member] < END.timestamp()
    )


@pytest.mark.parametrize("reverses_ties", [True, False])
def test_a_single_millisecond_is_paged_from_both_ends(reverses_ties: bool) -> None:
    instant = START + 5 * _DAY
    service = Client(_image_sets([instant] * 5000), reverses_ties=reverses_ties, latency=0.002)
    arrivals = list(_search(service, [WHOLE]).arrivals())
    assert sorted(_ids(arrivals)) == [f"{n:032d}" for n in range(5000)]
    orders = Counter(request["sort"]["sortOrder"] for request in service.requests)
    if reverses_ties:
        assert min(orders.values()) > 25, "each did its part"
        assert len(service.requests) < 1.05 * 100
    else:
        assert orders["ASC"] >= 100, "the first chain went on to the end"


@pytest.mark.parametrize("takes_two_filters", [True, False])
def test_a_busy_day_of_studies_is_sliced_by_creation(takes_two_filters: bool) -> None:
    busy = START + 5 * _DAY
    service = Client(_image_sets([busy] * 4000), takes_two_filters=takes_two_filters, latency=0.002)
    arrivals = list(_search(service, [Window(Axis.STUDY_DATE, START, END)]).arrivals())
    assert sorted(_ids(arrivals)) == [f"{n:032d}" for n in range(4000)]
    sliced = [r for r in service.requests if len(r["filters"]) > 1]
    backwards = [r for r in service.requests if r["sort"]["sortOrder"] == "DESC"]
    if takes_two_filters:
        assert len(sliced) > 60
        assert not backwards
    else:
        assert len(sliced) == 1
        assert len(backwards) > 30


def test_a_burst_is_shared_between_all_workers() -> None:
    burst = [START + 20 * _DAY + n * 10 * MILLISECOND for n in range(5000)]
    spread = [START + n * timedelta(hours=7) for n in range(100)]
    service = Client(_image_sets(burst + spread), latency=0.002)
    arrivals = list(_search(service, [WHOLE], workers=8).arrivals())
    assert len(_ids(arrivals)) == 5100
    rows = Counter(arrival.part for arrival in arrivals if arrival.page)
    assert sum(pages >= 5 for pages in rows.values()) >= 6, "most workers had a part of it"
    assert len(service.requests) < 1.2 * 5100 / 50


def test_few_requests_are_in_vain() -> None:
    spread = [START + n * timedelta(seconds=60) for n in range(20_000)]
    service = Client(_image_sets(spread), latency=0.002)
    list(_search(service, [WHOLE], workers=8).arrivals())
    assert len(service.requests) <= 1.08 * 400


def test_a_window_without_rows_costs_one_request() -> None:
    service = Client([])
    search = _search(service, [WHOLE], workers=8)
    assert [arrival.page and arrival.page.heads for arrival in search.arrivals()] == [(), None]
    assert len(service.requests) == 1
    progress = search.progress()
    assert (progress.covered, progress.rows, progress.requests) == (1.0, 0, 1)


def test_little_work_is_not_shared() -> None:
    service = Client(_image_sets([START + n * timedelta(hours=7) for n in range(100)]))
    list(_search(service, [WHOLE], workers=8).arrivals())
    assert len(service.requests) <= 3


def test_without_slack_nobody_is_given_anything() -> None:
    service = Client(_image_sets([START + n * timedelta(minutes=1) for n in range(3000)]))
    service.has_slack = lambda: False  # type: ignore[method-assign]
    arrivals = list(_search(service, [WHOLE], workers=8).arrivals())
    assert len({arrival.part for arrival in arrivals}) == 1


def test_progress_says_what_is_covered_and_what_is_likely_to_come() -> None:
    service = Client(_image_sets([START + n * timedelta(minutes=43) for n in range(1000)]))
    search = _search(service, [WHOLE], workers=1)
    arrivals = search.arrivals()
    for arrival in itertools.islice(arrivals, 10):
        assert arrival.page
    progress = search.progress()
    assert progress.rows == 500
    assert 0.49 <= progress.covered <= 1
    assert progress.rows_left <= 520
    list(arrivals)
    assert search.progress().covered == 1.0
    assert search.progress().rows_left == 0


def test_a_failure_is_raised_after_all_that_came() -> None:
    service = Client(_image_sets([START + n * timedelta(minutes=1) for n in range(3000)]))
    answer, count = service.search_page, itertools.count()

    def failing(*request: Any) -> Page:
        if next(count) >= 20:
            raise ServiceUnavailable("gone")
        return answer(*request)

    service.search_page = failing  # type: ignore[method-assign]
    came: list[Arrival] = []
    with pytest.raises(ServiceUnavailable):
        came.extend(_each(came, _search(service, [WHOLE]).arrivals()))
    ids = set(_ids(came))
    assert len(ids) > 500
    for part in {arrival.part for arrival in came}:
        assert ids >= _rows_before_position(part)


def _each(came: list[Arrival], arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    for arrival in arrivals:
        came.append(arrival)
        yield from ()


def _rows_before_position(part: Range) -> set[str]:
    first = -(-((part.window.start - START) // MILLISECOND) // 60_000)
    last = -(-((min(part.position, part.end) - START) // MILLISECOND) // 60_000)
    return {f"{n:032d}" for n in range(first, min(last, 3000))}


def test_a_reader_that_leaves_stops_the_search() -> None:
    service = Client(_image_sets([START + n * timedelta(minutes=1) for n in range(40_000)]))
    arrivals = _search(service, [WHOLE]).arrivals()
    next(arrivals)
    arrivals.close()  # type: ignore[attr-defined]
    assert len(service.requests) < 800


def test_a_stop_hands_nothing_out_any_more() -> None:
    queue = WorkQueue([WHOLE], END, lambda: True, START)
    queue.stop()
    assert queue.take() is None


def test_rows_from_the_day_before_are_no_place_to_cut() -> None:
    """At the last instant of a day, they are found by the search of the next one."""
    rows = _image_sets(
        [START + 27 * _DAY] * 400 + [START + (28 + n % 31) * _DAY for n in range(3000)]
    )
    for row in rows[:400]:
        row["DICOMTags"]["DICOMStudyTime"] = "235959.999999"
    service = Client(rows, latency=0.002)
    window = Window(Axis.STUDY_DATE, START - 365 * _DAY, START + 90 * _DAY)
    arrivals = list(_search(service, [window], workers=16).arrivals())
    assert sorted(_ids(arrivals)) == [f"{n:032d}" for n in range(3400)]
    _assert_tiled(arrivals, [window])
