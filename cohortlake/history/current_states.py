"""The current states of one version of the history, read part by part.

The log of the Delta table holds the least and the greatest value of the first columns of each file.
So a part that is an interval of one of these columns is read without opening the other files. The
end events are looked up for the states of the part only. See `views.HistoryViews.current` for the
same rows all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from cohortlake.healthimaging import EPOCH
from cohortlake.history import image_sets, views
from cohortlake.storage import delta_log, engine
from cohortlake.storage.delta_log import FileRange
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class Interval:
    """The rows whose value in a column lies in [start, end).

    Attributes:
        column: An instant or a date, of the columns whose bounds are in the log.
        start: The least value, in microseconds since the epoch; None for no bound.
        end: The first value after it, the same; None for no bound.
    """

    column: str
    start: int | None = None
    end: int | None = None

    @classmethod
    def between(cls, column: str, start: datetime, end: datetime) -> Interval:
        """Return the interval between two instants."""
        return cls(column, microseconds(start), microseconds(end))

    @classmethod
    def of_month(cls, month: str) -> Interval:
        """Return an interval that holds the days of a study month, YYYY-MM.

        It has 31 days, because the month after it may be in no calendar.
        """
        start = microseconds(datetime.fromisoformat(f"{month}-01T00:00:00+00:00"))
        return cls("StudyDate", start, start + timedelta(days=31) // timedelta(microseconds=1))

    @property
    def sql(self) -> str:
        """The condition as SQL: constants, so that row groups are skipped."""
        bounds = [
            f"{self.column} {operator} {_literal(self.column, bound)}"
            for operator, bound in ((">=", self.start), ("<", self.end))
            if bound is not None
        ]
        return " AND ".join([f"{self.column} IS NOT NULL", *bounds])

    def overlaps(self, file: FileRange) -> bool:
        """Return whether a file may have such rows."""
        if file.nulls == file.rows:
            return False
        is_before = self.start is not None and file.high is not None and file.high < self.start
        is_after = self.end is not None and file.low is not None and file.low >= self.end
        return not is_before and not is_after

    def contains(self, file: FileRange) -> bool:
        """Return whether all rows of a file are such rows."""
        begins_inside = self.start is None or (file.low is not None and file.low >= self.start)
        ends_inside = self.end is None or (file.high is not None and file.high < self.end)
        return file.nulls == 0 and begins_inside and ends_inside


class CurrentStates:
    """The current states of the newest version of the history when this was made.

    Args:
        root: The lake.

    Raises:
        OldFormat: An older release wrote the history.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._table = image_sets.open_table(root)

    def files(self, column: str) -> list[FileRange]:
        """Return the files of the version rows, with the bounds of a column. Opens none of them."""
        if self._table is None:
            return []
        return delta_log.file_ranges(self._table, image_sets.TABLE, column, _VERSIONS)

    def count_versions(self, where: str, paths: Sequence[str]) -> int:
        """Count the version rows in some files that meet a condition, ended or not."""
        with engine.connection() as con:
            versions = views.create(con, self._root, paths).versions
            return engine.count(con, f"SELECT count(*) FROM {versions} WHERE {where}")

    def versions_by_month(self) -> dict[str, int]:
        """Count the version rows of each study month, ended or not."""
        with engine.connection() as con:
            versions = views.create(con, self._root, self._paths(_VERSIONS)).versions
            months = f"SELECT study_month, count(*) FROM {versions} GROUP BY study_month"
            return dict(con.sql(months).fetchall())

    def months_of(self, keys: pa.Table) -> list[str]:
        """Return the study months of the version rows of some image sets, ended or not.

        Args:
            keys: The column image_set_key. It is read of all rows.
        """
        with engine.connection() as con:
            versions = views.create(con, self._root, self._paths(_VERSIONS)).versions
            con.register("wanted", keys)
            months = f"""
                SELECT DISTINCT study_month FROM {versions}
                SEMI JOIN wanted USING (image_set_key)
            """
            return [month for (month,) in con.sql(months).fetchall()]

    def read(self, columns: str, where: str, paths: Sequence[str]) -> pa.Table:
        """Read current states.

        Args:
            columns: What to read, as SQL over the columns of a version row.
            where: Which ones, as SQL.
            paths: The files of version rows that may have such rows.
        """
        with engine.connection() as con:
            history = views.create(con, self._root, [*paths, *self._paths(_END_EVENTS)])
            con.execute(f"""
                CREATE TEMP TABLE begun AS
                SELECT interval_key, study_month AS begun_in, {columns}
                FROM {history.versions} WHERE {where}
            """)
            in_months = views.in_months_sql(con, "begun", "begun_in")
            near = f"(FROM {history.end_events} WHERE {in_months})"
            current = views.current_sql("begun", f"({views.ends_of_sql(near, 'begun')})")
            return con.sql(
                f"SELECT * EXCLUDE (interval_key, begun_in) FROM ({current})"
            ).to_arrow_table()

    def _paths(self, partition: Mapping[str, str]) -> list[str]:
        if self._table is None:
            return []
        found = delta_log.file_ranges(self._table, image_sets.TABLE, "updated_at", partition)
        return [file.path for file in found]


_VERSIONS, _END_EVENTS = {"row_kind": "version"}, {"row_kind": "closure"}


def microseconds(instant: datetime) -> int:
    """Return an instant in microseconds since the epoch."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def _literal(column: str, value: int) -> str:
    instant = EPOCH + timedelta(microseconds=value)
    if column == "StudyDate":
        return f"DATE '{instant.date().isoformat()}'"
    return f"TIMESTAMPTZ '{instant.isoformat()}'"
