"""The batches of a publication: each month is read once, each period written when complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake import schema
from cohortlake.privacy import Treatment
from cohortlake.publish import periods
from cohortlake.publish.periods import Periods

MONTHS = st.dictionaries(
    st.one_of(
        st.builds("{:04}-{:02}".format, st.integers(2019, 2023), st.integers(1, 12)),
        st.sampled_from([schema.UNDATED, "0001-01", "0002-01"]),
    ),
    st.integers(1, 150_000),
    max_size=12,
)
DATES = st.sampled_from([Treatment.KEEP, Treatment.SHIFT, Treatment.YEAR])


@given(MONTHS, DATES, st.data())
def test_a_period_is_written_once_and_after_all_its_months(
    sizes: dict[str, int], dates: Treatment, data: st.DataObject
) -> None:
    all_periods = Periods(dates, sizes)
    every = sorted(all_periods.of_months(sizes))
    wanted = frozenset(data.draw(st.lists(st.sampled_from(every)))) if every else frozenset()
    batches = list(all_periods.batches(wanted))
    read = [month for batch in batches for month in batch.months]
    assert sorted(read) == sorted(all_periods.months(wanted))
    assert sorted(period for batch in batches for period in batch.periods) == sorted(wanted)
    for number, batch in enumerate(batches):
        before = frozenset[str]().union(*(each.months for each in batches[: number + 1]))
        assert all_periods.months(batch.periods) <= before
        started = all_periods.of_months(before) & wanted
        written = frozenset[str]().union(*(each.periods for each in batches[: number + 1]))
        assert batch.unfinished == started - written
        rows = sum(sizes[month] for month in batch.months)
        assert rows <= periods._BATCH_ROWS or len(batch.months) == 1


def test_periods_without_rows_are_in_a_batch() -> None:
    """Their files are replaced by files without rows."""
    (batch,) = Periods(Treatment.KEEP, {}).batches(["2024-01"])
    assert (batch.months, batch.periods) == (frozenset(), {"2024-01"})


def test_a_shifted_year_waits_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periods, "_BATCH_ROWS", 1)
    shifted = Periods(Treatment.SHIFT, {"2023-05": 1, "2024-05": 1})
    first, second = shifted.batches(["2022-XX", "2023-XX", "2024-XX"])
    assert (first.periods, first.unfinished) == ({"2022-XX"}, {"2023-XX"})
    assert (second.periods, second.unfinished) == ({"2023-XX", "2024-XX"}, frozenset())
