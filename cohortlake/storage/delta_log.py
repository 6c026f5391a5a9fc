"""What the log of a Delta table says: its files, their sizes and bounds, and each commit's actions.

See `delta` for how a table is opened and written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from cohortlake.storage import damage
from cohortlake.storage.root import Root

_CUT_OFF = 999  # a log may hold instants in whole milliseconds


def files(name: str, table: DeltaTable) -> set[str]:
    """Return the paths of a table's files, relative to the root."""
    # Delta Lake follows symbolic links and writes a space as %20, so the part before the table may
    # differ from the root.
    return {f"{name}/{uri.rsplit(f'/{name}/', 1)[1]}" for uri in table.file_uris()}


def file_sizes(table: DeltaTable, name: str) -> dict[str, int]:
    """Return the size in bytes of each data file of a table, by path below the root."""
    added = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"])
    return {
        f"{name}/{unquote(path)}": size
        for path, size in zip(*added.to_pydict().values(), strict=True)
    }


@dataclass(frozen=True)
class FileRange:
    """A data file, with what the log says about one of its columns.

    Attributes:
        path: Its path below the root.
        rows: How many rows it has.
        nulls: In how many of them the column is null; None if the log does not say it.
        low: A lower bound of the other values, in microseconds since the epoch for a date or an
            instant; None if the log does not say it.
        high: An upper bound, the same.
    """

    path: str
    rows: int
    nulls: int | None
    low: int | None
    high: int | None


def file_ranges(
    table: DeltaTable, name: str, column: str, partition: Mapping[str, str]
) -> list[FileRange]:
    """Return the data files of one partition of a table, with the bounds of a date or an instant.

    Args:
        table: The table.
        name: Its name.
        column: The column. The log has bounds of the first 32 columns.
        partition: Partition column -> its value.
    """
    added = pa.table(table.get_add_actions(flatten=True))
    for key, value in partition.items():
        added = added.filter(pc.equal(added[f"partition.{key}"], value))

    def listed(entry: str, *types: pa.DataType) -> list[Any]:
        values = added[entry] if entry in added.column_names else pa.nulls(len(added))
        for type_ in types:
            values = values.cast(type_)
        return list(values.to_pylist())

    as_microseconds = (pa.timestamp("us"), pa.int64())
    columns = (
        listed("path"),
        listed("num_records"),
        listed(f"null_count.{column}"),
        listed(f"min.{column}", *as_microseconds),
        listed(f"max.{column}", *as_microseconds),
    )
    return [
        FileRange(f"{name}/{unquote(path)}", rows or 0, nulls, low, high and high + _CUT_OFF)
        for path, rows, nulls, low, high in zip(*columns, strict=True)
    ]


def actions(root: Root, name: str, version: int) -> dict[str, list[dict[str, Any]]] | None:
    """Return which files one version of a table added and removed.

    deltalake gives the files of a version, but not whether a commit that replaced files was a
    compaction.

    Args:
        root: The lake.
        name: The table.
        version: The version.

    Returns:
        `add` and `remove` -> actions as the Delta protocol has them; None if the log of this
        version was cleaned up.
    """
    path = f"{name}/_delta_log/{version:020}.json"
    there = root.read_if_there(path)
    if there is None:
        return None
    with damage.parsed(path):
        lines = list(map(json.loads, there[0].splitlines()))
    found: dict[str, list[dict[str, Any]]] = {"add": [], "remove": []}
    for kind, action in (pair for line in lines for pair in line.items()):
        if kind in found:
            found[kind].append(action)
    return found


def rows_added(action: Mapping[str, Any]) -> int:
    """Return how many rows the file of an action has; 0 if the log does not say it."""
    return int(json.loads(action.get("stats") or "{}").get("numRecords", 0))


def log_files(root: Root, name: str) -> list[str]:
    """Return the paths of the files of a table's log."""
    return root.files(f"{name}/_delta_log", "")


def empty_in_log(root: Root, name: str) -> list[str]:
    """Return the empty files of a table's log: deltalake reads them as a commit of nothing."""
    return [path for path, size in root.sizes(f"{name}/_delta_log", ".json").items() if not size]


def damaged_log_file(root: Root, name: str) -> str | None:
    """Return the first file of a table's log that cannot be read, or the log if its start is gone.

    The log has files with one JSON document a line, and checkpoints in Parquet.
    """
    paths = log_files(root, name)
    for path in paths:
        if path.endswith(".json"):
            try:
                list(map(json.loads, root.read(path).splitlines()))
            except ValueError:
                return path
    if damaged := damage.first_damaged(root, [p for p in paths if p.endswith(".parquet")]):
        return damaged
    has_begin = any(p.endswith((f"{0:020}.json", ".checkpoint.parquet")) for p in paths)
    return None if has_begin else f"{name}/_delta_log"
