"""Checks of a lake: what must hold after every run. Each returns whether it holds, and counts.

A check reads the lake and changes nothing. Counts, months and column names only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.admin.imports import DatastoreImports
from cohortlake.admin.reconciliation_check import reconciliation_check
from cohortlake.admin.status import Status
from cohortlake.cohort import cohort_files
from cohortlake.healthimaging import Axis
from cohortlake.history import coverage, image_sets
from cohortlake.ingest.headers.choice import HeaderChoice, estimate
from cohortlake.publish.publication.marker import read_marker
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root

LATEST_COVERAGE = timedelta(days=1)
"""Largest distance between proven coverage and the service's clock, without `settle`."""

LATEST_FAILED_IMPORT = timedelta(days=1)
"""How long an import job that failed is a warning. `cohortlake status` lists it for 90 days."""

HIGHEST_INVALID_SHARE = 0.01
"""Largest share of values of a column that cannot be parsed. More means a broken import."""

_HASHES_AT_ONCE = 10_000_000

_IDENTITY = schema.arrow_schema((schema.DATASTORE_ID, schema.SUMMARY_FIELDS[0]))


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        passed: Whether it holds.
        counts: Name -> what was counted; never the value of a tag.
    """

    passed: bool
    counts: Mapping[str, int | float | str] = field(default_factory=dict)


def check_coverage(
    state: Status, settle: timedelta, now_of: Callable[[str], datetime]
) -> CheckResult:
    """Check that nothing is missing up to `LATEST_COVERAGE` ago, in any data store.

    Args:
        state: The state of the lake.
        settle: How long the search index may lag.
        now_of: Returns the service's present instant for a data store.

    Raises:
        ServiceError: See `errors`.
    """
    stores = state.datastores
    tolerance = LATEST_COVERAGE + settle
    late = sum(not store.reaches(now_of(store.datastore_id) - tolerance) for store in stores)
    return CheckResult(
        not late,
        {
            "late": late,
            "gaps": sum(len(store.gaps) for store in stores),
            **{f"{s.datastore_id}_complete_until": str(s.complete_until) for s in stores},
        },
    )


def check_imports(
    stores: Iterable[DatastoreImports], now_of: Callable[[str], datetime]
) -> CheckResult:
    """Check that no import job failed in the last day, as far as the service tells.

    Args:
        stores: The import jobs of each data store.
        now_of: Returns the service's present instant for a data store. Asked if a job failed.

    Raises:
        ServiceError: See `errors`.
    """
    counts, latest, unknown = Counter[str](), 0, list[str]()
    for store in stores:
        counts["failed"] += len(store.failed)
        counts["under_way"] += len(store.under_way)
        if store.unknown_because:
            unknown.append(store.unknown_because)
        if store.failed:
            since = now_of(store.datastore_id) - LATEST_FAILED_IMPORT
            ends = (job.ended_at or job.submitted_at for job in store.failed)
            latest += sum(end is not None and end >= since for end in ends)
    return CheckResult(
        not latest,
        {
            "failed_in_a_day": latest,
            "failed": counts["failed"],
            "under_way": counts["under_way"],
            "unknown_because": "; ".join(dict.fromkeys(unknown)),
        },
    )


def check_headers(root: Root, settings: Settings) -> CheckResult:
    """Check that each header that was asked for could be read.

    Counts those that are due, and in published headers the values that could not be read, by
    column.

    Args:
        root: The lake.
        settings: The data stores, and the modalities whose headers are fetched.
    """
    if not settings.headers:
        return CheckResult(passed=True, counts={"modalities": "none"})
    choice = HeaderChoice(settings.headers)
    found = estimate(root, settings.require_datastores(), choice, settings.metadata_tps)
    left_alone = found.archived
    fetched = found.wanted - found.requests - left_alone
    share = fetched / found.wanted if found.wanted else 1.0
    return CheckResult(
        not found.failed,
        {
            "share_with_header": round(share, 4),
            "due": found.requests,
            "archived_left_alone": left_alone,
            "failed": found.failed,
            **{f"invalid_{column}": count for column, count in _invalid_in_headers(root)},
        },
    )


def _invalid_in_headers(root: Root) -> list[tuple[str, int]]:
    marker = read_marker(root)
    if marker is None or "invalid_fields" not in marker.columns["series_headers"]:
        return []
    columns = pa.schema([("invalid_fields", pa.list_(pa.string()))])
    with engine.connection() as con:
        engine.register(con, "headers", root, marker.paths("series_headers"), columns)
        return con.sql("""
            SELECT field, count(*) FROM (SELECT unnest(invalid_fields) AS field FROM headers)
            GROUP BY field ORDER BY field
        """).fetchall()


def check_reconciliation(root: Root) -> CheckResult:
    """Check that unchanged study months hold what their last sweep found."""
    found = reconciliation_check(root)
    return CheckResult(
        not found.differing,
        {
            "agreeing": found.agreeing,
            "differing": len(found.differing),
            "differing_months": ", ".join(found.differing),
            "changed": found.changed,
            "unswept": found.unswept,
            "studies": found.studies,
            "studies_with_fewer_series": found.studies_with_fewer_series,
            "studies_with_more_series": found.studies_with_more_series,
        },
    )


def check_deletions(root: Root) -> CheckResult:
    """Check that the last sweeps closed every image set that they did not find.

    They leave image sets open that are too many to close unasked, and those that GetImageSet
    cannot confirm because it is denied.
    """
    with engine.connection() as con:
        con.register("coverage", coverage.read(root, _LEFT_OPEN_COLUMNS))
        left_open = engine.count(con, _LEFT_OPEN)
    return CheckResult(not left_open, {"left_open": left_open})


def check_values(root: Root) -> CheckResult:
    """Check that few values could not be parsed, in each column.

    Counts what the searches by updatedAt found. An image set that was found twice, because it
    changed, counts twice.
    """
    searched = coverage.read(root, ["axis", "rows", "invalid_values"])
    found = searched.filter(pc.equal(searched["axis"], Axis.UPDATED_AT.value))
    rows = pc.sum(found["rows"]).as_py() or 0
    invalid: Counter[str] = Counter()
    for counts in pc.value_counts(found["invalid_values"]).to_pylist():  # most of them say nothing
        for column, count in json.loads(counts["values"]).items():
            invalid[column] += count * counts["counts"]
    shares = {column: count / rows for column, count in sorted(invalid.items()) if rows}
    return CheckResult(
        all(share <= HIGHEST_INVALID_SHARE for share in shares.values()),
        {f"invalid_share_{column}": share for column, share in shares.items()},
    )


def check_unique(root: Root) -> CheckResult:
    """Check that the published table `image_sets` has one row per image set.

    Compares hashes of 8 bytes, some million at a time, and then the rows whose hash is repeated.
    """
    names = ", ".join(_IDENTITY.names)
    marker = read_marker(root)
    parts = (marker.rows("image_sets") if marker else 0) // _HASHES_AT_ONCE + 1
    with engine.connection() as con:
        _register_published(con, root, "image_sets")
        rows = f"(SELECT {names}, hash({names}) AS identity_hash FROM published_image_sets)"
        suspects = [
            _repeated(
                con.sql(f"SELECT identity_hash FROM {rows} WHERE identity_hash % {parts} = {n}")
            )
            for n in range(parts)
        ]
        con.register("suspects", pa.table({"identity_hash": np.concatenate(suspects)}))
        repeated = engine.count(
            con,
            f"SELECT count(*) FROM (SELECT {names} FROM {rows} SEMI JOIN suspects "
            f"USING (identity_hash) GROUP BY {names} HAVING count(*) > 1)",
        )
    return CheckResult(not repeated, {"repeated": repeated})


def _repeated(hashes: duckdb.DuckDBPyRelation) -> np.ndarray:
    """Return the values of one column that occur more than once."""
    values = np.sort(hashes.to_arrow_table().column(0).to_numpy())
    return np.unique(values[1:][values[1:] == values[:-1]])


def check_published_rows(root: Root) -> CheckResult:
    """Check that as many image sets are published as the version history holds as current."""
    rows = _row_counts(root)
    return CheckResult(
        rows.image_sets == rows.current,
        {"image_sets_rows": rows.image_sets, "current_rows": rows.current},
    )


def check_history_rows(root: Root) -> CheckResult:
    """Check that the table `history` has at least as many rows as the table `image_sets`."""
    rows = _row_counts(root)
    return CheckResult(
        rows.history >= rows.image_sets,
        {"history_rows": rows.history, "image_sets_rows": rows.image_sets},
    )


def check_cohort_files(folder: str | Path) -> CheckResult:
    """Check that each YAML file in the folder of cohorts has a name that a cohort can have."""
    misnamed = cohort_files.misnamed(folder)
    return CheckResult(
        not misnamed,
        {
            "files": ", ".join(misnamed),
            "rename_to": "lower case letters, digits and underscores, and the suffix .yaml",
        },
    )


@dataclass(frozen=True)
class _RowCounts:
    """Rows counted in the files.

    Attributes:
        current: Current image sets, in the version of the history that was published.
        image_sets: Rows of the published table `image_sets`.
        history: Rows of the published table `history`.
    """

    current: int = 0
    image_sets: int = 0
    history: int = 0


def _row_counts(root: Root) -> _RowCounts:
    marker = read_marker(root)
    if marker is None:
        return _RowCounts()
    with engine.connection() as con:
        image_sets.register(con, root, marker.image_sets_version)
        for table in ("image_sets", "history"):
            _register_published(con, root, table)
        return _RowCounts(
            current=engine.count(con, "SELECT count(*) FROM current"),
            image_sets=engine.count(con, "SELECT count(*) FROM published_image_sets"),
            history=engine.count(con, "SELECT count(*) FROM published_history"),
        )


_LEFT_OPEN_COLUMNS = ("datastore_id", "partition", "run_id", "axis", "searched_at", "missing")
_LEFT_OPEN = f"""
SELECT coalesce(sum(missing), 0)::BIGINT FROM (
    SELECT DISTINCT ON (datastore_id, "partition") missing FROM (
        SELECT datastore_id, "partition", run_id, max(searched_at) AS swept_at,
               max(missing) AS missing  -- each part of a sweep has the number of the whole sweep
        FROM coverage WHERE axis IN ('study_date', 'created_at', 'absence')
            AND "partition" SIMILAR TO '{schema.UNDATED}|[0-9]{{4}}-[0-9]{{2}}'
        GROUP BY ALL
    ) ORDER BY datastore_id, "partition", swept_at DESC, run_id
)
"""


def _register_published(con: duckdb.DuckDBPyConnection, root: Root, table: str) -> None:
    marker = read_marker(root)
    files = marker.paths(table) if marker else []
    engine.register(con, f"published_{table}", root, files, _IDENTITY)
