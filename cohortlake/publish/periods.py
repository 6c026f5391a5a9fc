"""The periods that the published tables are cut into, and the study months each is made of.

If the policy keeps dates, a period is a study month. If it shifts dates or cuts them to the year, a
period is a year, because a shorter one would show what the policy hides. Dates are shifted up to a
year into the past, so a shifted year is made of two years of the version history.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import duckdb

from cohortlake import schema
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import FIRST_SHIFTED
from cohortlake.storage import engine

_HASHES = 2**63
"""How many hashes there are. See `timeline.ENTITY_HASHES`."""


@dataclass(frozen=True)
class Batch:
    """Rows that are read together, and the periods that can be written then.

    Attributes:
        months: The months of the rows. Each month is in one batch, or in several if it is large.
        periods: The periods whose rows are all in this batch or in earlier ones. Each period
            is in one batch.
        unfinished: The periods that have rows in later batches.
        hashes: The first and the last `study_hash` of the rows, if the month is in several batches.
            So all rows of a study in a month are in one batch.
    """

    months: frozenset[str]
    periods: frozenset[str]
    unfinished: frozenset[str]
    hashes: tuple[int, int] | None = None

    @property
    def sql(self) -> str:
        """SQL for whether a row of the version history is in the batch."""
        in_months = f"study_month IN {engine.text_list(self.months)}"
        if self.hashes is None:
            return f"({in_months})"
        return f"({in_months} AND study_hash BETWEEN {self.hashes[0]} AND {self.hashes[1]})"


@dataclass(frozen=True)
class Periods:
    """The periods of a publication.

    Attributes:
        dates: What the policy does with dates.
        sizes: Study month -> its number of rows.
    """

    dates: Treatment
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, rows: str, policy: Policy) -> Periods:
        """Return the periods of some rows of the version history."""
        query = f"SELECT study_month, count(*) FROM {rows} GROUP BY ALL"
        return cls(policy.dates, dict(con.sql(query).fetchall()))

    def of_months(self, months: Collection[str]) -> frozenset[str]:
        """Return the periods in which rows of some months may be."""
        return frozenset(period for month in months for period in self._of_month(month))

    def months(self, periods: Collection[str]) -> frozenset[str]:
        """Return the months whose rows may be in some periods."""
        return frozenset(
            month for month in self.sizes if not self.of_months([month]).isdisjoint(periods)
        )

    def batches(self, periods: Collection[str], most_rows: int) -> Iterator[Batch]:
        """Yield the rows of some periods, month by month, in batches.

        Args:
            periods: The periods.
            most_rows: How many rows a batch may have, about.
        """
        unwritten, read = frozenset(periods), frozenset[str]()
        for months in self._months_together(periods, most_rows):
            begun = read | months
            for hashes in _parts(sum(self.sizes[month] for month in months), most_rows):
                is_last = hashes is None or hashes[1] == _HASHES - 1
                read = begun if is_last else read
                later = self.of_months(self.months(periods) - read) & unwritten
                yield Batch(months, unwritten - later, later & self.of_months(begun), hashes)
                unwritten = later

    def _months_together(
        self, periods: Collection[str], most_rows: int
    ) -> Iterator[frozenset[str]]:
        some, rows = frozenset[str](), 0
        for month in sorted(self.months(periods)):
            if some and rows + self.sizes[month] > most_rows:
                yield some
                some, rows = frozenset(), 0
            some |= {month}
            rows += self.sizes[month]
        if some or periods:
            yield some

    def _of_month(self, month: str) -> tuple[str, ...]:
        if month == schema.UNDATED or self.dates is Treatment.KEEP:
            return (month,)
        year = int(month[:4])
        if self.dates is Treatment.YEAR:
            return (_period(year),)
        periods = (_period(year - 1), _period(year))
        return (*periods, schema.UNDATED) if year <= FIRST_SHIFTED.year else periods


def _parts(rows: int, most_rows: int) -> Iterator[tuple[int, int] | None]:
    """Yield ranges of hashes that cut rows into parts; None if there is one part only."""
    count = math.ceil(rows / most_rows)
    if count <= 1:
        yield None
        return
    bounds = [_HASHES * number // count for number in range(count + 1)]
    for start, end in itertools.pairwise(bounds):
        yield start, end - 1


def _period(year: int) -> str:
    return schema.YEAR_FORMAT.replace("%Y", f"{year:04}")
