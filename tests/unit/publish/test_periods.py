"""The batches of a publication: each row is read once, each period written when complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cohortlake import schema
from cohortlake.privacy import Treatment
from cohortlake.publish.periods import Periods
from cohortlake.storage import engine

MONTHS = st.dictionaries(
    st.one_of(
        st.builds("{:04}-{:02}".format, st.integers(2019, 2023), st.integers(1, 12)),
        st.sampled_from([schema.UNDATED, "0001-01", "0002-01"]),
    ),
    st.integers(1, 300_000),
    max_size=12,
)
MOST_ROWS = 120_000
DATES = st.sampled_from([Treatment.KEEP, Treatment.SHIFT, Treatment.YEAR])


@given(MONTHS, DATES, st.data())
def test_a_period_is_written_once_and_after_all_its_rows(
    sizes: dict[str, int], dates: Treatment, data: st.DataObject
) -> None:
    all_periods = Periods(dates, sizes)
    every = sorted(all_periods.of_months(sizes))
    wanted = frozenset(data.draw(st.lists(st.sampled_from(every)))) if every else frozenset()
    batches = list(all_periods.batches(wanted, MOST_ROWS))
    read = [month for batch in batches if (batch.hashes or (0,))[0] == 0 for month in batch.months]
    assert sorted(read) == sorted(all_periods.months(wanted))
    assert sorted(period for batch in batches for period in batch.periods) == sorted(wanted)
    for number, batch in enumerate(batches):
        begun = frozenset[str]().union(*(each.months for each in batches[: number + 1]))
        after = frozenset[str]().union(*(each.months for each in batches[number + 1 :]))
        assert all_periods.months(batch.periods) <= begun - after
        started = all_periods.of_months(begun) & wanted
        written = frozenset[str]().union(*(each.periods for each in batches[: number + 1]))
        assert batch.unfinished == started - written


@given(MONTHS, DATES, st.lists(st.integers(0, 2**63 - 1)))
def test_each_row_is_in_one_batch(
    sizes: dict[str, int], dates: Treatment, study_hashes: list[int]
) -> None:
    all_periods = Periods(dates, sizes)
    batches = list(all_periods.batches(all_periods.of_months(sizes), MOST_ROWS))
    with engine.connection() as con:
        for study_hash in (0, *study_hashes, 2**63 - 1):
            row = (
                f"SELECT {study_hash} AS study_hash, unnest({sorted(sizes)}::TEXT[]) AS study_month"
            )
            count = " + ".join(f"{batch.sql}::INT" for batch in batches) or "0"
            counts = con.sql(f"SELECT {count} FROM ({row})").fetchall()
            assert counts == [(1,)] * len(sizes)


@given(MONTHS, DATES)
def test_a_batch_has_few_rows(sizes: dict[str, int], dates: Treatment) -> None:
    all_periods = Periods(dates, sizes)
    for batch in all_periods.batches(all_periods.of_months(sizes), MOST_ROWS):
        low, high = batch.hashes or (0, 2**63 - 1)
        share = (high + 1 - low) / 2**63
        rows = share * sum(sizes[month] for month in batch.months)
        assert rows <= MOST_ROWS * 1.000001
        assert batch.hashes is None or len(batch.months) == 1


def test_periods_without_rows_are_in_a_batch() -> None:
    """Their files are replaced by files without rows."""
    (batch,) = Periods(Treatment.KEEP, {}).batches(["2024-01"], MOST_ROWS)
    assert (batch.months, batch.periods) == (frozenset(), {"2024-01"})


def test_a_shifted_year_waits_for_the_next_one() -> None:
    shifted = Periods(Treatment.SHIFT, {"2023-05": 1, "2024-05": 1})
    first, second = shifted.batches(["2022-XX", "2023-XX", "2024-XX"], most_rows=1)
    assert (first.periods, first.unfinished) == ({"2022-XX"}, {"2023-XX"})
    assert (second.periods, second.unfinished) == ({"2023-XX", "2024-XX"}, frozenset())
