"""Who is in a cohort: the way there, Table 1, and what its plots show.

Counts only, all of them by SQL, and none of few patients: what a notebook shows of a cohort
(`cohort.describe.table_one`, `cohort.describe.plot`) is for the members' own zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from cohortlake.cohort.describe.table_one import default_columns, is_number
from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.rows import explained
from cohortlake.cohort.select.selected import Selected
from cohortlake.report.cells import Breakdown, Grid, breakdown, grid, is_few, label
from cohortlake.report.flow import Flow, flow
from cohortlake.report.trends import STUDIES, StudyDates, by_year, study_dates

_BAND_YEARS, _OLDEST = 10, 90
_MOST_VALUES, _MOST_ROWS = 8, 7
_MEMBERS, _SERIES = "report_members", "report_series"
_ALWAYS = ("datastore_id", "StudyInstanceUID")
_PARTS, _AGES = ("BodyPartExamined", "Modality"), ("age_at_study_years", "sex")
"""What the charts are made of; a policy may withhold any of them."""


@dataclass(frozen=True)
class Number:
    """What Table 1 says of a number.

    Attributes:
        mean: The mean; None where too few patients have one.
        deviation: The standard deviation.
        median: The median.
        missing: How many members have none; None where they are of too few patients.
    """

    mean: float | None
    deviation: float | None
    median: float | None
    missing: int | None


@dataclass(frozen=True)
class Members:
    """What is told of a cohort.

    Attributes:
        name: Its name.
        about: What it is for.
        level: What a member is.
        criteria: The YAML that says the same.
        flow: The way from the whole lake.
        n: How many members there are; None where that is hidden, and then so is all below.
        table_one: Column -> what is said of it.
        dates: What years are; None where the policy shows none.
        years: Studies by year.
        ages: Women and men by age at their first study; None where the policy does not show what
            it takes.
        body_parts: Series by body part and modality; likewise.
        not_shown: The columns that a chart lacks.
    """

    name: str
    about: str
    level: str
    criteria: str
    flow: Flow
    n: int | None = None
    table_one: Mapping[str, Breakdown | Number] | None = None
    dates: StudyDates | None = None
    years: Grid | None = None
    ages: Grid | None = None
    body_parts: Grid | None = None
    not_shown: tuple[str, ...] = ()


def members(selected: Selected, below: int) -> Members:
    """Describe a cohort.

    Args:
        selected: The members.
        below: The least number of patients that may be shown.
    """
    criteria = selected.criteria
    flown = flow(selected, below)
    head = (criteria.name, criteria.about, criteria.level, criteria.to_yaml(), flown)
    if not flown.is_told:
        return Members(*head)
    tables, dates, columns = (
        selected.tables,
        study_dates(selected.tables),
        default_columns(selected),
    )
    ((n,),) = selected.ask(f"SELECT count(*) FROM ({selected.query.entities})").fetchall()
    charted = (*_PARTS, *_AGES)
    known = [name for name in charted if name in tables.columns("series")]
    date = [dates.column] if dates else []
    with _drawn(selected, tuple(columns), (*_ALWAYS, *known, *date)):
        return Members(
            *head,
            n,
            {column: _told(tables, column, kind, below) for column, kind in columns.items()},
            dates,
            _years(tables, dates, below) if dates else None,
            _ages(tables, dates, below) if dates and {*_AGES} <= {*known} else None,
            _body_parts(tables, below) if {*_PARTS} <= {*known} else None,
            tuple(name for name in charted if name not in known),
        )


@contextmanager
def _drawn(
    selected: Selected, of_members: tuple[str, ...], of_series: tuple[str, ...]
) -> Iterator[None]:
    """Keep what is counted, for all counts to draw the cohort once: two tables of DuckDB's."""
    drawn = {
        _MEMBERS: (selected.query.members, of_members),
        _SERIES: (selected.query.series, of_series),
    }
    connection = selected.tables.connection
    try:
        for name, (source, kept) in drawn.items():
            found = selected.ask(f"FROM ({source}) LIMIT 0").to_arrow().schema
            types = {name: found.field(name).type for name in kept}
            shown = [
                f'{withheld.value_or_withheld(name, type_, found.names)} AS "{name}"'
                for name, type_ in types.items()
            ]
            query, params = selected.query.with_stages(
                f"SELECT {', '.join(['patient_key AS person', *shown])} FROM ({source})"
            )
            with explained():
                connection.execute(f"CREATE TEMP TABLE {name} AS {query}", params)
        yield
    finally:
        for name in drawn:
            connection.execute(f"DROP TABLE IF EXISTS {name}")


def _told(tables: OpenedTables, column: str, kind: pa.DataType, below: int) -> Breakdown | Number:
    if not is_number(kind):
        value = f'"{column}"'
        if pa.types.is_list(kind):
            value = f"nullif(array_to_string({value}, ' + '), '')"
        return breakdown(tables, f"FROM {_MEMBERS}", value, "count(*)", below, _MOST_VALUES)
    ((missing, without, have, mean, deviation, median),) = tables.sql(f"""
        SELECT count(*) - count("{column}"), count(DISTINCT person) FILTER ("{column}" IS NULL),
               count(DISTINCT person) FILTER ("{column}" IS NOT NULL),
               avg("{column}"), stddev_samp("{column}"), median("{column}")
        FROM {_MEMBERS}
    """).fetchall()
    # Where all but a few lack it, how many do tells how few have it.
    n_missing = None if is_few(without, below) or is_few(have, below) else missing
    if have < below:
        return Number(None, None, None, n_missing)
    return Number(mean, deviation, median, n_missing)


def _years(tables: OpenedTables, dates: StudyDates, below: int) -> Grid | None:
    relation = by_year(tables, f"FROM {_SERIES}", dates, "'studies'", below)
    return grid(tables, relation, ("year", "row"), STUDIES, below) if relation else None


def _ages(tables: OpenedTables, dates: StudyDates, below: int) -> Grid:
    first = f'arg_min_null({{}}, ("{dates.column}", StudyInstanceUID))'
    age, sex = map(first.format, _AGES)
    lowest = f"age // {_BAND_YEARS} * {_BAND_YEARS}"
    relation = f"""
        SELECT person, sex, CASE WHEN age >= {_OLDEST} THEN '{_OLDEST}+'
            ELSE printf('%02d-%02d', {lowest}, {lowest} + {_BAND_YEARS - 1}) END AS band
        FROM (SELECT person, {age} AS age, {sex} AS sex
              FROM {_SERIES} WHERE "{dates.column}" IS NOT NULL GROUP BY person)
        WHERE age IS NOT NULL AND sex IN ('F', 'M')
    """
    return grid(tables, relation, ("band", "sex"), "count(*)", below, ("F", "M"))


def _body_parts(tables: OpenedTables, below: int) -> Grid:
    parts, modalities = (
        breakdown(tables, f"FROM {_SERIES}", column, "count(*)", below, _MOST_ROWS)
        for column in _PARTS
    )
    params = {
        "parts": [value.label for value in parts.shown],
        "modalities": [value.label for value in modalities.shown],
    }
    relation = f"""
        SELECT person,
               CASE WHEN list_contains($modalities::VARCHAR[], modality) THEN modality
                    ELSE 'others' END AS modality,
               CASE WHEN list_contains($parts::VARCHAR[], part) THEN part ELSE 'others' END AS part
        FROM (SELECT person, {label("Modality")} AS modality, {label("BodyPartExamined")} AS part
              FROM {_SERIES})
    """
    return grid(tables, relation, ("modality", "part"), "count(*)", below, params["parts"], params)
