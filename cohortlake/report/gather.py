"""All that a report says of a lake, as counts that may be shown.

Owns when nothing may be said at all: where the whole lake holds too few patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from cohortlake.admin.status import DatastoreStatus
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected
from cohortlake.publish.marker import Publication
from cohortlake.report import holdings, quality, trends
from cohortlake.report.completeness import completeness
from cohortlake.report.members import Members, members

_MOST_MODALITIES = 6
"""How many a chart tells apart; each has a colour."""


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        lake: The last part of its root's name.
        publication: What was published there.
        as_of: The instant that the tables show; None is now.
        written_at: When this was gathered.
        release: Of Cohortlake.
        suppress_below: The least number of patients that is shown.
        datastores: How complete each data store is; None where the ledger cannot be read.
        holdings: What it holds; None where it holds too few patients, and then so is all below.
        quality: How good each field is.
        trends: What changes over time.
        cohort: Who is in a cohort; None where none was asked for.
    """

    lake: str
    publication: Publication
    as_of: datetime | None
    written_at: datetime
    release: str
    suppress_below: int
    datastores: tuple[DatastoreStatus, ...] | None
    holdings: holdings.Holdings | None = None
    quality: list[quality.Field] | None = None
    trends: trends.Trends | None = None
    cohort: Members | None = None


def gather(
    tables: OpenedTables, selected: Selected | None, below: int, settle: timedelta
) -> Report:
    """Count all that a report says.

    Args:
        tables: The opened tables.
        selected: The members of a cohort of the lake, or None.
        below: The least number of patients that may be shown.
        settle: How long the search index may lag.
    """
    head = (
        tables.root.uri.rstrip("/").rpartition("/")[2],
        tables.publication,
        tables.as_of,
        datetime.now(UTC),
        version("cohortlake"),
        below,
        completeness(tables.root, settle),
    )
    if holdings.persons(tables) < below:
        return Report(*head)
    held = holdings.holdings(tables, below)
    shown = held.modalities.shown if held.modalities else ()
    told = [value.label for value in shown[:_MOST_MODALITIES]]
    return Report(
        *head,
        held,
        quality.quality(tables, below),
        trends.trends(tables, told, below),
        members(selected, below) if selected else None,
    )
