"""Periods and windows in the words that people write, and what is answered to others."""

from __future__ import annotations

from datetime import date

import pytest

from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.study_window import counts_back, read
from cohortlake.errors import BadCriteria

LATEST = date(2026, 3, 31)


@pytest.mark.parametrize(
    ("words", "period"),
    [
        ("within 12 months before", Period(0, 12, "month", "before")),
        ("within the 12 months before", Period(0, 12, "month", "before")),
        ("in the 12 months before", Period(0, 12, "month", "before")),
        ("up to 12 months before", Period(0, 12, "month", "before")),
        ("within a year before", Period(0, 1, "year", "before")),
        ("Within  two weeks", Period(0, 2, "week", "apart")),
        ("6-18 months after", Period(6, 18, "month", "after")),
        ("between 6 and 18 months after", Period(6, 18, "month", "after")),
        ("one to two years apart", Period(1, 2, "year", "apart")),
        ("anytime before", Period(1, None, side="before")),
        ("any time", Period(0, None)),
    ],
)
def test_a_period_is_read_as_people_write_it(words: str, period: Period) -> None:
    assert Period.parse(words) == period
    assert Period.parse(str(period)) == period


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("12 months before", "'within 12 months before' for all of them, or '12 to 12 months bef"),
        ("a year after", "write 'within 1 year after'"),
        ("before", "is no period; write .*'within 12 months before'"),
        ("12 months", "is no period"),
        ("within 1.5 years", "is no period"),
        ("18 to 6 months after", "the lesser number comes first"),
        ("within 201 years", "200 years is the most"),
    ],
)
def test_what_is_no_period_is_answered_with_what_to_write(words: str, says: str) -> None:
    with pytest.raises(BadCriteria, match=says):
        Period.parse(words)


@pytest.mark.parametrize(
    ("words", "first", "last"),
    [
        ("last 24 months of data", "2024-04-01", "2026-03-31"),
        ("the last two years of data", "2024-04-01", "2026-03-31"),
        ("last year of the data", "2025-04-01", "2026-03-31"),
        ("last 13 months of data", "2025-03-01", "2026-03-31"),
        ("last month of data", "2026-03-01", "2026-03-31"),
        ("last 2 weeks of data", "2026-03-18", "2026-03-31"),
        ("last 1 day of data", "2026-03-31", "2026-03-31"),
        ("2024", "2024-01-01", "2024-12-31"),
        (2024, "2024-01-01", "2024-12-31"),
        ("2024-Q3", "2024-07-01", "2024-09-30"),
        ("2024q4", "2024-10-01", "2024-12-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("20240229", "2024-02-29", "2024-02-29"),
        (date(2024, 2, 29), "2024-02-29", "2024-02-29"),
        ("2024-01-15 to 2024-06-30", "2024-01-15", "2024-06-30"),
        ("2023-Q4 to 2024", "2023-10-01", "2024-12-31"),
    ],
)
def test_a_window_means_two_days(words: object, first: str, last: str) -> None:
    assert [str(day) for day in read(words, LATEST)] == [first, last]
    assert counts_back(words) == (isinstance(words, str) and "last" in words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("last 24 months", "'last 24 months of data'.*never from today"),
        ("last 0 months of data", "a number above 0"),
        ("last 201 years of data", "200 years is the most"),
        ("2024-13", r"write 'last 24 months of data', '2024', '2024-Q3'"),
        ("2024-02-30", "is no window"),
        ("2024-Q5", "is no window"),
        ("since 2024", "is no window"),
        ("2023 to 2024 to 2025", "is no window"),
        ("2024-06 to 2024-01", "the earlier date comes first"),
        ("", "is no window"),
        (None, "is no window"),
        (2.5, "is no window"),
        (True, "is no window"),
    ],
)
def test_what_is_no_window_is_answered_with_what_to_write(words: object, says: str) -> None:
    with pytest.raises(BadCriteria, match=says):
        read(words, LATEST)


def test_nothing_can_be_counted_back_from_no_study() -> None:
    with pytest.raises(BadCriteria, match="no study has a date"):
        read("last 24 months of data")
    assert read("last 150 years of data", date(120, 1, 1)) == (date.min, date(120, 1, 1))
