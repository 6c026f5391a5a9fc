"""The rows that increments add to the version history, as SQL.

Works out the intervals of the image sets in the increments only, and compares them with the
intervals that the history already has. A new interval gives a version row. An interval whose end
is another one now gives an end event. See `timeline` for the rules that give the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.history import sorting, timeline, views
from cohortlake.history.timeline import Observed
from cohortlake.history.views import STORED, HistoryViews, ends_sql
from cohortlake.increments import files, kinds, written
from cohortlake.storage import engine
from cohortlake.storage.files import Files
from cohortlake.storage.root import Root

_IDENTITY = "datastore_id, image_set_id"
_BATCH_ROWS = 4096
"""deltalake keeps ten batches in memory."""

_PLACE = """
10_000_000_000 * coalesce(try_cast(replace(study_month, '-', '') AS BIGINT), 0)
    + greatest(0, least(coalesce(epoch(updated_at), 0), 9_999_999_999))::BIGINT
"""
"""SQL for the place of a row in the order of the stored ones. An end event has no `updated_at`."""

_STATE_COLUMNS = ", ".join(column.name for column in schema.STATE)


@dataclass(frozen=True)
class Increments:
    """What increments hold, as names of views.

    Attributes:
        found: Image sets that were found.
        absent: Image sets that were looked up and do not exist.
    """

    found: str
    absent: str


@dataclass(frozen=True)
class Known:
    """What the history already has of the image sets in question, as names of temporary tables.

    Attributes:
        versions: Their version rows, without what the state says.
        end_events: Their end events.
        ends: The end event that counts for each interval.
    """

    versions: str
    end_events: str
    ends: str


def find(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, root: Root, paths: Sequence[str]
) -> str:
    """Find the rows that increments add.

    Args:
        con: The connection of the history's views.
        history: The version history.
        root: The lake.
        paths: The increments.

    Returns:
        The name of a view of the rows, with the stored columns of `schema.IMAGE_SETS`.
    """
    increments = _read_increments(con, root, paths)
    known = _read_known(con, history, increments)
    observed = _combine(con, increments, known)
    intervals = timeline.build(con, observed)
    end_events = _find_end_events(con, intervals, known, observed)
    return _new_rows(con, history, increments, known, intervals, end_events)


def in_order(con: duckdb.DuckDBPyConnection, rows: str, scratch: Files) -> pa.RecordBatchReader:
    """Stream rows as they are stored: by study month, and by the second of `updated_at`.

    Args:
        con: The connection of the rows.
        rows: The view that `find` returns.
        scratch: Where sorted parts are written.
    """
    query = f"SELECT {_PLACE} AS place, {', '.join(STORED.names)} FROM {rows}"
    with_place = pa.schema([("place", pa.int64()), *STORED])
    batches = sorting.in_order(engine.batches(con, query, with_place), scratch)
    columns = (batch.select(STORED.names) for batch in batches)
    return pa.RecordBatchReader.from_batches(
        STORED,
        (
            batch.slice(start, _BATCH_ROWS)
            for batch in columns
            for start in range(0, len(batch), _BATCH_ROWS)
        ),
    )


def changes_sql(rows: str) -> str:
    """Return SQL for how many rows there are of each kind of change.

    Args:
        rows: The view that `find` returns.
    """
    return f"""
        SELECT change, count(*) FROM {rows}
        WHERE interval_key IS NOT NULL
          AND change IN ('created', 'updated', 'reappeared', 'deleted')
        GROUP BY change ORDER BY change
    """


def _read_increments(
    con: duckdb.DuckDBPyConnection, root: Root, paths: Sequence[str]
) -> Increments:
    paths = [path for path in paths if not written.is_without_rows(root, path)]
    found = [path for path in paths if files.axis_of(path) not in kinds.STATELESS_AXES]
    absent = [path for path in paths if files.axis_of(path) == kinds.ABSENCE_AXIS]
    engine.register(con, "found", root, found, kinds.FOUND_SCHEMA)
    engine.register(con, "absent", root, absent, kinds.ABSENCE_SCHEMA)
    return Increments("found", "absent")


def _read_known(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, increments: Increments
) -> Known:
    """Read what the history has of the image sets in the increments.

    The keys of all rows are scanned, and nothing else of them. The other columns are read only
    from the months in which such keys are. Two image sets may share a key, so the ids decide.
    """
    con.execute(f"""
        CREATE TEMP TABLE affected AS
        SELECT *, {timeline.IMAGE_SET_KEY} AS image_set_key FROM (
            SELECT {_IDENTITY} FROM {increments.found}
            UNION SELECT {_IDENTITY} FROM {increments.absent}
        )
    """)
    of_same_key = f"{history.versions} SEMI JOIN affected USING (image_set_key)"
    in_months = views.in_months_sql(con, of_same_key)
    con.execute(f"""
        CREATE TEMP TABLE known_versions AS
            SELECT * EXCLUDE (image_set_key) FROM (
                SELECT {_IDENTITY}, image_set_key, interval_key, state_key, version, updated_at,
                       study_month, observed_at, run_id
                FROM {history.versions} SEMI JOIN affected USING (image_set_key)
                WHERE {in_months}
            ) SEMI JOIN affected USING ({_IDENTITY});
        CREATE TEMP TABLE known_end_events AS
            SELECT * EXCLUDE (image_set_key) FROM (
                FROM {history.end_events} SEMI JOIN affected USING (image_set_key)
                WHERE {in_months} OR study_month IS NULL  -- of an absence that ended nothing
            ) SEMI JOIN affected USING ({_IDENTITY});
        CREATE TEMP TABLE known_ends AS {ends_sql("known_end_events")};
    """)
    return Known("known_versions", "known_end_events", "known_ends")


def _combine(con: duckdb.DuckDBPyConnection, increments: Increments, known: Known) -> Observed:
    """Put what the increments hold together with what the history has of the same image sets."""
    con.execute(f"""
        CREATE TEMP VIEW observations AS
            SELECT {_IDENTITY}, state_key, observed_at, run_id FROM {increments.found}
            UNION ALL
            SELECT {_IDENTITY}, state_key, observed_at, run_id FROM {known.versions};
        CREATE TEMP VIEW absences AS
            SELECT {_IDENTITY}, observed_at, max(last_seen_at) AS last_seen_at FROM (
                SELECT {_IDENTITY}, observed_at, last_seen_at FROM {increments.absent}
                UNION ALL
                SELECT {_IDENTITY}, observed_at, last_seen_at FROM {known.end_events}
                WHERE change = 'deleted'
            ) GROUP BY ALL;
        CREATE TEMP TABLE states AS
            SELECT DISTINCT ON (state_key) state_key, version, updated_at, study_month FROM (
                SELECT state_key, version, updated_at, {schema.STUDY_MONTH_SQL} AS study_month
                FROM {increments.found}
                UNION ALL
                SELECT state_key, version, updated_at, study_month FROM {known.versions}
            );
    """)
    return Observed("observations", "absences", "states")


def _find_end_events(
    con: duckdb.DuckDBPyConnection, intervals: str, known: Known, observed: Observed
) -> str:
    """Find the end events that are missing: of ends that are new, moved or undone.

    An absence that ends nothing known yet is one as well: an earlier state may be found later.
    """
    con.execute(f"""
        CREATE TEMP TABLE new_end_events AS
        WITH ends_now AS (
            SELECT {_IDENTITY}, interval_key, study_month, ended_by, valid_to, last_seen_at,
                   observed_to
            FROM {intervals}
            UNION ALL
            SELECT {_IDENTITY}, interval_key, study_month, 'restated', NULL, NULL, observed_at
            FROM {known.versions} ANTI JOIN {intervals} USING (interval_key)
        )
        SELECT {_IDENTITY}, now.interval_key, study_month,
               coalesce(now.ended_by, 'reopened') AS change,
               now.valid_to AS effective_at, now.last_seen_at, now.observed_to AS observed_at,
               coalesce(revision, 0) + 1 AS revision
        FROM ends_now now LEFT JOIN {known.ends} known USING (interval_key)
        WHERE now.ended_by IS DISTINCT FROM known.ended_by
           OR now.valid_to IS DISTINCT FROM known.valid_to
           OR now.observed_to IS DISTINCT FROM known.observed_to
           OR now.last_seen_at IS DISTINCT FROM known.last_seen_at
        UNION ALL
        SELECT {_IDENTITY}, NULL, NULL, 'deleted', observed_at, last_seen_at, observed_at, 1
        FROM (
            SELECT {_IDENTITY}, observed_at, last_seen_at FROM {observed.absences}
            EXCEPT
            SELECT {_IDENTITY}, observed_to, last_seen_at FROM {intervals}
            WHERE ended_by = 'deleted'
            EXCEPT
            SELECT {_IDENTITY}, observed_at, last_seen_at FROM {known.end_events}
            WHERE change = 'deleted'
        )
    """)
    return "new_end_events"


def _new_rows(
    con: duckdb.DuckDBPyConnection,
    history: HistoryViews,
    increments: Increments,
    known: Known,
    intervals: str,
    end_events: str,
) -> str:
    """Make the view of all new rows. What the state of a new interval says is added here."""
    con.execute(f"""
        CREATE TEMP TABLE new_intervals AS
            SELECT * FROM {intervals} ANTI JOIN {known.versions} USING (interval_key);
        CREATE TEMP TABLE restated_versions AS  -- of known states with a new interval: hardly any
            SELECT study_month, interval_key FROM {known.versions}
            SEMI JOIN new_intervals USING (state_key);
    """)
    in_months = views.in_months_sql(con, "restated_versions")
    con.execute(f"""
        CREATE TEMP TABLE restated_states AS
            SELECT {_STATE_COLUMNS}, observed_at FROM {history.versions}
            SEMI JOIN restated_versions USING (interval_key) WHERE {in_months};
        CREATE TEMP VIEW given_states AS
            SELECT {_STATE_COLUMNS}, observed_at FROM {increments.found}
            UNION ALL FROM restated_states;
        CREATE TEMP TABLE repeated_states AS
            SELECT state_key FROM given_states SEMI JOIN new_intervals USING (state_key)
            GROUP BY state_key HAVING count(*) > 1;
        CREATE TEMP VIEW new_states AS
            SELECT *, {timeline.ENTITY_HASHES} FROM (
                SELECT {_STATE_COLUMNS} FROM given_states
                ANTI JOIN repeated_states USING (state_key)
                UNION ALL
                FROM (
                    SELECT DISTINCT ON (state_key) {_STATE_COLUMNS} FROM given_states
                    SEMI JOIN repeated_states USING (state_key) ORDER BY state_key, observed_at
                )
            );
        CREATE TEMP VIEW new_rows AS
            SELECT *, {timeline.IMAGE_SET_KEY} AS image_set_key FROM (
                SELECT 'version' AS row_kind,
                       new_states.* REPLACE (epoch_us(StudyTime) AS StudyTime),
                       i.study_month, interval_key, change, prior_state_key, prior_study_month,
                       versions_unseen, valid_from AS effective_at, observed_from AS observed_at,
                       run_id
                FROM new_intervals i JOIN new_states USING (state_key)
                UNION ALL BY NAME
                SELECT 'closure' AS row_kind, * FROM {end_events}
            );
    """)
    return "new_rows"
