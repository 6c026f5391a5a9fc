"""What an error of a library means for the lake: a damaged file, or no answer from S3.

DuckDB, Arrow and deltalake read the same files, and each raises errors of its own. Some name no
file, some hold the answer of S3, and some hold the value of a tag. Only this module reads their
text. It passes none of it on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.errors import CohortlakeError, DamagedFile
from cohortlake.storage.root import Root

Reads = Callable[[], Sequence[tuple[Root, Sequence[str]]]]
"""Gives the files that are read, as pairs of a root and paths below it."""

# For damaged Parquet, DuckDB raises its base class, without the name of the file.
_OF_FILES = (duckdb.IOException, duckdb.HTTPException, duckdb.SerializationException)
_READS_FILES = re.compile(
    r"parquet|failed to read file|magic bytes|decompress|thrift", re.IGNORECASE
)


@contextmanager
def explained(reads: Reads) -> Iterator[None]:
    """Turn errors of the files inside a block that reads Parquet into ours; leave all others.

    Args:
        reads: Gives the files. Called only if there is an error.

    Raises:
        DamagedFile: One of the files is damaged or missing.
        RootUnreachable: S3 gave no answer.
        RootNotUsable: S3, or the disk, refused.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        found = (_explanation(root, paths, error) for root, paths in reads())
        explanation = next(filter(None, found), None)
        if explanation is None:
            raise
        error.args = ()  # it stays the `__context__` of ours, which a report may show
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
    """Read Parquet files, and return the first one that is damaged or missing.

    Raises:
        RootNotUsable: They cannot be read.
    """
    return next((path for path in paths if _is_damaged(root, path)), None)


def _explanation(
    root: Root, paths: Sequence[str], error: duckdb.Error | pa.ArrowException | OSError
) -> CohortlakeError | None:
    text = str(error)
    if not paths:
        return None
    location = root.location_of(paths[0])
    if answer := location.answer_in(text):
        return answer
    named = [path for path in paths if location.path(path) in text]
    if not named and not _is_of_a_file(error, text):
        return None
    # `StorageLocation.explained` handles errors of the operating system, except a missing file.
    damaged = first_damaged(root, named or paths)
    return DamagedFile(damaged) if damaged else None


def _is_of_a_file(error: Exception, text: str) -> bool:
    if not isinstance(error, duckdb.Error):
        return True
    return isinstance(error, _OF_FILES) or (
        (type(error) is duckdb.Error or isinstance(error, duckdb.InvalidInputException))
        and (type(error) is duckdb.Error or _READS_FILES.search(text) is not None)
    )


def _is_damaged(root: Root, path: str) -> bool:
    if not root.exists(path):
        return True
    location = root.location_of(path)
    with location.explained():
        stream = location.filesystem.open_input_file(location.path(path))
    answer: CohortlakeError | None = None
    with stream:
        try:
            for _ in pq.ParquetFile(stream).iter_batches():
                pass
        except (pa.ArrowException, OSError) as error:
            answer = location.answer_in(str(error))
        else:
            return False
    if answer:
        raise answer
    return True
