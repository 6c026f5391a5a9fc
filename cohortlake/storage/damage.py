"""What an error of a library means for the lake: a damaged file, or S3 that gave no answer.

DuckDB, Arrow and deltalake read the same files, and each fails in its own way. Some errors name no
file, some name S3's answer, and some hold the value of a tag. This is the one place that knows them
all. No text of theirs is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.errors import CohortlakeError, DamagedFile
from cohortlake.storage.location import StorageLocation
from cohortlake.storage.root import Root

Reads = Callable[[], Sequence[tuple[Root, Sequence[str]]]]
"""Which files are read: pairs of a root, and paths below it."""

# DuckDB raises its base class for what its Parquet reader meets, without the name of the file.
_OF_FILES = (duckdb.IOException, duckdb.HTTPException, duckdb.SerializationException)
_READS_FILES = re.compile(
    r"parquet|failed to read file|magic bytes|decompress|thrift", re.IGNORECASE
)


@contextmanager
def explained(reads: Reads) -> Iterator[None]:
    """Explain what a library raises inside a block that reads Parquet files.

    What does not come from the files is left as it is.

    Args:
        reads: Asked for the files only if there is something to explain.

    Raises:
        DamagedFile: One of the files is damaged or gone.
        RootUnreachable: S3 gave no answer.
        RootNotUsable: S3, or the disk, refused.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        told = (_explanation(root, paths, error) for root, paths in reads())
        explanation = next(filter(None, told), None)
        if explanation is None:
            raise
        error.args = ()  # it stays the context of ours, and whatever reports errors may show that
        raise explanation from None


@contextmanager
def opened(root: Root, path: str) -> Iterator[pa.NativeFile]:
    """Give a Parquet file for reading, as long as the block lasts; see `explained`."""
    with root.open(path) as file, explained(lambda: [(root, [path])]):
        yield file


@contextmanager
def parsed(path: str) -> Iterator[None]:
    """Turn what parsing a small file raises inside the block into DamagedFile.

    Args:
        path: The file, below the root.
    """
    try:
        yield
    except (ValueError, LookupError) as error:
        error.args = ()
        raise DamagedFile(path) from None


def first_damaged(root: Root, paths: Sequence[str]) -> str | None:
    """Return the first of some Parquet files that is damaged or gone; this reads them.

    Raises:
        RootNotUsable: They cannot be read.
    """
    return next((path for path in paths if _is_damaged(root.location_of(path), path)), None)


def _explanation(
    root: Root, paths: Sequence[str], error: duckdb.Error | pa.ArrowException | OSError
) -> CohortlakeError | None:
    text = str(error)
    if not paths:
        return None
    place = root.location_of(paths[0])
    if told := place.told(text):
        return told
    named = [path for path in paths if place.path(path) in text]
    if not named and not _is_of_a_file(error, text):
        return None
    # The operating system's errors are those of `StorageLocation`, but that a file is gone.
    damaged = first_damaged(root, named or paths)
    return DamagedFile(damaged) if damaged else None


def _is_of_a_file(error: Exception, text: str) -> bool:
    if not isinstance(error, duckdb.Error):
        return True
    return isinstance(error, _OF_FILES) or (
        (type(error) is duckdb.Error or isinstance(error, duckdb.InvalidInputException))
        and (type(error) is duckdb.Error or _READS_FILES.search(text) is not None)
    )


def _is_damaged(place: StorageLocation, path: str) -> bool:
    if not place.exists(path):
        return True
    with place.explained():
        stream = place.filesystem.open_input_file(place.path(path))
    told: CohortlakeError | None = None
    with stream:
        try:
            for _ in pq.ParquetFile(stream).iter_batches():
                pass
        except (pa.ArrowException, OSError) as error:
            told = place.told(str(error))
        else:
            return False
    if told:
        raise told
    return True
