"""Gathers all that a report says about a lake, as counts that may be shown.

If the whole lake holds too few patients, nothing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from cohortlake.admin.status import DatastoreStatus
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected
from cohortlake.publish.publication.marker import Publication
from cohortlake.report import holdings, quality, scanners, trends
from cohortlake.report.completeness import completeness
from cohortlake.report.members import Members, members

_MOST_MODALITIES = 6
"""How many a chart distinguishes; each has a colour."""


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        lake: The last part of its root's name.
        publication: What was published there.
        as_of: The instant that the tables show; None is now.
        written_at: When this was gathered.
        release: The release of Cohortlake.
        suppress_below: The least number of patients that is shown.
        datastores: How complete each data store is; None if coverage cannot be read.
        holdings: What it holds; None if it holds too few patients. Then all below is None too.
        quality: How good each field is.
        scanners: What headers say of the series; None if no header was fetched.
        trends: What changes over time.
        cohort: The members of a cohort; None if none was asked for.
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
    scanners: scanners.Scanners | None = None
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
    labels = [value.label for value in shown[:_MOST_MODALITIES]]
    return Report(
        *head,
        held,
        quality.quality(tables, below),
        scanners.scanners(tables, below),
        trends.trends(tables, labels, below),
        members(selected, below) if selected else None,
    )
