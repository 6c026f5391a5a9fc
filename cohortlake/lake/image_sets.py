"""The memory: a Delta table that is only ever appended to.

Owns how increments are applied and how the table is read. A *version* row is an interval
of a time line that was seen for the first time; a *closure* row says that one ended. What
the intervals are is worked out in `lake.timeline`, for the image sets that changed only.

One commit holds all of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cohortlake import schema
from cohortlake.lake import delta, engine, increments, kinds, timeline
from cohortlake.lake.root import Root

TABLE = "image_sets"

# Delta Lake has no type for a time of day: it is kept as microseconds since midnight.
_TIMES = [column.name for column in schema.STATE if column.type == pa.time64("us")]
_STORED = pa.schema(
    [pa.field(c.name, pa.int64() if c.name in _TIMES else c.type) for c in schema.IMAGE_SETS]
)
_STATE_COLUMNS = ", ".join(column.name for column in schema.STATE)
_IDENTITY = "datastore_id, image_set_id"


@dataclass(frozen=True)
class Applied:
    """What one commit brought.

    Attributes:
        version: The table's version now, or None where there is no table yet.
        rows: Rows appended.
        total_rows: Rows of the table, versions and closures.
        changes: Kind of change (created, updated, reappeared, deleted) -> how many.
    """

    version: int | None = None
    rows: int = 0
    total_rows: int = 0
    changes: dict[str, int] = field(default_factory=dict)


def apply(root: Root, paths: Sequence[str], *, rebuild: bool = False) -> Applied:
    """Add to the memory what increments say that it does not know.

    Args:
        root: The lake.
        paths: The increments, in any order; those applied before add nothing.
        rebuild: Forget the memory and make it anew from these increments, in one commit.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    return delta.retrying(TABLE, lambda: _apply(root, paths, rebuild=rebuild))


def _apply(root: Root, paths: Sequence[str], *, rebuild: bool) -> Applied:
    if not paths and not rebuild:
        known = delta.open_table(root, TABLE)
        return Applied(known.version(), 0, known.count()) if known else Applied()
    table = delta.make_table(root, TABLE, _STORED, partition_by=["row_kind"])
    with engine.connection() as con:
        _register_table(con, root, None if rebuild else table)
        _load(con, root, paths)
        timeline.build(con)
        con.execute(_NEWS)
        rows = engine.count(con, "SELECT count(*) FROM news")
        if not rows and not rebuild:
            return Applied(table.version(), 0, table.count())
        columns = ", ".join(_STORED.names)
        ordered = f"SELECT {columns} FROM news ORDER BY study_month, updated_at"
        news = engine.batches(con, ordered, _STORED)
        after = delta.commit(root, TABLE, table, news, overwrite=rebuild)
        changes = dict(con.sql(_CHANGES).fetchall())
        return Applied(after.version(), rows, after.count(), changes)


class Known:
    """The states that were true when it was made, to ask many times. Safe between threads.

    Use it as a context manager.

    Args:
        root: The lake.
    """

    def __init__(self, root: Root) -> None:
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._table = delta.open_table(root, TABLE)
        self._con = self._stack.enter_context(engine.connection())
        _register_table(self._con, root, self._table)

    def __enter__(self) -> Known:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def lacks(self, state_keys: np.ndarray) -> bool:
        """Return whether any of some states is not among them."""
        if not len(state_keys) or self._table is None:
            return bool(len(state_keys))
        wanted = np.unique(state_keys)
        with self._lock:  # not a cursor each: they would not see what is registered
            self._con.register("wanted", pa.table({"state_key": wanted}))
            return engine.count(self._con, _KNOWN) < len(wanted)


_KNOWN = "SELECT count(DISTINCT state_key) FROM current SEMI JOIN wanted USING (state_key)"


def register(con: duckdb.DuckDBPyConnection, root: Root, version: int | None = None) -> None:
    """Make the memory readable.

    Args:
        con: Gets the views `versions`, `closures`, `current` (the versions that no closure
            ends) and `history` (all intervals, with how and when they ended).
        root: The lake.
        version: Which of the table's versions; the newest by default.
    """
    _register_table(con, root, delta.open_table(root, TABLE, version))


