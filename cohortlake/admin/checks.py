"""What must hold of a lake, counted: the figures behind the asset checks.

Each function reads what lies on disk and returns counts; it raises nothing and decides
nothing. What is too many is the caller's to say.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import duckdb
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.healthimaging import Axis
from cohortlake.history import coverage, image_sets
from cohortlake.publish.marker import read_marker
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_IDENTITY = schema.arrow_schema((schema.DATASTORE_ID, schema.SUMMARY_FIELDS[0]))


@dataclass(frozen=True)
class RowCounts:
    """Rows of the memory and of what was published from it, counted in the files.

    Attributes:
        current: Image sets that are true now in the version of the memory that was published.
        image_sets: Rows of the published table `image_sets`.
        history: Rows of the published table `history`.
    """

    current: int = 0
    image_sets: int = 0
    history: int = 0


def row_counts(root: Root) -> RowCounts:
    """Count the rows of the memory and of what was published from it."""
    marker = read_marker(root)
    if marker is None:
        return RowCounts()
    with engine.connection() as con:
        image_sets.register(con, root, marker.image_sets_version)
        for table in ("image_sets", "history"):
            _register_published(con, root, table)
        return RowCounts(
            current=engine.count(con, "SELECT count(*) FROM current"),
            image_sets=engine.count(con, "SELECT count(*) FROM published_image_sets"),
            history=engine.count(con, "SELECT count(*) FROM published_history"),
        )


def repeated_image_sets(root: Root) -> int:
    """Count the image sets that the published table `image_sets` holds more than once."""
    names = ", ".join(_IDENTITY.names)
    with engine.connection() as con:
        _register_published(con, root, "image_sets")
        return engine.count(
            con,
            f"SELECT count(*) FROM (SELECT {names} FROM published_image_sets "
            f"GROUP BY {names} HAVING count(*) > 1)",
        )


def invalid_shares(root: Root) -> dict[str, float]:
    """Return which share of the values that were found could not be parsed, by column.

    Counts what the searches by updatedAt found; an image set that was found twice, because
    it changed, counts twice.
    """
    ledger = coverage.read(root)
    found = ledger.filter(pc.equal(ledger["axis"], Axis.UPDATED_AT.value))
    rows = pc.sum(found["rows"]).as_py() or 0
    invalid: Counter[str] = Counter()
    for counts in found["invalid_values"].to_pylist():
        invalid.update(json.loads(counts))
    return {column: count / rows for column, count in sorted(invalid.items()) if rows}


def left_open(root: Root) -> int:
    """Count the image sets that the last sweeps did not find and that were not closed.

    They are too many to close unasked, or nobody can tell whether they are gone, because
    GetImageSet is denied.
    """
    with engine.connection() as con:
        con.register("ledger", coverage.read(root))
        return engine.count(con, _LEFT_OPEN)


_LEFT_OPEN = f"""
SELECT coalesce(sum(missing), 0)::BIGINT FROM (
    SELECT DISTINCT ON (datastore_id, "partition") missing FROM (
        SELECT datastore_id, "partition", run_id, max(searched_at) AS swept_at,
               max(missing) AS missing  -- each part of a sweep says it of the whole
        FROM ledger WHERE axis IN ('study_date', 'created_at', 'absence')
            AND "partition" SIMILAR TO '{schema.UNDATED}|[0-9]{{4}}-[0-9]{{2}}'
        GROUP BY ALL
    ) ORDER BY datastore_id, "partition", swept_at DESC, run_id
)
"""


def _register_published(con: duckdb.DuckDBPyConnection, root: Root, table: str) -> None:
    marker = read_marker(root)
    files = marker.paths(table) if marker else []
    engine.register(con, f"published_{table}", root, files, _IDENTITY)
