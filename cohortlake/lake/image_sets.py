"""The memory: a Delta table that is only ever appended to.

Owns how increments are applied and how the table is read. A *version* row is an interval
of a time line that was seen for the first time; a *closure* row says that one ended. What
the intervals are is worked out in `lake.timeline`, for the image sets that changed only.

One commit holds all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from cohortlake import schema
from cohortlake.lake import delta, engine, increments, timeline
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


def apply(root: Root, paths: Sequence[str]) -> Applied:
    """Add to the memory what increments say that it does not know.

    Args:
        root: The lake.
        paths: The increments, in any order; those applied before add nothing.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    if not paths:
        known = delta.open_table(root, TABLE)
        return Applied(known.version(), 0, known.count()) if known else Applied()
    return delta.retrying(TABLE, lambda: _apply(root, _made(root), paths, rebuild=False))


def rebuild(root: Root) -> tuple[Applied, list[str]]:
    """Forget the memory and make it anew from all increments, in one commit.

    Returns:
        What the commit brought, and the increments it holds.

    Raises:
        CommitConflict: Other writers kept committing first.
    """

    def attempt() -> tuple[Applied, list[str]]:
        # The table first: what another run applies after this is told by its commit, and the
        # increments of what it applied before are there to be listed.
        table = _made(root)
        paths = increments.paths(root)
        return _apply(root, table, paths, rebuild=True), paths

    return delta.retrying(TABLE, attempt)


def _made(root: Root) -> DeltaTable:
    return delta.make_table(root, TABLE, _STORED, partition_by=["row_kind"])


def _apply(root: Root, table: DeltaTable, paths: Sequence[str], *, rebuild: bool) -> Applied:
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
    """The states that are true, to ask many times; eight bytes each, read when first asked.

    Args:
        root: The lake.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    @functools.cached_property
    def _state_keys(self) -> np.ndarray:
        with engine.connection() as con:
            register(con, self._root)
            keys = con.sql("SELECT DISTINCT state_key FROM current").to_arrow_table()
        return np.sort(keys["state_key"].to_numpy())

    def lacks(self, state_keys: np.ndarray) -> np.ndarray:
        """Return which of some states are not among them."""
        places = np.searchsorted(self._state_keys, state_keys)
        unknown: np.ndarray = np.append(self._state_keys, 0)[places] != state_keys
        return unknown


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


def changed_months(
    con: duckdb.DuckDBPyConnection, root: Root, since: int | None, version: int
) -> set[str]:
    """Return the study months with rows that were committed after a version.

    Args:
        con: With the views of `register` for `version`.
        root: The lake.
        since: The earlier version; None for all months there are.
        version: The later one.
    """
    view = "stored"
    if since is not None and (appended := _appended(root, since, version)) is not None:
        view = "appended"
        engine.register(con, view, root, appended, _STORED, hive=True)
    return {
        str(month) for (month,) in con.sql(f"SELECT DISTINCT study_month FROM {view}").fetchall()
    }


def _appended(root: Root, since: int, version: int) -> list[str] | None:
    """Return the files that only the later version has, or None if it is no continuation."""
    try:
        before = _files(DeltaTable(root.uri_of(TABLE), version=since))
    except DeltaError:  # its log has been cleaned up
        return None
    now = _files(DeltaTable(root.uri_of(TABLE), version=version))
    return sorted(now - before) if before <= now else None


def _register_table(con: duckdb.DuckDBPyConnection, root: Root, table: DeltaTable | None) -> None:
    files = sorted(_files(table)) if table else []
    engine.register(con, "stored", root, files, _STORED, hive=True)
    con.execute(_VIEWS)


def _files(table: DeltaTable) -> set[str]:
    """Return the paths of a table's files, relative to the root."""
    # Delta Lake follows symbolic links and writes a space as %20: what comes before the table
    # may read otherwise than the root.
    return {f"{TABLE}/{uri.rsplit(f'/{TABLE}/', 1)[1]}" for uri in table.file_uris()}


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
CREATE VIEW ends AS  -- a late increment may show that a state ended, or was seen to end, earlier
    SELECT interval_key, min(effective_at) AS valid_to,
           arg_min(observed_at, (effective_at, observed_at)) AS observed_to,
           arg_min(change, (effective_at, observed_at)) AS ended_by
    FROM closures GROUP BY interval_key;
CREATE VIEW history AS
    SELECT versions.* EXCLUDE (effective_at, observed_at), effective_at AS valid_from, valid_to,
           observed_at AS observed_from, observed_to, ended_by
    FROM versions LEFT JOIN ends USING (interval_key)
    WHERE ended_by IS DISTINCT FROM 'restated';
"""

# A restated closure must win over any other of the same interval: nothing is earlier.
_RESTATED_AT = "TIMESTAMPTZ '1970-01-01 00:00:00+00'"


def _load(con: duckdb.DuckDBPyConnection, root: Root, paths: Sequence[str]) -> None:
    """Put what the increments say beside what the memory knows of the same image sets."""
    stateless = (increments.ABSENCE_AXIS, increments.UNREAD_AXIS)
    found = [path for path in paths if increments.axis_of(path) not in stateless]
    engine.register(con, "found", root, found, increments.FOUND)
    absent = [path for path in paths if increments.axis_of(path) == increments.ABSENCE_AXIS]
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
    SELECT {_IDENTITY}, interval_key, study_month, 'restated', {_RESTATED_AT}, observed_at
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
