"""Describes the members of a cohort for the report: attrition, Table 1 and charts.

It holds counts only, and none of few patients. What a notebook shows of a cohort
(`cohort.describe.table_one`, `cohort.describe.plot`) may only be shown where the members may be
known.
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
"""The columns of the charts. A policy may hide each of them."""


@dataclass(frozen=True)
class Number:
    """A number in Table 1.

    Attributes:
        mean: The mean; None if too few patients have a value.
        deviation: The standard deviation.
        median: The median.
        missing: How many members have no value; None if those are of too few patients.
    """

    mean: float | None
    deviation: float | None
    median: float | None
    missing: int | None


@dataclass(frozen=True)
class Members:
    """The description of a cohort.

    Attributes:
        name: Its name.
        about: What it is for.
        level: What a member is.
        criteria: The criteria, as YAML.
        flow: The steps from the whole lake.
        n: How many members there are; None if that is hidden. Then all below is None too.
        table_one: Column -> its number or its values.
        dates: The meaning of the years; None if the policy shows none.
        years: Studies by year.
        ages: Women and men by age at their first study; None if the policy hides a column of it.
        body_parts: Series by body part and modality; None if the policy hides a column of it.
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
    if not flown.is_shown:
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
    with _kept_tables(selected, tuple(columns), (*_ALWAYS, *known, *date)):
        return Members(
            *head,
            n,
            {column: _summary(tables, column, kind, below) for column, kind in columns.items()},
            dates,
            _years(tables, dates, below) if dates else None,
            _ages(tables, dates, below) if dates and {*_AGES} <= {*known} else None,
            _body_parts(tables, below) if {*_PARTS} <= {*known} else None,
            tuple(name for name in charted if name not in known),
        )


@contextmanager
def _kept_tables(
    selected: Selected, of_members: tuple[str, ...], of_series: tuple[str, ...]
) -> Iterator[None]:
    """Keep members and series in two tables of DuckDB, so that the query runs once."""
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


def _summary(
    tables: OpenedTables, column: str, kind: pa.DataType, below: int
) -> Breakdown | Number:
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
    # If all but a few lack it, the number that lack it reveals how few have it.
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
