"""Counts studies by year and month, and changes of the image sets by month.

Decides which column of a policy has the dates. A trend of shifted dates says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.study_windows import latest_study_day
from cohortlake.report.cells import PERSON, Breakdown, Grid, breakdown, grid

_MOST_YEARS, _MOST_KINDS = 25, 10
OTHERS = "others"
STUDIES = "count(DISTINCT (datastore_id, StudyInstanceUID))"


@dataclass(frozen=True)
class StudyDates:
    """The column that a policy shows for the date of a study.

    Attributes:
        column: The column.
        year: SQL for the year of a row.
        about: The meaning of the years, in a sentence.
        is_true: Whether the dates are complete and not shifted.
    """

    column: str
    year: str
    about: str
    is_true: bool = False


_STUDY_DATES = (
    StudyDates("StudyDate", 'year("StudyDate")', "Years are those of StudyDate.", True),
    StudyDates(
        "study_date_shifted",
        'year("study_date_shifted")',
        "Years are those of shifted dates: each patient's lie up to a year before the true ones.",
    ),
    StudyDates("study_year", '"study_year"', "Only the year of a study is shown."),
)


@dataclass(frozen=True)
class Trends:
    """Counts over time.

    Attributes:
        dates: The column with the dates; None if the policy shows none.
        years: Studies by year, and by modality if the policy shows it; None if there is nothing
            to show.
        by_modality: Whether years are counted by modality too.
        months: Studies by month, of the year of the latest study and the one before; None if the
            policy hides months.
        changes: States by the kind of change that began them, and deletions; None if the policy
            shows no kinds.
        with_deletions: Whether the policy shows what was deleted.
        changed_in: Changes by month and kind; None if the policy shows no instants.
    """

    dates: StudyDates | None
    years: Grid | None
    by_modality: bool
    months: Grid | None
    changes: Breakdown | None
    with_deletions: bool
    changed_in: Grid | None


def trends(tables: OpenedTables, modalities: Sequence[str], below: int) -> Trends:
    """Count what changes over time.

    Args:
        tables: The opened tables.
        modalities: Those to distinguish.
        below: The least number of patients that may be shown.
    """
    dates, known = study_dates(tables), {*tables.columns("history")}
    with_deletions = "ended_by" in known
    changes = None
    if "kind" in known:
        states = _changes(with_deletions)
        changes = breakdown(tables, states, "kind", "count(*)", below, _MOST_KINDS)
    by_month = {"valid_from", "valid_to"} <= known
    return Trends(
        dates,
        _years(tables, dates, modalities, below) if dates else None,
        "Modality" in tables.columns("series"),
        _months(tables, below) if dates and dates.is_true else None,
        changes,
        with_deletions,
        _changed_in(tables, changes, with_deletions, below) if changes and by_month else None,
    )


def study_dates(tables: OpenedTables) -> StudyDates | None:
    """Return the column that the policy shows for the date of a study."""
    known = tables.columns("series")
    return next((dates for dates in _STUDY_DATES if dates.column in known), None)


def by_year(
    tables: OpenedTables, relation: str, dates: StudyDates, row: str, below: int
) -> str | None:
    """Return SQL for rows with the columns `year` and `row`; None if no year has enough patients.

    Years before the first with enough patients are joined with it, and those after the last too.

    Args:
        tables: The opened tables.
        relation: SQL for series, with a column `person`.
        dates: The column with the dates.
        row: SQL for the group of a row.
        below: The least number of patients that may be shown.
    """
    found = tables.sql(f"""
        SELECT {dates.year} AS year, count(DISTINCT person) FROM ({relation})
        GROUP BY year ORDER BY year
    """).fetchall()
    known = [year for year, _ in found if year is not None]
    enough = [year for year, patients in found if year is not None and patients >= below]
    if not enough:
        return None
    last = max(enough)
    first = max(min(enough), last - _MOST_YEARS + 1)
    before = " and before" if min(known) < first else ""
    after = " and after" if max(known) > last else ""
    return f"""
        SELECT CASE WHEN year IS NULL THEN 'undated'
                    WHEN year <= {first} THEN '{first}{before}'
                    WHEN year >= {last} THEN '{last}{after}' ELSE year::VARCHAR END AS year,
               {row} AS row, * EXCLUDE (year)
        FROM (SELECT {dates.year} AS year, * FROM ({relation}))
    """


def _years(
    tables: OpenedTables, dates: StudyDates, modalities: Sequence[str], below: int
) -> Grid | None:
    row, params = "'studies'", None
    if "Modality" in tables.columns("series"):
        row, params = named_or_others("Modality"), {"named": list(modalities)}
    relation = by_year(tables, f"SELECT *, {PERSON} FROM series", dates, row, below)
    if relation is None:
        return None
    return grid(tables, relation, ("year", "row"), STUDIES, below, modalities, params)


def _months(tables: OpenedTables, below: int) -> Grid:
    # By year too: if the total of a year is known, one month of it cannot be hidden alone.
    relation = f"""
        SELECT strftime(StudyDate, '%Y-%m') AS month, year(StudyDate) AS year,
               datastore_id, StudyInstanceUID, {PERSON}
        FROM studies WHERE StudyDate <= $latest AND year(StudyDate) >= year($latest::DATE) - 1
    """
    # Not today's date: the same data must give the same page on any day.
    params = {"latest": latest_study_day(tables)}
    return grid(tables, relation, ("month", "year"), STUDIES, below, params=params)


def _changed_in(tables: OpenedTables, changes: Breakdown, with_deletions: bool, below: int) -> Grid:
    relation = f"""
        SELECT {named_or_others("kind")} AS row, month, person
        FROM ({_changes(with_deletions, "valid_from", "valid_to")}) WHERE kind <> 'created'
    """
    named = [value.label for value in changes.shown if value.label != "created"]
    return grid(tables, relation, ("month", "row"), "count(*)", below, named, {"named": named})


def named_or_others(column: str) -> str:
    """Return SQL for the value of a column if it is in the parameter `named`, else `others`."""
    # What is hidden or counted with others in one table must not be shown in another.
    return f"CASE WHEN list_contains($named::VARCHAR[], {column}) THEN {column} ELSE '{OTHERS}' END"


def _changes(with_deletions: bool, began: str | None = None, ended: str | None = None) -> str:
    states = f"SELECT kind, {_month(began)} AS month, {PERSON} FROM history"
    deletions = f"""
        UNION ALL SELECT 'deleted', {_month(ended)}, {PERSON} FROM history
        WHERE ended_by = 'deleted'
    """
    return states + deletions if with_deletions else states


def _month(instant: str | None) -> str:
    # Without the ICU extension of DuckDB, instants have no calendar, and timestamps use UTC.
    return f"strftime(make_timestamp(epoch_us({instant})), '%Y-%m')" if instant else "NULL"
