"""The files of the increments: listing, reading, and moving damaged ones aside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.errors import DamagedFile
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
    """Return the paths of all increments, sorted."""
    return root.files("increments", ".parquet")


def paths_of_datastore(root: Root, datastore_id: str) -> list[str]:
    """Return the paths of the increments of one data store, sorted."""
    return root.files(f"increments/{datastore_id}", ".parquet")


def axis_of(path: str) -> str:
    """Return the axis of the increment at a path."""
    return path.split("/")[2]


def read_record(root: Root, path: str) -> Record:
    """Read the record in an increment's footer."""
    with damage.parsed(path):
        return Record.from_footer(read_footer(root, path))


def read_footer(root: Root, path: str) -> bytes:
    """Read the record in an increment's footer as JSON."""
    with root.open(path) as file, _explained(root, path), damage.parsed(path):
        return bytes((pq.read_metadata(file).metadata or {})[FOOTER_KEY.encode()])


def read_batches(root: Root, path: str, only: Collection[str] = ()) -> Iterator[pa.Table]:
    """Yield an increment's rows in batches. The first batch is empty and has the columns.

    Args:
        root: The lake.
        path: The increment.
        only: Columns to read, where the increment has them; all by default.
    """
    with root.open(path) as file, _explained(root, path), pq.ParquetFile(file) as increment:
        columns = increment.schema_arrow
        names = [name for name in columns.names if not only or name in only]
        yield columns.empty_table().select(names)
        for batch in increment.iter_batches(_BATCH_ROWS, columns=names):
            yield pa.Table.from_batches([batch])


def count_rows(root: Root, path: str, is_meant: RowFilter) -> int:
    """Count the rows of an increment that a filter selects."""
    batches = read_batches(root, path, _IDENTITY_COLUMNS)
    return sum(pc.sum(is_meant(rows)).as_py() or 0 for rows in batches)


def image_set_ids(root: Root, path: str, is_meant: RowFilter) -> set[str]:
    """Return the ids of the image sets in the rows that a filter selects."""
    batches = read_batches(root, path, _IDENTITY_COLUMNS)
    return {
        image_set_id
        for rows in batches
        for image_set_id in rows["image_set_id"].filter(is_meant(rows)).to_pylist()
    }


def is_damaged(root: Root, path: str) -> bool:
    """Return whether an increment or its record cannot be read."""
    if damage.first_damaged(root, [path]):
        return True
    try:
        read_record(root, path)
    except DamagedFile:
        return True
    return False


def set_aside(root: Root, path: str) -> None:
    """Rename a damaged increment, so that it counts as an increment no longer."""
    root.move(path, f"{path}{DAMAGED_SUFFIX}")


def paths_set_aside(root: Root, datastore_id: str) -> list[str]:
    """Return the damaged files of a data store that were set aside.

    They cannot be read, so any patient may be in them.
    """
    return root.files(f"increments/{datastore_id}", DAMAGED_SUFFIX)


def _explained(root: Root, path: str) -> AbstractContextManager[None]:
    return damage.explained(lambda: [(root, [path])])
