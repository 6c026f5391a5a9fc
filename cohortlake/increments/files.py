"""The files of the increments: listing, reading, and moving damaged ones aside.

A file holds one increment, or many: see `packed`. Functions that take the path of a file take both
kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.errors import DamagedFile
from cohortlake.increments import packed
from cohortlake.increments.packed import Member
from cohortlake.increments.record import FOOTER_KEY, Record
from cohortlake.storage import damage
from cohortlake.storage.root import Root

DAMAGED_SUFFIX = ".damaged"
"""Suffix of an increment that was set aside."""

RowFilter = Callable[[pa.Table], pa.Array]
"""Takes rows of an increment, and returns a boolean array: which of them are meant."""

_BATCH_ROWS = 25_000
_IDENTITY_COLUMNS = ("datastore_id", "image_set_id", "PatientID", "PatientID_raw")
"""Columns that show whose a row is. A row filter gets these."""


def paths(root: Root) -> list[str]:
    """Return the paths of the files that hold all increments, sorted. See `without_copied`."""
    return without_copied(root, listed(root))


def paths_of_datastore(root: Root, datastore_id: str) -> list[str]:
    """Return the paths of the files that hold the increments of one data store, sorted."""
    return without_copied(root, root.files(f"increments/{datastore_id}", ".parquet"))


def listed(root: Root) -> list[str]:
    """Return the paths of all files, sorted. No file is opened."""
    return root.files("increments", ".parquet")


def without_copied(root: Root, listed: Iterable[str]) -> list[str]:
    """Leave out the files of which each increment is in another, packed file.

    Such files are deleted at some time. See `history.packing`.

    Args:
        root: The lake.
        listed: All files of some axes.

    Raises:
        DamagedFile: A packed file cannot be read.
    """
    listed = list(listed)
    copied = copies(root, listed)
    return [path for path in listed if path not in copied]


def copies(root: Root, listed: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of which each increment is in another file -> these packed files.

    See `without_copied` for the arguments.
    """
    inside: dict[str, frozenset[str]] = {}
    packed_in: dict[str, list[str]] = {}
    for path in filter(packed.is_packed, listed := list(listed)):
        inside[path] = frozenset(record.path for record in read_records(root, path))
        for increment in inside[path]:
            packed_in.setdefault(increment, []).append(path)
    copied = {path: packed_in[path] for path in listed if path in packed_in}
    for path, own in inside.items():
        if larger := [other for other in packed_in[packed.newest_in(path)] if own < inside[other]]:
            copied[path] = larger
    return copied


def shown_by(path: str) -> str:
    """Return the increment that shows whether a file is applied.

    Either all increments of a packed file are, or none.
    """
    return packed.newest_in(path) if packed.is_packed(path) else path


def axis_of(path: str) -> str:
    """Return the axis of the increments in the file at a path."""
    return path.split("/")[2]


def read_records(root: Root, path: str) -> list[Record]:
    """Read the records of the increments in a file."""
    if not packed.is_packed(path):
        return [read_record(root, path)]
    return [member.record for member in read_members(root, path)]


def read_record(root: Root, path: str) -> Record:
    """Read the record of a file that holds one increment."""
    with damage.parsed(path):
        return Record.from_footer(read_footer(root, path))


def read_members(root: Root, path: str) -> list[Member]:
    """Read the records of a packed file, and how many rows each increment has.

    Raises:
        DamagedFile: The file cannot be read, or the records do not fit its rows or its name.
    """
    with root.open(path) as file, _explained(root, path), damage.parsed(path):
        metadata = pq.read_metadata(file)
        members = packed.from_footer((metadata.metadata or {})[FOOTER_KEY.encode()])
        if packed.path_of([member.record.path for member in members]) != path:
            raise ValueError("another name")
        if sum(member.rows for member in members) != metadata.num_rows:
            raise ValueError("another number of rows")
    return members


