"""The laws of a shared search, without wire or threads: whoever pages what, and when.

The machine plays the service and all workers. It draws how long each page is, which of the
workers goes on, when a chain is shared, which token is refused, and where rows lie: in the
window, at its ends, and just outside, where the criteria find them too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from laws import examples

from cohortlake.healthimaging import EPOCH, Axis, Page, Window
from cohortlake.healthimaging.page import Head
from cohortlake.healthimaging.ranges import Chain, Range, SearchedSoFar
from cohortlake.healthimaging.work_queue import WorkQueue

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=30)
MOST_WORKERS = 6
MICROSECOND, MILLISECOND, DAY = (timedelta(microseconds=n) for n in (1, 1000, 86_400_000_000))
LAST_OF_DAY = DAY - MICROSECOND


@dataclass(frozen=True)
class Row:
    """An image set: instants, and a study date with a time."""

    head: Head
    order: dict[str, datetime]


@dataclass
class Worker:
    """Follows a chain as `WindowSearch` does."""

    chain: Chain
    token: int | None = None
    asked: dict[str, Any] | None = None
    came: Page | None = None


@dataclass
class Service:
    """Answers searches; what is not documented is drawn."""

    rows: list[Row] = field(default_factory=list)
    includes_ends: bool = True
    reverses_ties: bool = True
    takes_two_filters: bool = True

    def answer(self, criteria: dict[str, Any], token: int | None, size: int) -> Page:
        name, descending = criteria["sort"]["sortField"], criteria["sort"]["sortOrder"] == "DESC"
        rows = [row for row in self.rows if all(self._finds(f, row) for f in criteria["filters"])]
        if descending and self.reverses_ties:
            rows.reverse()
        rows.sort(key=lambda row: row.order[name], reverse=descending)
        start = token or 0
        more = start + size < len(rows)
        heads = tuple(row.head for row in rows[start : start + size])
        return Page(b"", heads, str(start + size) if more else None)

    def _finds(self, condition: dict[str, Any], row: Row) -> bool:
        low, high = condition["values"]
        ((name, first),) = low.items()
        first, last, value = _instant(first), _instant(high[name]), row.order[name]
        return first <= value <= last if self.includes_ends else first < value < last


def _instant(bound: datetime | dict[str, str]) -> datetime:
    if isinstance(bound, datetime):
        return bound
    text = bound["DICOMStudyDate"] + bound.get("DICOMStudyTime", "000000.000000")
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f").replace(tzinfo=UTC)


def _row(number: int, instant: datetime, created_at: datetime) -> Row:
    tags = {"DICOMStudyDate": f"{instant:%Y%m%d}", "DICOMStudyTime": f"{instant:%H%M%S.%f}"}
    head = Head(
        f"{number:032d}",
        instant.timestamp(),
        created_at.timestamp(),
        msgspec.Raw(msgspec.json.encode(tags)),
    )
    order = {"DICOMStudyDateAndTime": instant, "updatedAt": instant, "createdAt": created_at}
    return Row(head, order)


class _NothingToDo(Exception):
    """A worker would wait for others."""


def _would_wait() -> None:
    raise _NothingToDo


# How far from an end of a window: just before, just behind, and a day's last instant.
_steps = st.sampled_from(
    [
        *(-LAST_OF_DAY, -2 * MILLISECOND, -MILLISECOND, -MICROSECOND, 0 * DAY),
        *(MILLISECOND, 2 * MILLISECOND, 5 * MILLISECOND, LAST_OF_DAY),
    ]
)
_clusters = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.5, 1.0, 0.25, 0.77]),  # where in the time range
        _steps,
        st.sampled_from([60, 60, 25, 3]),  # how many rows
        st.sampled_from([0 * DAY, 0 * DAY, MICROSECOND, MILLISECOND, timedelta(minutes=7)]),
        st.sampled_from([0 * DAY, MILLISECOND, timedelta(hours=1)]),  # the same, of createdAt
    ),
    min_size=2,
    max_size=5,
)


class SharedSearch(RuleBasedStateMachine):
    """Each row of the windows comes once, whatever happens."""

    @initialize(
        axis=st.sampled_from([*Axis, Axis.STUDY_DATE]),
        days=st.sampled_from([1, 1, 2, 12]),
        clusters=_clusters,
        two_windows=st.booleans(),
        includes_ends=st.booleans(),
        reverses_ties=st.booleans(),
        takes_two_filters=st.sampled_from([True, True, False]),
    )
    def begin(
        self,
        axis: Axis,
        days: int,
        clusters: list[tuple[float, timedelta, int, timedelta, timedelta]],
        two_windows: bool,
        **service: bool,
    ) -> None:
        self.service = Service(**service)
        for share, step, count, apart, created_apart in clusters:
            at = START + round(share * days) * DAY + step
            created = at if axis is Axis.CREATED_AT else START + len(self.service.rows) * DAY / 999
            for n in range(count):
                instant = at + n * apart
                created_at = instant if axis is Axis.CREATED_AT else created + n * created_apart
                self.service.rows.append(_row(len(self.service.rows), instant, created_at))
        end, middle = START + days * DAY, START + days // 2 * DAY
        bounds = [START, middle, end] if two_windows and days > 1 else [START, end]
        self.windows = [Window(axis, *ends) for ends in itertools.pairwise(bounds)]
        self.queue = WorkQueue(self.windows, NOW, lambda: True, EPOCH)
        self.queue._changed.wait = _would_wait  # type: ignore[assignment,method-assign]
        self.workers: list[Worker] = []
        self.rows_of: dict[Range, list[str]] = {}
        self.finished: Counter[Range] = Counter()

    def _worker(self, number: int) -> Worker:
        return self.workers[number % len(self.workers)]

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def take(self) -> None:
        """A worker asks for something to do."""
        try:
            chain = self.queue.take()
        except _NothingToDo:
            return
        if chain:
            self.workers.append(Worker(chain))

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, 5), size=st.sampled_from([1, 2, 3, 5, 12]))
    def ask(self, number: int, size: int) -> None:
        """The service answers a worker; the page is on its way."""
        worker = self._worker(number)
        if worker.came or self._is_done(worker):
            return
        criteria = worker.chain.criteria()
        if len(criteria["filters"]) > 1 and not self.service.takes_two_filters:
            assert self.queue.refuse(worker.chain)
            self._finish(worker)
            return
        worker.came = self.service.answer(criteria, worker.token, size)

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, 5))
    def receive(self, number: int) -> None:
        """A page reaches its worker."""
        worker = self._worker(number)
        if worker.came is None:
            return
        page = worker.chain.follow(worker.came)
        worker.came, worker.token = None, int(page.next_token) if page.next_token else None
        rows = self.rows_of.setdefault(worker.chain.part, [])
        rows += [h.image_set_id for h in page.heads if h.image_set_id not in page.skip]
        self.queue.page_arrived(page.new_rows)
        self._is_done(worker)

    @precondition(lambda self: self.workers)
    @rule(
        number=st.integers(0, 5),
        size=st.sampled_from([1, 2, 4]),
        pages=st.integers(4, 6),
        one_is_on_its_way=st.booleans(),
    )
    def go_on(self, number: int, size: int, pages: int, one_is_on_its_way: bool) -> None:
        """A worker gets several pages; then another asks for something to do."""
        worker = self._worker(number)
        for _ in range(pages):
            if worker in self.workers:
                self.ask(self.workers.index(worker), size)
            if worker in self.workers:
                self.receive(self.workers.index(worker))
        if worker in self.workers and one_is_on_its_way:
            self.ask(self.workers.index(worker), size)
        if len(self.workers) < MOST_WORKERS:
            self.take()

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, 5))
    def refuse_token(self, number: int) -> None:
        """The service does not take a worker's token."""
        worker = self._worker(number)
        if worker.came or worker.token is None or self._is_done(worker):
            return
        worker.chain.resume()
        worker.token = None
        self._is_done(worker)

    def _is_done(self, worker: Worker) -> bool:
        if worker.chain.is_over:
            self._finish(worker)
            return True
        return False

    def _finish(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if self.queue.finish(worker.chain):
            self.finished[worker.chain.part] += 1

    @invariant()
    def no_row_comes_twice(self) -> None:
        rows = list(itertools.chain(*getattr(self, "rows_of", {}).values()))
        assert len(rows) == len(set(rows))

    @invariant()
    def all_before_a_position_has_come(self) -> None:
        for part, rows in getattr(self, "rows_of", {}).items():
            end = min(part.position, part.end)
            assert set(self._rows_between(part.window.start, end)) <= set(rows)

    def _rows_between(self, start: datetime, end: datetime) -> list[str]:
        name = self.windows[0].axis.member
        return [r.head.image_set_id for r in self.service.rows if start <= r.order[name] < end]

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        while True:
            if not self.workers:
                self.take()
                if not self.workers:
                    break
            self.ask(0, 12)
            if self.workers:
                self.receive(0)
            self.no_row_comes_twice()
        parts = sorted(self.finished, key=lambda part: part.window.start)
        assert set(self.finished.values()) == {1}
        assert [part.window.start for part in parts] == [
            self.windows[0].start,
            *(part.end for part in parts[:-1]),
        ]
        assert parts[-1].end == self.windows[-1].end
        for part in parts:
            expected = self._rows_between(part.window.start, part.end)
            assert sorted(self.rows_of.get(part, [])) == sorted(expected)


TestSharedSearch = SharedSearch.TestCase
TestSharedSearch.settings = settings(
    max_examples=examples(100, quick=12), stateful_step_count=40, deadline=None
)


def _day_with_pages_seen() -> tuple[Service, Chain]:
    """A day of forty studies, of which four pages of two have come."""
    service = Service([_row(number, START, START + number * MILLISECOND) for number in range(40)])
    chain = Chain(Range(Window(Axis.STUDY_DATE, START, START + DAY)))
    for token in (0, 2, 4, 6):
        assert chain.follow(service.answer(chain.criteria(), token, 2)).new_rows == 2
    return service, chain


def test_the_page_that_comes_after_a_day_was_sliced_is_left_to_the_slices() -> None:
    service, chain = _day_with_pages_seen()
    late = service.answer(chain.criteria(), 8, 2)
    slices = chain.give_away(SearchedSoFar(8, DAY), slices_until=NOW)
    assert slices is not None
    assert slices.day == chain.window
    assert chain.follow(late).new_rows == 0
    assert chain.is_over
    assert slices.follow(service.answer(slices.criteria(), 0, 50)).new_rows == 32


def test_a_day_whose_slices_are_refused_is_paged_without_what_came() -> None:
    service, chain = _day_with_pages_seen()
    slices = chain.give_away(SearchedSoFar(8, DAY), slices_until=NOW)
    assert slices is not None
    (whole_day,) = slices.refuse() or []
    assert slices.is_over
    assert len(whole_day.criteria()["filters"]) == 1
    assert whole_day.follow(service.answer(whole_day.criteria(), 0, 50)).new_rows == 32


def test_nothing_stands_in_for_slices_that_have_brought_rows_or_for_a_search() -> None:
    service, chain = _day_with_pages_seen()
    assert chain.refuse() is None
    slices = chain.give_away(SearchedSoFar(8, DAY), slices_until=NOW)
    assert slices is not None
    slices.follow(service.answer(slices.criteria(), 0, 10))
    assert slices.refuse() is None


def test_a_helper_that_is_refused_leaves_the_rest_to_the_other_chain() -> None:
    service, chain = _day_with_pages_seen()
    helper = chain.give_away(SearchedSoFar(8, DAY))
    assert helper is not None
    assert helper.criteria()["sort"]["sortOrder"] == "DESC"
    assert helper.follow(service.answer(helper.criteria(), 0, 5)).new_rows == 5
    assert helper.refuse() == []
    assert helper.is_over
    assert chain.follow(service.answer(chain.criteria(), 8, 50)).new_rows == 27
