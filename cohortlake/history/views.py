"""The version history as SQL views over the files of its Delta table.

Says which columns are stored, and how version rows and end events give the presence intervals
of each image set. `image_sets` opens the table and knows which files it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.storage import engine
from cohortlake.storage.root import Root

# Delta Lake has no type for a time of day: it is stored as microseconds since midnight.
_TIMES = [column.name for column in schema.STATE if column.type == pa.time64("us")]
STORED = pa.schema(
    [pa.field(c.name, pa.int64() if c.name in _TIMES else c.type) for c in schema.IMAGE_SETS]
)


@dataclass(frozen=True)
class HistoryViews:
    """The names of the views that `create` makes.

    Attributes:
        stored: All rows of the table, as they are stored.
        versions: The version rows: a state, and when it began.
        end_events: The end events: an interval, and how and when it ended.
        ends: The end event that counts for each interval.
        current: The version rows whose interval has not ended.
        history: All intervals that still count, with how and when they ended.
    """

    stored: str = "stored"
    versions: str = "versions"
    end_events: str = "end_events"
    ends: str = "ends"
    current: str = "current"
    history: str = "history"


def create(con: duckdb.DuckDBPyConnection, root: Root, files: Sequence[str]) -> HistoryViews:
    """Make the views of the version history.

    Args:
        con: Gets the views.
        root: The lake.
        files: The files of the Delta table; none gives an empty history.
    """
    views = HistoryViews()
    engine.register(con, views.stored, root, files, STORED)
    times = ", ".join(f"TIME '00:00:00' + to_microseconds({name}) AS {name}" for name in _TIMES)
    con.execute(f"""
        CREATE TEMP VIEW {views.versions} AS
            SELECT * EXCLUDE (row_kind) REPLACE ({times})
            FROM {views.stored} WHERE row_kind = 'version';
        CREATE TEMP VIEW {views.end_events} AS
            SELECT datastore_id, image_set_id, image_set_key, interval_key, study_month, change,
                   effective_at, last_seen_at, observed_at, revision
            FROM {views.stored} WHERE row_kind = 'closure';
        CREATE TEMP VIEW {views.ends} AS {ends_sql(views.end_events)};
        CREATE TEMP VIEW {views.current} AS {current_sql(views.versions, views.ends)};
        CREATE TEMP VIEW {views.history} AS {history_sql(views.versions, views.ends)};
    """)
    return views


def ends_sql(end_events: str) -> str:
    """Return SQL for the end event that counts for each interval: the one revised last.

    An observation that is found late may move an end, or undo it.

    Args:
        end_events: A relation with the columns of `HistoryViews.end_events`.
    """
    return f"""
        SELECT interval_key, max(revision) AS revision,
               nullif(arg_max(change, revision), 'reopened') AS ended_by,
               arg_max_null(effective_at, revision) AS valid_to,
               arg_max_null(observed_at, revision) AS observed_to,
               arg_max_null(last_seen_at, revision) AS last_seen_at
        FROM {end_events} GROUP BY interval_key
    """


def ends_of_sql(end_events: str, intervals: str) -> str:
    """Return SQL for the end event that counts for each of some intervals. See `ends_sql`.

    Args:
        end_events: A relation with the columns of `HistoryViews.end_events`.
        intervals: A relation with interval_key.
    """
    return ends_sql(f"(FROM {end_events} SEMI JOIN {intervals} USING (interval_key))")


def current_sql(versions: str, ends: str) -> str:
    """Return SQL for the versions whose interval has not ended.

    Args:
        versions: Version rows: a relation.
        ends: How their intervals ended: a relation, or SQL in brackets, with the columns of
            `ends_sql`.
    """
    return f"""
        SELECT * FROM {versions}
        ANTI JOIN (FROM {ends} WHERE ended_by IS NOT NULL) USING (interval_key)
    """


def history_sql(versions: str, ends: str) -> str:
    """Return SQL for the intervals that still count, with how and when they ended.

    Args:
        versions: Version rows: a relation.
        ends: See `current_sql`.
    """
    return f"""
        SELECT v.* EXCLUDE (effective_at, observed_at, last_seen_at),
               effective_at AS valid_from, valid_to, ends.last_seen_at,
               observed_at AS observed_from, observed_to, ended_by
        FROM {versions} v
        LEFT JOIN (SELECT * EXCLUDE (revision) FROM {ends}) ends USING (interval_key)
        WHERE ended_by IS DISTINCT FROM 'restated'
    """


def in_months_sql(con: duckdb.DuckDBPyConnection, rows: str, month: str = "study_month") -> str:
    """Return SQL for the condition that a row lies in one of the study months of other rows.

    The months are constants, so that DuckDB skips the files and row groups of all others: also of
    those between, if one of the months is long ago.

    Args:
        con: The connection of the other rows.
        rows: The other rows: a relation.
        month: Their column with the month.
    """
    months = con.sql(f"SELECT DISTINCT {month} FROM {rows}").fetchall()
    return f"study_month IN {engine.text_list(month for (month,) in months)}"
