"""The coverage: which windows were searched, when, and what was found in them.

It has one row per increment that was applied, so it also says which increments were applied. From
it follows up to which instant a data store is complete. All instants are on the service's clock;
the clock of this machine is never used.
"""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from cohortlake import schema
from cohortlake.errors import OldFormat
from cohortlake.healthimaging import EPOCH, Axis
from cohortlake.increments import files, written
from cohortlake.increments.record import Record
from cohortlake.storage import delta, delta_log, engine
from cohortlake.storage.root import Root

TABLE = "coverage"
INTERVAL_COLUMNS = ("datastore_id", "axis", "complete", "start", "end", "searched_at")
"""What `covered_intervals` needs."""

_SCHEMA = schema.arrow_schema(schema.COVERAGE)
_READ: weakref.WeakKeyDictionary[Root, tuple[DeltaTable, int, pa.Table]] = (
    weakref.WeakKeyDictionary()
)
"""The coverage on S3 that a run has read: the table as it was opened, its version, and its rows."""


@dataclass(frozen=True)
class CoverageInterval:
    """An interval of the updatedAt axis, [start, end), whose changes the lake holds completely.

    Attributes:
        start: The first instant.
        end: The first instant after the interval.
        is_open: Whether the interval ends only because the search index may lag: the search
            reached further, and what changed after `end` may not have been searchable yet.
    """

    start: datetime
    end: datetime
    is_open: bool = False


def read(root: Root, columns: Sequence[str] = ()) -> pa.Table:
    """Return the coverage.

    Args:
        root: The lake.
        columns: Which of the columns of `schema.COVERAGE`; all by default. A lake that is years old
            has hundreds of thousands of rows.

    Raises:
        OldFormat: An older release wrote it.
    """
    wanted = _schema_of(columns)
    table = delta.open_table(root, TABLE)
    if table is None:
        return pa.Table.from_batches([], wanted)  # `empty_table()` imports pandas
    if pa.schema(table.schema().to_arrow()).names != _SCHEMA.names:
        raise OldFormat(root.uri_of(TABLE))
    if not root.location_of(TABLE).is_local:
        # Each file takes a request, however few of its columns are read.
        known = _READ.get(root)
        if known is None or known[0] is not table or known[1] != table.version():
            known = _READ[root] = table, table.version(), _read(root, table, _SCHEMA)
        return known[2].select(wanted.names)
    return _read(root, table, wanted)


def _read(root: Root, table: DeltaTable, wanted: pa.Schema) -> pa.Table:
    with engine.connection() as con:  # deltalake reads with `pyarrow.dataset`, which takes 60 MB
        engine.register(con, TABLE, root, sorted(delta_log.files(TABLE, table)), _SCHEMA)
        columns = ", ".join(f'"{name}"' for name in wanted.names)
        return con.sql(f"SELECT {columns} FROM {TABLE}").to_arrow_table().cast(wanted)


def pending(root: Root) -> list[str]:
    """Return the paths of the files whose increments are not applied yet."""
    return _pending(root, read(root, ["increment"]))


def searched(root: Root, columns: Sequence[str] = ()) -> pa.Table:
    """Return the coverage, with rows for the increments that are not applied yet.

    Args:
        root: The lake.
        columns: See `read`.
    """
    rows = read(root, [*columns, "increment"] if columns else ())
    if waiting := _rows(root, _pending(root, rows)):
        rows = pa.concat_tables([rows, pa.Table.from_pylist(waiting, rows.schema)])
    return rows.select(_schema_of(columns).names)


