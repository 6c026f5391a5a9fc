"""Turns a window of study dates into the dates that it means in an opened lake.

See `cohort.define.study_window` for the words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta

from cohortlake import schema
from cohortlake.cohort.define import study_window
from cohortlake.cohort.define.steps import Condition, Join
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.errors import NotShown

_AHEAD = timedelta(days=1)
"""The local day of a modality may be ahead of UTC."""


def with_dates(tables: OpenedTables, joins: Iterable[Join], condition: Condition) -> Condition:
    """Return a condition with the dates of its windows in place of their words.

    Args:
        tables: The opened tables.
        joins: The outside tables of the cohort. A column of theirs may have the name of the word.
        condition: The condition.

    Raises:
        BadCriteria: A window cannot be read, or no study has a date to count from.
        NotShown: The policy shows years in place of dates.
    """
    joined = {column for join in joins for column in tables.columns(join.table)}
    given = dict(condition.values).get(study_window.KEYWORD)
    if given is None or study_window.KEYWORD in joined:
        return condition
    day = tables.study_date
    if day == schema.year_of(schema.STUDY_DATE).name:
        raise NotShown("a window of study dates needs dates", tables.publication.policy)
    latest = latest_study_day(tables) if any(map(study_window.counts_back, given)) else None
    windows = [study_window.read(words, latest) for words in given]
    values = tuple(item for item in condition.values if item[0] != study_window.KEYWORD)
    texts = (study_window.sql(day, windows), *condition.texts)
    return replace(condition, values=values, texts=texts)


def latest_study_day(tables: OpenedTables) -> date | None:
    """Return the day of the latest study, or None if no study has one.

    Days after the last search are typing errors, and do not count.
    """
    marker = tables.publication
    seen = datetime.fromisoformat(marker.observed_until or marker.published_at)
    until = min(seen, tables.as_of) if tables.as_of else seen
    query = f"SELECT max({tables.study_date}) FROM studies WHERE {tables.study_date} <= $until"
    ((latest,),) = tables.sql(query, {"until": until.date() + _AHEAD}).fetchall()
    return latest if isinstance(latest, date) else None
