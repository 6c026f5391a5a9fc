"""The memory: a Delta table that is only ever appended to.

Owns how increments are applied and how the table is read. A *version* row is an interval
of a time line that was seen for the first time; a *closure* row says that one ended. What
the intervals are is worked out in `history.timeline`, for the image sets that changed only.

One commit holds all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from cohortlake import schema
from cohortlake.errors import OldFormat
from cohortlake.history import timeline
from cohortlake.increments import files, kinds, older_format
from cohortlake.storage import delta, engine
from cohortlake.storage.root import Root

TABLE = "image_sets"

# Delta Lake has no type for a time of day: it is kept as microseconds since midnight.
_TIMES = [column.name for column in schema.STATE if column.type == pa.time64("us")]
_STORED = pa.schema(
    [pa.field(c.name, pa.int64() if c.name in _TIMES else c.type) for c in schema.IMAGE_SETS]
)
_OBSERVED = pa.schema([("first", schema.INSTANT), ("last", schema.INSTANT)])
_STATE_COLUMNS = ", ".join(column.name for column in schema.STATE)
_IDENTITY = "datastore_id, image_set_id"


@dataclass(frozen=True)
class ApplyResult:
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


def apply(root: Root, paths: Sequence[str]) -> ApplyResult:
    """Add to the memory what increments say that it does not know.

    Args:
        root: The lake.
        paths: The increments, in any order; those applied before add nothing.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    known = delta.open_table(root, TABLE)
    if not paths:
        return ApplyResult(known.version(), 0, known.count()) if known else ApplyResult()
    if known is None:  # perhaps an older release found them, and ended before it applied them
        older_format.upgrade(root, paths)
    return delta.retrying(TABLE, lambda: _apply(root, _made(root), paths, rebuild=False))


def rebuild(root: Root) -> tuple[ApplyResult, list[str]]:
    """Forget the memory and make it anew from all increments, in one commit.

    Returns:
        What the commit brought, and the increments it holds.

    Raises:
        CommitConflict: Other writers kept committing first.
    """

    def attempt() -> tuple[ApplyResult, list[str]]:
        # The table first: what another run applies after this is told by its commit, and the
        # increments of what it applied before are there to be listed.
        table = _made(root)
        paths = files.paths(root)
        older_format.upgrade(root, paths)
        return _apply(root, table, paths, rebuild=True), paths

    return delta.retrying(TABLE, attempt)


def _made(root: Root) -> DeltaTable:
    return delta.make_table(root, TABLE, _STORED, partition_by=["row_kind"])


def _apply(root: Root, table: DeltaTable, paths: Sequence[str], *, rebuild: bool) -> ApplyResult:
    with engine.connection() as con:
        _register_table(con, root, None if rebuild else table)
        _load(con, root, paths)
        timeline.build(con)
        con.execute(_NEW_INTERVALS)
        con.execute(_NEWS.format(in_months=_in_months_of(con, "told_anew")))
        rows = engine.count(con, "SELECT count(*) FROM news")
        if not rows and not rebuild:
            return ApplyResult(table.version(), 0, table.count())
        columns = ", ".join(_STORED.names)
        ordered = f"SELECT {columns} FROM news ORDER BY study_month, updated_at"
        news = engine.batches(con, ordered, _STORED)
        after = delta.commit(root, TABLE, table, news, overwrite=rebuild)
        changes = dict(con.sql(_CHANGES).fetchall())
        return ApplyResult(after.version(), rows, after.count(), changes)


class KnownStates:
    """The states that are true, to ask many times; eight bytes each, read when first asked.

    Args:
        root: The lake.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    @functools.cached_property
    def _state_keys(self) -> np.ndarray:
        table = delta.open_table(self._root, TABLE)
        if table is None:
            return np.array([], np.int64)
        with engine.connection() as con:
            _register_table(con, self._root, table)
            keys = con.sql("SELECT DISTINCT state_key FROM current").to_arrow_table()
        return np.sort(keys["state_key"].to_numpy())

    def lacks(self, state_keys: np.ndarray) -> np.ndarray:
        """Return which of some states are not among them."""
        if not len(self._state_keys):
            return np.ones(len(state_keys), np.bool_)
        places = np.searchsorted(self._state_keys, state_keys)
        unknown: np.ndarray = self._state_keys.take(places, mode="clip") != state_keys
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


def register_nothing(con: duckdb.DuckDBPyConnection, root: Root) -> None:
    """Make an empty memory readable, with the views of `register`."""
    _register_table(con, root, None)


def version(root: Root) -> int | None:
    """Return the table's newest version, or None where nothing was ever applied."""
    table = delta.open_table(root, TABLE)
    return table.version() if table else None


