"""Which periods the published tables are cut into, and which months of the memory each is made of.

Where dates stay, a period is a study month. Where they are shifted or cut to the year, it is a
year: a finer one would tell what the policy hides. Shifts go up to a year into the past, so a
shifted year is made of two years of the memory. How a change touches months is `publish.plan`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import duckdb

from cohortlake import schema
from cohortlake.privacy import Policy, Treatment
from cohortlake.privacy.treatments import FIRST_SHIFTED

_BATCH_ROWS = 400_000


@dataclass(frozen=True)
class Periods:
    """The periods of a publication.

    Attributes:
        dates: What its policy does with dates.
        sizes: Month of the memory -> rows.
    """

    dates: Treatment
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection, policy: Policy) -> Periods:
        """Return the periods of what a connection has as `versions`."""
        sizes = con.sql("SELECT study_month, count(*) FROM versions GROUP BY ALL").fetchall()
        return cls(policy.dates, dict(sizes))

    def of_months(self, months: Collection[str]) -> frozenset[str]:
        """Return the periods that rows of some months may stand in."""
        return frozenset(period for month in months for period in self._of_month(month))

    def months(self, periods: Collection[str]) -> frozenset[str]:
        """Return the months of the memory whose rows may stand in some periods."""
        return frozenset(
            month for month in self.sizes if not self.of_months([month]).isdisjoint(periods)
        )

    def batches(self, periods: Collection[str]) -> Iterator[frozenset[str]]:
        """Cut some periods, in order, into batches whose rows fit into memory."""
        batch: frozenset[str] = frozenset()
        for period in sorted(periods):
            if batch and self._rows(batch | {period}) > _BATCH_ROWS:
                yield batch
                batch = frozenset()
            batch |= {period}
        if batch:
            yield batch

    def _of_month(self, month: str) -> tuple[str, ...]:
        if month == schema.UNDATED or self.dates is Treatment.KEEP:
            return (month,)
        year = int(month[:4])
        if self.dates is Treatment.YEAR:
            return (_period(year),)
        periods = (_period(year - 1), _period(year))
        return (*periods, schema.UNDATED) if year <= FIRST_SHIFTED.year else periods

    def _rows(self, periods: Collection[str]) -> int:
        return sum(self.sizes[month] for month in self.months(periods))


def _period(year: int) -> str:
    return schema.YEAR_FORMAT.replace("%Y", f"{year:04}")
