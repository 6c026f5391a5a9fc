"""What whole headers say of the series: how many have one, and the scanners over the years."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.report.cells import PERSON, Breakdown, Grid, breakdown, grid, label
from cohortlake.report.trends import by_year, named_or_others, study_dates

WITH_HEADER, WITHOUT_HEADER = "header fetched", "no header fetched"
_MOST_MODELS, _MOST_MAKERS = 12, 6


@dataclass(frozen=True)
class Scanners:
    """Counts of series by what their headers say.

    Attributes:
        with_header: Series with and without a header.
        models: Series with a header by the model of the scanner; None if the policy does not show
            it.
        makers: Series with a header by year and by who made the scanner; None if the policy shows
            no dates or no makers, or if no year has enough patients.
    """

    with_header: Breakdown
    models: Breakdown | None
    makers: Grid | None


def scanners(tables: OpenedTables, below: int) -> Scanners | None:
    """Count series by what their headers say; None if no header was fetched.

    Args:
        tables: The opened tables.
        below: The least number of patients that may be shown.
    """
    known = tables.columns("series_headers")
    if not tables.sql("SELECT 1 FROM series_headers LIMIT 1").fetchall():
        return None
    has_header = f"""
        SELECT CASE WHEN (datastore_id, image_set_id)
                         IN (SELECT (datastore_id, image_set_id) FROM series_headers)
                    THEN '{WITH_HEADER}' ELSE '{WITHOUT_HEADER}' END AS header, {PERSON}
        FROM series
    """
    with_header = breakdown(tables, has_header, "header", "count(*)", below, 2)

    dates = study_dates(tables)

    def of_headers(column: str) -> str:
        value = withheld.value_or_withheld(column, pa.string(), known)
        dated = f'"{dates.column}", ' if dates else ""
        return f"""
            SELECT {label("value")} AS value, {dated}{PERSON} FROM series
            JOIN (SELECT datastore_id, image_set_id, {value} AS value FROM series_headers)
                USING (datastore_id, image_set_id)
        """

    models = None
    if "ManufacturerModelName" in known:
        of_models = of_headers("ManufacturerModelName")
        models = breakdown(tables, of_models, "value", "count(*)", below, _MOST_MODELS)
    makers = None
    if dates and "Manufacturer" in known:
        of_makers = of_headers("Manufacturer")
        found = breakdown(tables, of_makers, "value", "count(*)", below, _MOST_MAKERS)
        named = [value.label for value in found.shown]
        relation = by_year(tables, of_makers, dates, named_or_others("value"), below)
        if relation:
            keys = ("year", "row")
            makers = grid(tables, relation, keys, "count(*)", below, named, {"named": named})
    return Scanners(with_header, models, makers)