def observed(con: duckdb.DuckDBPyConnection) -> tuple[str | None, str | None]:
    """Return when the first search began of which the memory knows, and the last one.

    Args:
        con: With the views of `register`.
    """
    query = "SELECT min(observed_at) AS first, max(observed_at) AS last FROM stored"
    (seen,) = con.sql(query).to_arrow_table().cast(_OBSERVED).to_pylist()
    first, last = (at and at.isoformat() for at in seen.values())
    return first, last


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
        Whether it is that view; then there is `former_ends` too, how intervals had ended before.
        Where the table was made anew since then, or its log or files were cleaned up, `appended`
        is all rows.
    """
    appended = None if since is None else _appended(root, since, version)
    if appended is None:
        con.execute("CREATE VIEW appended AS FROM stored")
        return False
    engine.register(con, "appended", root, appended, _STORED)
    con.execute(_FORMER_ENDS)
    return True


def _appended(root: Root, since: int, version: int) -> list[str] | None:
    """Return the files of the rows committed after a version, or None where nobody can tell.

    The log tells them: compaction replaces files without any new row in them.
    """
    if since > version:  # of a table that was there before this one
        return None
    added = []
    for number in range(since + 1, version + 1):
        actions = delta.actions(root, TABLE, number)
        if actions is None or any(action["dataChange"] for action in actions["remove"]):
            return None
        added += [f"{TABLE}/{unquote(a['path'])}" for a in actions["add"] if a["dataChange"]]
    return added if all(map(root.exists, added)) else None


def _register_table(con: duckdb.DuckDBPyConnection, root: Root, table: DeltaTable | None) -> None:
    if table and _STORED.names != pa.schema(table.schema().to_arrow()).names:
        raise OldFormat(root.uri_of(TABLE), schema.FORMAT_VERSION)
    files = sorted(delta.files(TABLE, table)) if table else []
    engine.register(con, "stored", root, files, _STORED)
    con.execute(_VIEWS)


def _ends(closures: str) -> str:
    """Return SQL for how intervals ended: what came to light late may move that, or undo it."""
    return f"""
        SELECT interval_key, max(revision) AS revision,
               nullif(arg_max(change, revision), 'reopened') AS ended_by,
               arg_max_null(effective_at, revision) AS valid_to,
               arg_max_null(observed_at, revision) AS observed_to,
           arg_max_null(last_seen_at, revision) AS last_seen_at
        FROM {closures} GROUP BY interval_key
    """


_VIEWS = f"""
CREATE VIEW versions AS
    SELECT * EXCLUDE (row_kind) REPLACE (
        {", ".join(f"TIME '00:00:00' + to_microseconds({name}) AS {name}" for name in _TIMES)}
    ) FROM stored WHERE row_kind = 'version';
CREATE VIEW closures AS
    SELECT {_IDENTITY}, image_set_key, interval_key, study_month, change, effective_at,
           last_seen_at, observed_at, revision
    FROM stored WHERE row_kind = 'closure';
CREATE VIEW ends AS {_ends("closures")};
CREATE VIEW current AS
    SELECT * FROM versions ANTI JOIN (FROM ends WHERE ended_by IS NOT NULL) USING (interval_key);
CREATE VIEW history AS
    SELECT versions.* EXCLUDE (effective_at, observed_at, last_seen_at),
           effective_at AS valid_from, valid_to, ends.last_seen_at,
           observed_at AS observed_from, observed_to, ended_by
    FROM versions LEFT JOIN (SELECT * EXCLUDE (revision) FROM ends) ends USING (interval_key)
    WHERE ended_by IS DISTINCT FROM 'restated';
"""


_FORMER_ENDS = f"""
CREATE VIEW former_closures AS
    FROM closures ANTI JOIN (FROM appended WHERE row_kind = 'closure')
    USING (interval_key, revision);
CREATE VIEW former_ends AS {_ends("former_closures")};
"""


def _load(con: duckdb.DuckDBPyConnection, root: Root, paths: Sequence[str]) -> None:
    """Put what the increments say beside what the memory knows of the same image sets."""
    found = [p for p in paths if files.axis_of(p) not in kinds.STATELESS_AXES]
    engine.register(con, "found", root, found, kinds.FOUND_SCHEMA)
    absent = [path for path in paths if files.axis_of(path) == kinds.ABSENCE_AXIS]
    engine.register(con, "absent", root, absent, kinds.ABSENCE_SCHEMA)
    con.execute(_TOUCHED)
    in_months = _in_months_of(con, "versions SEMI JOIN touched USING (image_set_key)")
    con.execute(_KNOWN.format(in_months=in_months))
    con.execute(_RELATIONS)


def _in_months_of(con: duckdb.DuckDBPyConnection, rows: str) -> str:
    """Return SQL for the span of some rows' months: constants, so that row groups are skipped."""
    span = f"SELECT coalesce(min(study_month), ''), coalesce(max(study_month), '') FROM {rows}"
    ((first, last),) = con.sql(span).fetchall()
    return f"study_month BETWEEN '{first}' AND '{last}'"


_TOUCHED = f"""
CREATE TEMP TABLE touched AS
    SELECT *, {timeline.IMAGE_SET_KEY} AS image_set_key
    FROM (SELECT {_IDENTITY} FROM found UNION SELECT {_IDENTITY} FROM absent)
"""