def version(root: Root) -> int | None:
    """Return the table's newest version, or None where nothing was ever applied."""
    table = delta.open_table(root, TABLE)
    return table.version() if table else None


def register_appended(
    con: duckdb.DuckDBPyConnection, root: Root, since: int | None, version: int
) -> bool:
    """Make the view `appended` of the rows that were committed after a version.

    Args:
        con: With the views of `register` for `version`.
        root: The lake.
        since: The earlier version; None for all rows there are.
        version: The later one.

    Returns:
        Whether it is that view. Where the table does not continue the earlier version, or
        nobody knows any more, the view is all rows.
    """
    appended = None if since is None else _appended(root, since, version)
    if appended is None:
        con.execute("CREATE VIEW appended AS FROM stored")
        return False
    _register_files(con, "appended", root, appended)
    return True


def _appended(root: Root, since: int, version: int) -> list[str] | None:
    """Return the files that only the later version has, or None if it is no continuation."""
    try:
        before = DeltaTable(root.uri_of(TABLE), version=since).file_uris()
    except DeltaError:  # its log has been cleaned up
        return None
    now = DeltaTable(root.uri_of(TABLE), version=version).file_uris()
    return sorted(set(now) - set(before)) if set(before) <= set(now) else None


def _register_table(con: duckdb.DuckDBPyConnection, root: Root, table: DeltaTable | None) -> None:
    _register_files(con, "stored", root, table.file_uris() if table else [])
    con.execute(_VIEWS)


def _register_files(
    con: duckdb.DuckDBPyConnection, view: str, root: Root, uris: Sequence[str]
) -> None:
    if not uris:
        con.register(view, _STORED.empty_table())
    elif root.is_local:
        # DuckDB takes all files to be as long as the first one, and plans its joins by that.
        largest_first = sorted(uris, key=lambda uri: -Path(uri).stat().st_size)
        con.read_parquet(largest_first, hive_partitioning=True).create_view(view)
    else:
        paths = [uri.removeprefix("s3://") for uri in uris]
        files = pads.dataset(
            paths, _STORED, format="parquet", filesystem=root.filesystem, partitioning="hive"
        )
        con.register(view, files)


_VIEWS = f"""
CREATE VIEW versions AS
    SELECT * EXCLUDE (row_kind) REPLACE (
        {", ".join(f"TIME '00:00:00' + to_microseconds({name}) AS {name}" for name in _TIMES)}
    ) FROM stored WHERE row_kind = 'version';
CREATE VIEW closures AS
    SELECT {_IDENTITY}, interval_key, study_month, change, effective_at, observed_at
    FROM stored WHERE row_kind = 'closure';
CREATE VIEW current AS
    SELECT * FROM versions ANTI JOIN closures USING (interval_key);
CREATE VIEW ends AS  -- an end only ever moves to an earlier one, on each clock
    SELECT interval_key, min(effective_at) AS valid_to, min(observed_at) AS observed_to,
           CASE WHEN bool_or(change = 'restated') THEN 'restated'
                WHEN bool_or(change = 'superseded') THEN 'superseded' ELSE 'deleted' END AS ended_by
    FROM closures GROUP BY interval_key;
CREATE VIEW history AS
    SELECT versions.* EXCLUDE (effective_at, observed_at), effective_at AS valid_from, valid_to,
           observed_at AS observed_from, observed_to, ended_by, {kinds.KIND} AS kind
    FROM versions LEFT JOIN ends USING (interval_key)
    WHERE ended_by IS DISTINCT FROM 'restated';
"""


def _load(con: duckdb.DuckDBPyConnection, root: Root, paths: Sequence[str]) -> None:
    """Put what the increments say beside what the memory knows of the same image sets."""
    absence = f"/{increments.ABSENCE_AXIS}/"
    found = [path for path in paths if absence not in path]
    engine.register(con, "found", root, found, increments.FOUND)
    absent = [path for path in paths if absence in path]
    engine.register(con, "absent", root, absent, increments.ABSENT)
    con.execute(_RELATIONS)


