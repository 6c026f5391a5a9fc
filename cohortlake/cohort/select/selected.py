"""The members that criteria select from opened tables.

Counts, exports and freezing take a `Selected`, and nothing above it. See `cohort.cohort` for the
object that people hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.select.compile import compile_criteria
from cohortlake.cohort.select.compiled_query import CompiledQuery
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.rows import Rows


@dataclass(frozen=True)
class Selected:
    """The members of a cohort, as a query that runs when its rows are asked for.

    Attributes:
        tables: The opened tables.
        criteria: The criteria.
        query: The criteria, compiled to SQL over the tables.
    """

    tables: OpenedTables
    criteria: Criteria
    query: CompiledQuery = field(compare=False)

    @property
    def members(self) -> Rows:
        """The members: a row of the level's table each, with what was joined, and the part."""
        return self.ask(self.query.members)

    def __reduce__(self) -> tuple[Callable[..., Selected], tuple[object, ...]]:
        return select, (self.tables, self.criteria)

    def ask(self, select: str) -> Rows:
        """Run a SELECT over the stages of the query.

        Args:
            select: The SELECT. It names the stages, as `query.stages` does.
        """
        return self.tables.sql(*self.query.with_stages(select))


def select(tables: OpenedTables, criteria: Criteria) -> Selected:
    """Select the members that meet criteria.

    Args:
        tables: The opened tables.
        criteria: The criteria.

    Raises:
        BadCondition: A condition cannot be read, or names what is not there.
    """
    return Selected(tables, criteria, compile_criteria(tables, criteria))