# All rows there are must be looked through for the keys, and for no more than these: what else is
# wanted is read from their months. Two image sets may have one key; then their ids tell.
_KNOWN = f"""
CREATE TEMP TABLE known AS
    SELECT * EXCLUDE (image_set_key) FROM (
        SELECT {_IDENTITY}, image_set_key, interval_key, state_key, version, updated_at,
               study_month, observed_at, run_id
        FROM versions SEMI JOIN touched USING (image_set_key) WHERE {{in_months}}
    ) SEMI JOIN touched USING ({_IDENTITY});
CREATE TEMP TABLE known_closures AS
    SELECT * EXCLUDE (image_set_key) FROM (
        FROM closures SEMI JOIN touched USING (image_set_key)
        WHERE {{in_months}} OR study_month IS NULL  -- of an absence that ended nothing
    ) SEMI JOIN touched USING ({_IDENTITY});
"""

_RELATIONS = f"""
CREATE TEMP TABLE known_ends AS {_ends("known_closures")};
CREATE TEMP VIEW observations AS
    SELECT {_IDENTITY}, state_key, observed_at, run_id FROM found
    UNION ALL
    SELECT {_IDENTITY}, state_key, observed_at, run_id FROM known;
CREATE TEMP VIEW absences AS
    SELECT {_IDENTITY}, observed_at, max(last_seen_at) AS last_seen_at FROM (
        SELECT {_IDENTITY}, observed_at, last_seen_at FROM absent
        UNION ALL
        SELECT {_IDENTITY}, observed_at, last_seen_at FROM known_closures WHERE change = 'deleted'
    ) GROUP BY ALL;
CREATE TEMP TABLE states AS
    SELECT DISTINCT ON (state_key) state_key, version, updated_at, study_month FROM (
        SELECT state_key, version, updated_at, {timeline.STUDY_MONTH_SQL} AS study_month FROM found
        UNION ALL
        SELECT state_key, version, updated_at, study_month FROM known
    );
"""

_NEW_INTERVALS = """
CREATE TEMP TABLE new_intervals AS
    SELECT * FROM intervals ANTI JOIN known USING (interval_key);
CREATE TEMP TABLE told_anew AS  -- known states, hardly ever any
    SELECT study_month, interval_key FROM known SEMI JOIN new_intervals USING (state_key);
"""

_NEWS = f"""
CREATE TEMP TABLE new_closures AS
    WITH ends_now AS (
        SELECT {_IDENTITY}, interval_key, study_month, ended_by, valid_to, last_seen_at,
               observed_to
        FROM intervals
        UNION ALL
        SELECT {_IDENTITY}, interval_key, study_month, 'restated', NULL, NULL, observed_at
        FROM known ANTI JOIN intervals USING (interval_key)
    )
    SELECT {_IDENTITY}, now.interval_key, study_month,
           coalesce(now.ended_by, 'reopened') AS change,
           now.valid_to AS effective_at, now.last_seen_at, now.observed_to AS observed_at,
           coalesce(revision, 0) + 1 AS revision
    FROM ends_now now LEFT JOIN known_ends known USING (interval_key)
    WHERE now.ended_by IS DISTINCT FROM known.ended_by
       OR now.valid_to IS DISTINCT FROM known.valid_to
       OR now.observed_to IS DISTINCT FROM known.observed_to
       OR now.last_seen_at IS DISTINCT FROM known.last_seen_at
    UNION ALL  -- an absence that ends nothing known yet: an earlier state may come to light
    SELECT {_IDENTITY}, NULL, NULL, 'deleted', observed_at, last_seen_at, observed_at, 1
    FROM (
        SELECT {_IDENTITY}, observed_at, last_seen_at FROM absences
        EXCEPT
        SELECT {_IDENTITY}, observed_to, last_seen_at FROM intervals WHERE ended_by = 'deleted'
        EXCEPT
        SELECT {_IDENTITY}, observed_at, last_seen_at FROM known_closures WHERE change = 'deleted'
    );
CREATE TEMP TABLE known_payload AS
    SELECT {_STATE_COLUMNS}, observed_at FROM versions SEMI JOIN told_anew USING (interval_key)
    WHERE {{in_months}};
CREATE TEMP TABLE payload AS
    SELECT DISTINCT ON (state_key) {_STATE_COLUMNS} FROM (
        SELECT {_STATE_COLUMNS}, observed_at FROM found
        UNION ALL
        SELECT {_STATE_COLUMNS}, observed_at FROM known_payload
    ) SEMI JOIN new_intervals USING (state_key)
    ORDER BY state_key, observed_at;
CREATE TEMP VIEW news AS
    SELECT *, {timeline.IMAGE_SET_KEY} AS image_set_key FROM (
        SELECT 'version' AS row_kind,
               payload.* REPLACE (epoch_us(StudyTime) AS StudyTime),
               i.study_month, interval_key, change, prior_state_key, prior_study_month,
               versions_unseen, valid_from AS effective_at, observed_from AS observed_at, run_id
        FROM new_intervals i JOIN payload USING (state_key)
        UNION ALL BY NAME
        SELECT 'closure' AS row_kind, * FROM new_closures
    );
"""

_CHANGES = """
SELECT change, count(*) FROM news
WHERE interval_key IS NOT NULL AND change IN ('created', 'updated', 'reappeared', 'deleted')
GROUP BY change ORDER BY change
"""
