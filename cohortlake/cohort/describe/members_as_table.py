"""The members of a cohort as a table: what a notebook does with a frame.

The members are selected when their rows are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from cohortlake.cohort.select.rows import Rows

if TYPE_CHECKING:
    import pandas as pd


class MembersAsTable:
    """A base class for what has members."""

    @property
    def members(self) -> Rows:
        """The members, a row each."""
        raise NotImplementedError

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the members."""
        return self.members.columns

    def head(self, n: int = 5) -> pd.DataFrame:
        """Return the first members as a frame; see `members`."""
        return self.members.head(n)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the members as a stream of the Arrow C interface."""
        return self.members.__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> pd.DataFrame:
        """Return the members as a frame; see `members`."""
        return self.members.to_pandas()

    def to_arrow(self) -> Any:
        """Return the members as an Arrow table; see `members`."""
        return self.members.to_arrow()

    def to_polars(self) -> Any:
        """Return the members as a `polars.DataFrame`; see `members`."""
        return self.members.to_polars()

    def __iter__(self) -> NoReturn:
        raise TypeError(
            "a cohort cannot be iterated over: write cohort.to_pandas(), or "
            "cohort.members.fetchall()"
        )

    def __getitem__(self, name: object) -> NoReturn:
        raise TypeError(f"a cohort has no items: write cohort.to_pandas()[{name!r}]")