def read_increments(
    root: Root, path: str, only: Collection[str] = ()
) -> Iterator[tuple[Record, Iterator[pa.Table]]]:
    """Yield the increments of a file: the record, and the rows in batches. See `read_batches`."""
    batches = read_batches(root, path, only)
    if not packed.is_packed(path):
        yield read_record(root, path), batches
        return
    members = read_members(root, path)
    rest = next(batches)
    for member in members:
        parts = [rest.slice(0, 0)]
        missing = member.rows
        while missing:
            rest = rest if len(rest) else next(batches)
            parts.append(rest.slice(0, missing))
            rest = rest.slice(len(parts[-1]))
            missing -= len(parts[-1])
        yield member.record, iter(parts)


def locate(root: Root, datastore_id: str, increments: Collection[str]) -> dict[str, set[str]]:
    """Find the files that hold some increments of a data store.

    Args:
        root: The lake.
        datastore_id: The data store.
        increments: The paths of the increments, each as if it had a file of its own.

    Returns:
        Path of a file -> those of the increments that it holds. An increment may be in two files.
    """
    wanted, found = set(increments), dict[str, set[str]]()
    for path in paths_of_datastore(root, datastore_id) if wanted else ():
        inside = {path}
        if packed.is_packed(path):
            inside = {record.path for record in read_records(root, path)}
        if inside & wanted:
            found[path] = inside & wanted
    return found


def read_rows(
    root: Root, datastore_id: str, increments: Collection[str], only: Collection[str]
) -> pa.Table:
    """Read some columns of some increments, each once, wherever they are.

    Args:
        root: The lake.
        datastore_id: The data store.
        increments: The paths of the increments, at least one. See `locate`.
        only: The columns.

    Raises:
        DamagedFile: One of them is not there, or cannot be read.
    """
    left, tables = set(increments), list[pa.Table]()
    for path, inside in locate(root, datastore_id, increments).items():
        if not inside & left:
            continue
        for record, batches in read_increments(root, path, only):
            if record.path in left:
                left.remove(record.path)
                tables += batches
    if left:
        raise DamagedFile(min(left))
    return pa.concat_tables(tables)


def read_footer(root: Root, path: str) -> bytes:
    """Read the record, or the records, in a file's footer as JSON."""
    with root.open(path) as file, _explained(root, path), damage.parsed(path):
        return bytes((pq.read_metadata(file).metadata or {})[FOOTER_KEY.encode()])


def read_batches(root: Root, path: str, only: Collection[str] = ()) -> Iterator[pa.Table]:
    """Yield a file's rows in batches. The first batch is empty and has the columns.

    Args:
        root: The lake.
        path: The file.
        only: Columns to read, where the increment has them; all by default.
    """
    with root.open(path) as file, _explained(root, path), pq.ParquetFile(file) as increment:
        columns = increment.schema_arrow
        names = [name for name in columns.names if not only or name in only]
        yield pa.Table.from_batches([], columns).select(names)  # `empty_table()` imports pandas
        for batch in increment.iter_batches(_BATCH_ROWS, columns=names):
            yield pa.Table.from_batches([batch])


def count_rows(root: Root, path: str, is_meant: RowFilter) -> int:
    """Count the rows of a file that a filter selects."""
    batches = read_batches(root, path, _IDENTITY_COLUMNS)
    return sum(pc.sum(is_meant(rows)).as_py() or 0 for rows in batches)


def is_damaged(root: Root, path: str) -> bool:
    """Return whether a file or its records cannot be read."""
    if damage.first_damaged(root, [path]):
        return True
    try:
        read_records(root, path)
    except DamagedFile:
        return True
    return False


def set_aside(root: Root, path: str) -> None:
    """Rename a damaged file, so that it counts as an increment no longer."""
    root.move(path, f"{path}{DAMAGED_SUFFIX}")


def paths_set_aside(root: Root, datastore_id: str) -> list[str]:
    """Return the damaged files of a data store that were set aside.

    They cannot be read, so any patient may be in them.
    """
    return root.files(f"increments/{datastore_id}", DAMAGED_SUFFIX)


def _explained(root: Root, path: str) -> AbstractContextManager[None]:
    return damage.explained(lambda: [(root, [path])])