def _schema_of(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([_SCHEMA.field(name) for name in dict.fromkeys(columns or _SCHEMA.names)])


def _pending(root: Root, coverage: pa.Table) -> list[str]:
    shown_by = {path: files.shown_by(path) for path in files.listed(root)}
    with engine.connection() as con:
        con.register("coverage", coverage)
        waiting = con.sql(_WAITING, params={"increments": list(shown_by.values())}).fetchall()
    increments = {increment for (increment,) in waiting}
    return [path for path, increment in shown_by.items() if increment in increments]


def record(root: Root, paths: Sequence[str], *, rebuild: bool = False) -> None:
    """Record that increments were applied. An increment that is recorded already adds nothing.

    Args:
        root: The lake.
        paths: The files of the increments.
        rebuild: Whether to replace the whole coverage by these increments.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    if paths or rebuild:
        delta.retrying(TABLE, lambda: _record(root, paths, rebuild=rebuild))
        written.forget(root)


def _record(root: Root, paths: Sequence[str], *, rebuild: bool) -> None:
    table = delta.make_table(root, TABLE, _SCHEMA)
    known = set() if rebuild else set(read(root, ["increment"])["increment"].to_pylist())
    rows = [row for row in _rows(root, paths) if row["increment"] not in known]
    if rows or rebuild:
        delta.commit(root, TABLE, table, pa.Table.from_pylist(rows, _SCHEMA), overwrite=rebuild)


def covered_intervals(
    coverage: pa.Table, datastore_id: str, settle: timedelta
) -> list[CoverageInterval]:
    """Return the covered intervals of the updatedAt axis, in order and merged.

    A search covers its window only up to `settle` before the search began. What changed later may
    not have been searchable yet.

    Args:
        coverage: The coverage, at least `INTERVAL_COLUMNS`. See `read`.
        datastore_id: The data store.
        settle: How long the search index may lag.
    """
    with engine.connection() as con:
        con.register("coverage", coverage)
        settle_us = settle // timedelta(microseconds=1)
        own = con.sql(_OWN, params={"datastore_id": datastore_id, "settle": settle_us})
        starts, ends, is_open = own.fetchnumpy().values()
    if not len(starts):
        return []
    reached = np.maximum.accumulate(ends)
    firsts = [0, *(np.flatnonzero(starts[1:] > reached[:-1]) + 1).tolist(), len(starts)]
    merged = []
    for first, after in itertools.pairwise(firsts):
        last = first + int(np.argmax(ends[first:after]))
        start, end = _instant(starts[first]), _instant(ends[last])
        merged.append(CoverageInterval(start, end, is_open=bool(is_open[last])))
    return merged


# Asked in SQL: most functions of pyarrow import pandas, and a tick with nothing new needs neither.
_WAITING = """
SELECT DISTINCT increment FROM (SELECT unnest($increments::TEXT[]) AS increment)
ANTI JOIN coverage USING (increment)
"""

_OWN = f"""
SELECT start, least("end", trusted) AS "end", trusted < "end" AS is_open FROM (
    SELECT epoch_us(start) AS start, epoch_us("end") AS "end",
           epoch_us(searched_at) - $settle AS trusted
    FROM coverage
    WHERE datastore_id = $datastore_id AND axis = '{Axis.UPDATED_AT}' AND complete
) WHERE start < least("end", trusted) ORDER BY 1, 2
"""


def _instant(microseconds: np.int64) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))


def complete_until(covered: Sequence[CoverageInterval]) -> datetime:
    """Return the instant up to which nothing is missing; the epoch if nothing is covered.

    Args:
        covered: See `covered_intervals`.
    """
    return covered[0].end if covered and covered[0].start == EPOCH else EPOCH


def stopped_at(
    coverage: pa.Table, covered: Sequence[CoverageInterval], settle: timedelta
) -> datetime | None:
    """Return where the last search by updatedAt stopped, if it did not come to its end.

    A search that comes to its end records all past days, and a day with new rows up to the instant
    at which the search began.

    Args:
        coverage: The rows of one data store. See `read`.
        covered: The intervals that they cover. See `covered_intervals`.
        settle: How long the search index may lag.

    Returns:
        The instant; None if the search came to its end, or there was none.
    """
    searches = coverage.filter(pc.equal(coverage["axis"], Axis.UPDATED_AT.value))
    began = pc.max(searches["searched_at"]).as_py()
    if began is None:
        return None
    covered_until = covered[-1].end if covered else EPOCH
    if covered_until < _midnight(began - settle):
        return covered_until
    last = searches.filter(pc.equal(searches["searched_at"], pc.max(searches["searched_at"])))
    reached = last.group_by("partition").aggregate([("end", "max")]).sort_by("partition")
    for row in reached.to_pylist():
        day = datetime.combine(date.fromisoformat(row["partition"]), time(), UTC)
        if row["end_max"] < min(day + timedelta(days=1), began):
            end: datetime = row["end_max"]
            return end
    return None


def _midnight(instant: datetime) -> datetime:
    return datetime.combine(instant.astimezone(UTC).date(), time(), UTC)


def _rows(root: Root, paths: Iterable[str]) -> list[dict[str, object]]:
    """Return a row for each increment in some files, also if it is in two of them."""
    records = {record.path: record for path in paths for record in _records_of(root, path)}
    return [_row(record) for record in records.values()]


def _records_of(root: Root, path: str) -> list[Record]:
    own = written.record_of(root, path)
    return [own] if own else files.read_records(root, path)


def _row(record: Record) -> dict[str, object]:
    counts = json.dumps(record.invalid_values, sort_keys=True)
    return asdict(record) | {"increment": record.path, "invalid_values": counts}
