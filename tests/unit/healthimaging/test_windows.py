"""Windows tile the axes: no row is in two, none is in none, whatever BETWEEN includes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake import schema
from cohortlake.errors import WindowError
from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import EPOCH, Axis, Datastore, Window
from cohortlake.history.coverage import CoverageInterval, complete_until, covered_intervals
from cohortlake.ingest import partitions
from cohortlake.ingest.due import due_windows, without_overlap
from cohortlake.schema import STUDY_MONTH_SQL

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
SETTLE, LOOKBACK = timedelta(minutes=5), timedelta(minutes=10)

instants = st.datetimes(datetime(2026, 1, 1), datetime(2026, 3, 1)).map(
    lambda t: t.replace(tzinfo=UTC, microsecond=t.microsecond // 1000 * 1000)
)


def _store(created_at: datetime | None, now: datetime = NOW) -> Datastore:
    return Datastore("d" * 32, created_at, now)


def _between(window: Window, instant: datetime, inclusive: bool) -> bool:
    """What a service would do with the criteria, in either meaning of BETWEEN."""
    (first, last) = (v[window.axis.member] for v in window.criteria()["filters"][0]["values"])
    first, last = _milliseconds(first), _milliseconds(last)
    return first <= instant <= last if inclusive else first < instant < last


def _milliseconds(instant: datetime) -> datetime:
    # botocore cuts what it sends to milliseconds.
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


@given(st.lists(instants, min_size=2, max_size=2, unique=True).map(sorted), st.booleans(), instants)
def test_criteria_find_at_least_the_window(
    bounds: list[datetime], inclusive: bool, instant: datetime
) -> None:
    window = Window(Axis.UPDATED_AT, *bounds)
    for near in (bounds[0], bounds[1] - MILLISECOND, instant):
        if bounds[0] <= near < bounds[1]:
            assert _between(window, near, inclusive)


@given(
    st.dates(date(1990, 1, 1), date(2026, 3, 31)), st.sampled_from(["000000", "120000", "235959"])
)
def test_every_study_date_is_in_one_partition(day: date, at: str) -> None:
    tags = {"DICOMStudyDate": f"{day:%Y%m%d}", "DICOMStudyTime": at}
    row = flatten_summaries([{"imageSetId": "a" * 32, "DICOMTags": tags}], "d" * 32)
    months = partitions.months_until_now(_store(None))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    windows = {key: partitions.month_window(key) for key in months}
    holders = [key for key, window in windows.items() if window.start <= midnight < window.end]
    assert holders == [f"{day:%Y-%m}"] == [_partition_of(row)]
    assert not partitions.in_no_month(_store(None), row)[0].as_py()


@pytest.mark.parametrize(
    "text", ["19891231", "20260401", "20240230", "2024.01.31", "20240131 ", "", None]
)
def test_what_is_in_no_month_is_undated(text: str | None) -> None:
    tags = {"DICOMStudyDate": text} if text is not None else {}
    row = flatten_summaries([{"imageSetId": "a" * 32, "DICOMTags": tags}], "d" * 32)
    assert partitions.in_no_month(_store(None), row)[0].as_py()
    assert _partition_of(row) == schema.UNDATED


def _partition_of(row: pa.Table) -> str:
    partition_sql = partitions.partition_sql(_store(None))
    dated = f"SELECT *, {STUDY_MONTH_SQL} AS study_month FROM row"
    ((partition,),) = duckdb.sql(f"SELECT {partition_sql} FROM ({dated})").fetchall()
    return str(partition)


def test_the_last_day_of_a_month_is_asked_for_to_its_last_instant() -> None:
    first, last = partitions.month_window("2024-01").criteria()["filters"][0]["values"]
    assert first["DICOMStudyDateAndTime"] == {
        "DICOMStudyDate": "20231231",
        "DICOMStudyTime": "235959.999999",
    }
    assert last["DICOMStudyDateAndTime"] == {"DICOMStudyDate": "20240201"}


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (NOW, NOW),
        (NOW, NOW - MILLISECOND),
        (NOW.replace(tzinfo=None), NOW),
        (NOW, NOW.astimezone().replace(tzinfo=None)),
    ],
)
def test_a_window_that_holds_nothing_is_refused(start: datetime, end: datetime) -> None:
    with pytest.raises(WindowError):
        Window(Axis.UPDATED_AT, start, end)


@pytest.mark.parametrize(
    "call", [partitions.month_window, lambda k: partitions.day_window(k, _store(None))]
)
def test_a_key_that_is_none_is_refused(call: Any) -> None:
    for key in ("2024-13", "yesterday", "", "2024-02-30"):
        with pytest.raises(WindowError, match="is no"):
            call(key)


def _ledger(searches: list[tuple[datetime, datetime, datetime]]) -> Any:
    rows = [
        {"datastore_id": "d" * 32, "axis": "updated_at", "complete": True,
         "start": start, "end": end, "searched_at": at}
        for start, end, at in searches
    ]  # fmt: skip
    return schema.pa.Table.from_pylist(rows, schema.arrow_schema(schema.COVERAGE))


@given(st.lists(st.integers(1, 60 * 24 * 20), min_size=1, max_size=6))
def test_due_days_leave_no_gap_however_long_between_runs(minutes: list[int]) -> None:
    created, now = datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 1, 5, 10, tzinfo=UTC)
    searches: list[tuple[datetime, datetime, datetime]] = []
    for pause in minutes:
        now += timedelta(minutes=pause)
        store = _store(created, now)
        stretches = covered_intervals(_ledger(searches), "d" * 32, SETTLE)
        due = due_windows(store, stretches, LOOKBACK)
        windows = [window for own in due.values() for window in own]
        assert windows[-1].end == now, "what is open is always due"
        searches += [(w.start, w.end, now) for w in windows]
        after = covered_intervals(_ledger(searches), "d" * 32, SETTLE)
        assert len(after) == 1
        assert complete_until(after) == now - SETTLE


@given(st.lists(instants, max_size=8, unique=True).map(sorted), st.booleans())
def test_what_is_due_and_what_is_proven_cover_all_time(
    cuts: list[datetime], are_open: bool
) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    done = [CoverageInterval(*pair, are_open) for pair in zip(cuts[::2], cuts[1::2], strict=False)]
    store = _store(datetime(2026, 1, 1, 9, tzinfo=UTC), now)
    windows = without_overlap(due_windows(store, done, LOOKBACK))
    due = [window for _, window in windows]
    for earlier, later in pairwise(due):
        assert earlier.end <= later.start, "windows of a run do not overlap"
    if not are_open:
        for stretch in done:
            asked_again = [w for w in due if w.start < stretch.end and stretch.start < w.end]
            assert asked_again == [], "what is proven is not asked for again"
    reached = EPOCH
    for stretch in sorted(
        [*done, *(CoverageInterval(w.start, w.end) for w in due)], key=lambda s: s.start
    ):
        assert stretch.start <= reached, "no gap"
        reached = max(reached, stretch.end)
    assert reached == now


def test_a_gap_is_due_again() -> None:
    created, now = datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 1, 9, 12, tzinfo=UTC)
    day = [datetime(2026, 1, n, tzinfo=UTC) for n in range(5, 11)]
    noon = day[1] + timedelta(hours=12)
    done = [
        CoverageInterval(EPOCH, day[1]),
        CoverageInterval(noon, noon + timedelta(hours=1)),
        CoverageInterval(day[2], now - timedelta(hours=1), is_open=True),
    ]
    due = due_windows(_store(created, now), done, LOOKBACK)
    assert due == {
        "2026-01-06": [
            Window(Axis.UPDATED_AT, day[1], noon),
            Window(Axis.UPDATED_AT, noon + timedelta(hours=1), day[2]),
        ],
        "2026-01-09": [Window(Axis.UPDATED_AT, now - timedelta(hours=1) - LOOKBACK, now)],
    }


def test_a_day_outside_the_data_stores_life_has_no_window() -> None:
    store = _store(datetime(2026, 1, 5, 9, tzinfo=UTC))
    assert partitions.day_window("2026-01-04", store) is None
    assert partitions.day_window("2026-03-11", store) is None
    first = partitions.day_window("2026-01-05", store)
    assert first is not None and first.start == EPOCH
