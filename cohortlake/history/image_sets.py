"""The version history: a Delta table that is only ever appended to.

A *version* row says that an interval of a time line began. An *end event* (row_kind `closure`)
says that one ended. Each commit holds all rows of a set of increments. `new_rows` says which
rows these are, `views` gives the rows as SQL views.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from cohortlake import schema
from cohortlake.errors import OldFormat
from cohortlake.history import new_rows, views
from cohortlake.history.views import STORED, HistoryViews
from cohortlake.increments import files, older_format
from cohortlake.storage import delta, delta_log, engine, locks
from cohortlake.storage.files import Files
from cohortlake.storage.root import Root

TABLE = "image_sets"

_OBSERVED = pa.schema([("first", schema.INSTANT), ("last", schema.INSTANT)])


@dataclass(frozen=True)
class ApplyResult:
    """What a commit appended.

    Attributes:
        version: The table's version now, or None if there is no table yet.
        rows: The number of rows appended.
        total_rows: The number of rows of the table: version rows and end events. None if it is not
            known, because nothing was appended and the table on S3 was not opened.
        changes: Kind of change (created, updated, reappeared, deleted) -> how many.
    """

    version: int | None = None
    rows: int = 0
    total_rows: int | None = 0
    changes: dict[str, int] = field(default_factory=dict)


def apply(root: Root, paths: Sequence[str]) -> ApplyResult:
    """Append what increments hold and the version history does not.

    Args:
        root: The lake.
        paths: The increments, in any order. Increments that were applied before add nothing.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    if not paths and not root.knows_who_is_there:
        return ApplyResult(delta.version(root, TABLE), 0, None)  # one request instead of many
    table = delta.open_table(root, TABLE)
    if not paths:
        return ApplyResult(table.version(), 0, table.count()) if table else ApplyResult()
    if table is None:  # an older release may have found them, and ended before it applied them
        older_format.upgrade(root, paths)
    return delta.retrying(TABLE, lambda: _apply(root, _make_table(root), paths, rebuild=False))


def rebuild(root: Root) -> tuple[ApplyResult, list[str]]:
    """Replace the version history by one that is made from all increments, in one commit.

    Returns:
        What the commit holds, and the increments it was made from.

    Raises:
        CommitConflict: Other writers kept committing first.
    """

    def attempt() -> tuple[ApplyResult, list[str]]:
        # Open the table before the increments are listed. A run that applies increments after
        # this makes the commit fail; the increments applied before are in the list.
        table = _make_table(root)
        paths = files.paths(root)
        older_format.upgrade(root, paths)
        return _apply(root, table, paths, rebuild=True), paths

    return delta.retrying(TABLE, attempt)


def _make_table(root: Root) -> DeltaTable:
    return delta.make_table(root, TABLE, STORED, partition_by=["row_kind"])


def _apply(root: Root, table: DeltaTable, paths: Sequence[str], *, rebuild: bool) -> ApplyResult:
    with engine.bounded_connection() as con:
        history = _register_table(con, root, None if rebuild else table)
        rows = new_rows.find(con, history, root, paths)
        count = engine.count(con, f"SELECT count(*) FROM {rows}")
        if not count and not rebuild:
            return ApplyResult(table.version(), 0, table.count())
        with locks.temporary_folder() as folder:
            batches = new_rows.in_order(con, rows, Files(str(folder)))
            after = delta.commit(root, TABLE, table, batches, overwrite=rebuild)
        changes = dict(con.sql(new_rows.changes_sql(rows)).fetchall())
        return ApplyResult(after.version(), count, after.count(), changes)


def open_table(root: Root, version: int | None = None) -> DeltaTable | None:
    """Return the table, or None if nothing was ever applied.

    Args:
        root: The lake.
        version: Which of its versions; the newest by default.

    Raises:
        OldFormat: An older release wrote it.
    """
    table = delta.open_table(root, TABLE, version)
    _require_this_format(root, table)
    return table


def register(
    con: duckdb.DuckDBPyConnection, root: Root, version: int | None = None
) -> HistoryViews:
    """Make the version history readable.

    Args:
        con: Gets the views. See `HistoryViews` for their names and rows.
        root: The lake.
        version: The version of the table; the newest by default.
    """
    return _register_table(con, root, delta.open_table(root, TABLE, version))


def register_nothing(con: duckdb.DuckDBPyConnection, root: Root) -> HistoryViews:
    """Make an empty version history readable, with the views of `register`."""
    return _register_table(con, root, None)


def register_appended(con: duckdb.DuckDBPyConnection, root: Root, paths: Collection[str]) -> str:
    """Make the rows that were committed between two versions readable, as they are stored.

    Args:
        con: Gets the view.
        root: The lake.
        paths: Their files. See `appended_files`.

    Returns:
        The name of the view.
    """
    engine.register(con, "appended", root, sorted(paths), STORED)
    return "appended"


def appended_files(root: Root, since: int, version: int) -> dict[str, int] | None:
    """Return the files of the rows committed between two versions.

    Reads the log, because compaction adds files without any new row.

    Args:
        root: The lake.
        since: The earlier version.
        version: The later version.

    Returns:
        The files, and how many rows each has; None if the rows are not known: the table was rebuilt
        since then, or its log or files were cleaned up.
    """
    if since > version:  # of a table that was there before this one
        return None
    added = dict[str, int]()
    for number in range(since + 1, version + 1):
        actions = delta_log.actions(root, TABLE, number)
        if actions is None or any(action["dataChange"] for action in actions["remove"]):
            return None
        for action in (action for action in actions["add"] if action["dataChange"]):
            added[f"{TABLE}/{unquote(action['path'])}"] = delta_log.rows_added(action)
    if not root.knows_who_is_there:  # on S3 one listing for all files, instead of a look at each
        return added if set(root.files(TABLE, ".parquet")).issuperset(added) else None
    return added if all(map(root.exists, added)) else None


def version(root: Root) -> int | None:
    """Return the table's newest version, or None if nothing was ever applied."""
    return delta.version(root, TABLE)


def observed(con: duckdb.DuckDBPyConnection, rows: str) -> tuple[datetime | None, datetime | None]:
    """Return when the first and the last search began that saw some rows of the history.

    Args:
        con: The connection of the rows.
        rows: A relation with the column observed_at.
    """
    query = f"SELECT min(observed_at) AS first, max(observed_at) AS last FROM {rows}"
    (seen,) = con.sql(query).to_arrow_table().cast(_OBSERVED).to_pylist()
    return seen["first"], seen["last"]


def _register_table(
    con: duckdb.DuckDBPyConnection, root: Root, table: DeltaTable | None
) -> HistoryViews:
    _require_this_format(root, table)
    return views.create(con, root, sorted(delta_log.files(TABLE, table)) if table else [])


def _require_this_format(root: Root, table: DeltaTable | None) -> None:
    if table and STORED.names != pa.schema(table.schema().to_arrow()).names:
        raise OldFormat(root.uri_of(TABLE))
