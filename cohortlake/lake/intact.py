"""Are the published files still as they were written?

The marker says of each file which size and which content it was written with. One listing
compares the sizes; only who asks for it has the content read. What is mended by writing it again,
and when, is decided in `lake.publish`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.lake.publication import Publication, PublishedFile
from cohortlake.lake.root import Root

_PIECE_BYTES = 1 << 20


def altered(
    root: Root, publication: Publication, sizes: Mapping[str, int], *, verify: bool = False
) -> dict[str, str]:
    """Return which published files are not as they were written, and in what.

    Args:
        root: The lake.
        publication: What the marker says.
        sizes: The size of each file there is, see `sizes`.
        verify: Whether to read the content of the files whose size is right.

    Returns:
        Path below the root -> what is wrong with the file, in words.
    """
    found = {}
    for path, written in publication.files.items():
        if path not in sizes:
            found[path] = "is not there"
        elif written.size_bytes not in (None, sizes[path]):
            found[path] = f"has {sizes[path]:,} bytes, and was written with {written.size_bytes:,}"
        elif verify and not _holds_what_was_written(root, path, written):
            found[path] = "does not hold what was written"
    return found


def sizes(root: Root) -> dict[str, int]:
    """Return the size in bytes of each Parquet file below `published/`, by path."""
    return root.sizes("published", ".parquet")


def with_sizes(
    files: Mapping[str, PublishedFile], there: Mapping[str, int]
) -> dict[str, PublishedFile]:
    """Give files of a marker without sizes the ones that they have now."""
    return {
        path: replace(file, size_bytes=there.get(path)) if file.size_bytes is None else file
        for path, file in files.items()
    }


def _holds_what_was_written(root: Root, path: str, written: PublishedFile) -> bool:
    with root.open(path) as file:
        if written.sha256:
            return _sha256(file) == written.sha256
        try:
            rows = sum(len(b) for b in pq.ParquetFile(file).iter_batches())
        except (pa.ArrowInvalid, OSError):
            return False
        return rows == written.rows


def _sha256(file: pa.NativeFile) -> str:
    found = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        found.update(piece)
    return found.hexdigest()
