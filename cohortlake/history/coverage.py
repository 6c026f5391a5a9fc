"""The ledger: which windows were searched, when, and what they held.

One row per increment that was applied, so it also says which increments those are. Says
up to which instant a data store is complete, and which windows are due. Nothing here
trusts a clock of this machine: instants are the service's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import OldFormat
from cohortlake.healthimaging import EPOCH, Axis
from cohortlake.increments import files
from cohortlake.increments.record import Record
from cohortlake.storage import delta
from cohortlake.storage.root import Root

TABLE = "coverage"
_SCHEMA = schema.arrow_schema(schema.COVERAGE)


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


def read(root: Root) -> pa.Table:
    """Return the ledger, with the columns of `schema.COVERAGE`.

    Raises:
        OldFormat: An older release wrote it.
    """
    table = delta.open_table(root, TABLE)
    if table is None:
        return _SCHEMA.empty_table()
    if pa.schema(table.schema().to_arrow()).names != _SCHEMA.names:
        raise OldFormat(root.uri_of(TABLE), schema.FORMAT_VERSION)
    with delta.reading(root, TABLE, table):
        stored: pa.Table = table.to_pyarrow_table()
    return stored.select(_SCHEMA.names).cast(_SCHEMA)


def pending(root: Root) -> list[str]:
    """Return the paths of the increments that were not applied yet."""
    return _pending(root, read(root))


def searched(root: Root) -> pa.Table:
    """Return the ledger, and with it the increments that were not applied yet."""
    ledger = read(root)
    waiting = [_row(files.read_record(root, path)) for path in _pending(root, ledger)]
    return pa.concat_tables([ledger, pa.Table.from_pylist(waiting, _SCHEMA)])


def _pending(root: Root, ledger: pa.Table) -> list[str]:
    applied = set(ledger["increment"].to_pylist())
    return [path for path in files.paths(root) if path not in applied]


def record(root: Root, paths: Sequence[str], *, rebuild: bool = False) -> None:
    """Write down that increments were applied; those that are there already stay once.

    Args:
        root: The lake.
        paths: The increments.
        rebuild: Forget the ledger and make it anew from these increments.

    Raises:
        CommitConflict: Other writers kept committing first.
    """
    if paths or rebuild:
        delta.retrying(TABLE, lambda: _record(root, paths, rebuild=rebuild))


def _record(root: Root, paths: Sequence[str], *, rebuild: bool) -> None:
    table = delta.make_table(root, TABLE, _SCHEMA)
    known = set() if rebuild else set(read(root)["increment"].to_pylist())
    rows = [_row(files.read_record(root, path)) for path in paths if path not in known]
    if rows or rebuild:
        delta.commit(root, TABLE, table, pa.Table.from_pylist(rows, _SCHEMA), overwrite=rebuild)


def covered_intervals(
    ledger: pa.Table, datastore_id: str, settle: timedelta
) -> list[CoverageInterval]:
    """Return what is proven complete on the updatedAt axis, in order and merged.

    A search proves its window only up to `settle` before it began: what changed later may
    not have been searchable yet.
    """
    stretches = [
        _proven_by(row, settle)
        for row in ledger.to_pylist()
        if row["datastore_id"] == datastore_id
        and row["axis"] == Axis.UPDATED_AT
        and row["complete"]
    ]
    merged: list[CoverageInterval] = []
    for stretch in sorted(stretches, key=lambda s: (s.start, s.end)):
        if stretch.start >= stretch.end:
            continue
        if merged and stretch.start <= merged[-1].end:
            last = merged.pop()
            longer = max(last, stretch, key=lambda s: s.end)
            stretch = replace(longer, start=last.start)
        merged.append(stretch)
    return merged


def _proven_by(row: dict[str, Any], settle: timedelta) -> CoverageInterval:
    trusted = row["searched_at"] - settle
    return CoverageInterval(row["start"], min(row["end"], trusted), is_open=trusted < row["end"])


def complete_until(stretches: Sequence[CoverageInterval]) -> datetime:
    """Return the instant up to which nothing is missing; the epoch if nothing is proven."""
    return stretches[0].end if stretches and stretches[0].start == EPOCH else EPOCH


def stopped_at(
    ledger: pa.Table, stretches: Sequence[CoverageInterval], settle: timedelta
) -> datetime | None:
    """Return where the last search by updatedAt stopped, if it had to go on from there.

    A search that comes to its end puts all days that are over on the ledger, and a day with news
    up to the instant at which it began.

    Args:
        ledger: The rows of one data store, see `read`.
        stretches: What they prove, see `covered_intervals`.
        settle: How long the search index may lag.

    Returns:
        The instant, or None where it came to its end, or there was none.
    """
    searches = ledger.filter(pc.equal(ledger["axis"], Axis.UPDATED_AT.value))
    began = pc.max(searches["searched_at"]).as_py()
    if began is None:
        return None
    proven_until = stretches[-1].end if stretches else EPOCH
    if proven_until < _midnight(began - settle):
        return proven_until
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


def _row(record: Record) -> dict[str, object]:
    counts = json.dumps(record.invalid_values, sort_keys=True)
    return asdict(record) | {"increment": record.path, "invalid_values": counts}
