"""The files of `headers/`: which headers the lake has, and writing and reading them.

A file holds the rows that one run read of one data store and study month, or those of several such
files: see `merge`. It is never changed, except when a patient is erased. Two files may hold the
same version: two runs read it at once, or maintenance merged files. Readers take any of its rows,
but one with a header before a failure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.privacy.guarded_rewrite import Unless, beside_erasures
from cohortlake.storage import damage
from cohortlake.storage.root import Root

FOLDER = "headers"
SCHEMA = schema.arrow_schema(schema.HEADER)
_VERSION = ("image_set_id", "version")
_KEY = [*_VERSION, "failure"]
_GROUP_ROWS = 1_000  # a row has kilobytes
_MERGED_FROM = "cohortlake.merged_from"


def write(
    root: Root,
    datastore_id: str,
    month: str,
    name: str,
    rows: Iterable[pa.Table],
    unless: Callable[[], bool] | None = None,
    *,
    merged_from: Sequence[str] = (),
) -> str:
    """Write a file; return its path.

    Args:
        root: The lake.
        datastore_id: The data store.
        month: The study month of the rows, or `undated`.
        name: The name of the file: the run's id and a number.
        rows: Tables with the columns of `SCHEMA`.
        unless: See `Files.draft`.
        merged_from: The names of the files whose rows these are. See `merge`.

    Raises:
        Overtaken: See `Files.draft`.
    """
    path = f"{FOLDER}/{datastore_id}/{month}/{name}.parquet"
    with root.writing(path, unless) as stream, _writer(stream) as writer:
        some, count = list[pa.Table](), 0
        for table in rows:
            some, count = [*some, table], count + len(table)
            if count >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(some), row_group_size=_GROUP_ROWS)
                some, count = [], 0
        if some:
            writer.write_table(pa.concat_tables(some), row_group_size=_GROUP_ROWS)
        if merged_from:
            writer.add_key_value_metadata({_MERGED_FROM: json.dumps(list(merged_from))})
    return path


def merged_from(root: Root, path: str) -> list[str]:
    """Return the names of the files that were merged into a file; none for other files.

    Raises:
        DamagedFile: It cannot be read.
    """
    with damage.opened(root, path) as file, damage.parsed(path):
        metadata = pq.read_metadata(file).metadata or {}
        names: list[str] = json.loads(metadata.get(_MERGED_FROM.encode(), b"[]"))
    return names


def _writer(stream: pa.NativeFile) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        stream,
        SCHEMA,
        compression="zstd",
        compression_level=3,
        use_dictionary=["datastore_id", "run_id", "failure", "not_regularly_spaced_because"],
        write_statistics=["image_set_id"],
    )


def paths(root: Root, datastore_id: str = "") -> list[str]:
    """Return the files of a data store; by default all files."""
    return root.files(f"{FOLDER}/{datastore_id}".rstrip("/"), ".parquet")


def month_of(path: str) -> str:
    """Return the study month of the rows in a file."""
    return path.split("/")[2]


def read(root: Root, path: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a file, some thousand at a time.

    Raises:
        DamagedFile: It cannot be read.
    """
    with damage.opened(root, path) as file, pq.ParquetFile(file) as stored:
        for batch in stored.iter_batches(_GROUP_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def by_month(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return study month -> those of some files that hold its rows."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(month_of(path), []).append(path)
    return found


def read_fetched(root: Root, paths: Iterable[str]) -> pa.Table:
    """Return the versions that were asked for: image_set_id, version, failure.

    Failure is null where the header was read.

    Args:
        root: The lake.
        paths: Files.
    """
    empty = pa.Table.from_batches([], pa.schema([SCHEMA.field(name) for name in _KEY]))
    return pa.concat_tables([empty, *(r for path in paths for r in read(root, path, _KEY))])


def sizes(root: Root) -> dict[str, int]:
    """Return the sizes of all files, in bytes."""
    return root.sizes(FOLDER, ".parquet")


def digests(sizes: Mapping[str, int]) -> dict[str, str]:
    """Return study month -> a hash of the names and sizes of its files, of all data stores.

    Args:
        sizes: The sizes of all files.
    """
    return {
        month: hashlib.sha256("\n".join(f"{p} {sizes[p]}" for p in paths).encode()).hexdigest()[:16]
        for month, paths in by_month(sizes).items()
    }


def read_headers(root: Root, paths: Iterable[str], wanted: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of some versions that have a header, each once, some at a time.

    Args:
        root: The lake.
        paths: The files.
        wanted: The versions: image_set_id and version.
    """
    left = set(zip(*(wanted[name].to_pylist() for name in _VERSION), strict=True))
    for path in paths:
        with damage.opened(root, path) as file, pq.ParquetFile(file) as stored:
            for number in range(stored.num_row_groups):
                keys = stored.read_row_group(number, _KEY)
                places = []
                for place, key in enumerate(zip(*keys.to_pydict().values(), strict=True)):
                    if key[-1] is None and key[:-1] in left:
                        left.remove(key[:-1])
                        places.append(place)
                if places:
                    yield stored.read_row_group(number, use_threads=False).take(places)


def remove_rows(root: Root, path: str, is_removed: Callable[[pa.Table], pa.Array]) -> int:
    """Rewrite a file without some rows. A file without any such row is left as it is.

    Args:
        root: The lake.
        path: The file.
        is_removed: Takes rows, and returns a boolean array: which of them are removed.

    Returns:
        How many rows were removed.
    """
    count = 0

    def attempt(unless: Unless) -> None:
        nonlocal count
        keys = read(root, path, ("image_set_id", "PatientID"))
        count = sum(pc.sum(is_removed(rows)).as_py() or 0 for rows in keys)
        if count:
            _, datastore_id, month, name = path.split("/")
            left = (rows.filter(pc.invert(is_removed(rows))) for rows in read(root, path))
            names = merged_from(root, path)
            stem = name.removesuffix(".parquet")
            write(root, datastore_id, month, stem, left, unless, merged_from=names)

    beside_erasures(root, attempt)
    return count