_RELATIONS = f"""
CREATE TEMP TABLE touched AS
    SELECT {_IDENTITY} FROM found UNION SELECT {_IDENTITY} FROM absent;
CREATE TEMP TABLE known AS
    SELECT * FROM versions SEMI JOIN touched USING ({_IDENTITY});
CREATE TEMP TABLE known_closures AS
    SELECT * FROM closures SEMI JOIN touched USING ({_IDENTITY});
CREATE TEMP TABLE standing AS
    SELECT * FROM known
    ANTI JOIN (FROM known_closures WHERE change = 'restated') USING (interval_key);
CREATE TEMP VIEW observations AS
    SELECT {_IDENTITY}, state_key, observed_at, run_id FROM found
    UNION ALL
    SELECT {_IDENTITY}, state_key, observed_at, run_id FROM standing;
CREATE TEMP VIEW absences AS
    SELECT {_IDENTITY}, observed_at FROM absent
    UNION
    SELECT {_IDENTITY}, observed_at FROM known_closures WHERE change = 'deleted';
CREATE TEMP TABLE states AS
    SELECT DISTINCT ON (state_key) state_key, version, updated_at, study_month FROM (
        SELECT state_key, version, updated_at, {timeline.STUDY_MONTH_SQL} AS study_month FROM found
        UNION ALL
        SELECT state_key, version, updated_at, study_month FROM standing
    );
"""

_NEWS = f"""
CREATE TEMP TABLE new_intervals AS
    SELECT * FROM intervals ANTI JOIN known USING (interval_key);
CREATE TEMP TABLE new_closures AS
    SELECT {_IDENTITY}, interval_key, study_month, ended_by AS change,
           valid_to AS effective_at, observed_to AS observed_at
    FROM intervals WHERE ended_by IS NOT NULL
    EXCEPT
    SELECT {_IDENTITY}, interval_key, study_month, change, effective_at, observed_at
    FROM known_closures
    UNION ALL
    SELECT {_IDENTITY}, interval_key, study_month, 'restated', NULL, observed_at
    FROM standing ANTI JOIN intervals USING (interval_key)
    UNION ALL  -- an absence that ends nothing known yet: an earlier state may come to light
    SELECT {_IDENTITY}, NULL, NULL, 'deleted', observed_at, observed_at FROM absences
    ANTI JOIN (
        SELECT {_IDENTITY}, observed_to AS observed_at FROM intervals WHERE ended_by = 'deleted'
        UNION
        SELECT {_IDENTITY}, observed_at FROM known_closures WHERE change = 'deleted'
    ) USING ({_IDENTITY}, observed_at);
CREATE TEMP TABLE payload AS
    WITH wanted AS (
        SELECT state_key FROM new_intervals UNION SELECT prior_state_key FROM new_intervals
    )
    SELECT DISTINCT ON (state_key) {_STATE_COLUMNS} FROM (
        SELECT {_STATE_COLUMNS}, observed_at FROM found
        UNION ALL
        SELECT {_STATE_COLUMNS}, observed_at FROM standing
    ) SEMI JOIN wanted USING (state_key)
    ORDER BY state_key, observed_at;
CREATE TEMP VIEW news AS
    SELECT 'version' AS row_kind,
           new.* REPLACE (epoch_us(new.StudyTime) AS StudyTime),
           i.study_month, i.interval_key, i.change,
           CASE WHEN i.prior_state_key IS NOT NULL
                THEN {timeline.changed_fields_sql("new", "old")} END AS changed_fields,
           i.versions_unseen,
           i.valid_from AS effective_at, i.observed_from AS observed_at, i.run_id
    FROM new_intervals i
    JOIN payload new ON new.state_key = i.state_key
    LEFT JOIN payload old ON old.state_key = i.prior_state_key
    UNION ALL BY NAME
    SELECT 'closure' AS row_kind, * FROM new_closures;
"""

_CHANGES = """
SELECT change, count(*) FROM news
WHERE interval_key IS NOT NULL AND change IN ('created', 'updated', 'reappeared', 'deleted')
GROUP BY change ORDER BY change
"""
