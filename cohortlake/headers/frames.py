"""Finds the frames of image sets in the files of `headers/`, in the order that a caller wants.

An index of all wanted versions is made first, from a few small columns. Then the frames are read
some at a time, so that memory does not grow with the number of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.headers import files
from cohortlake.storage import damage
from cohortlake.storage.root import Root

Version = tuple[str, int]
"""An image set's id, and its version."""

_INSTANCES = "instances"
_MOST_VERSIONS, _MOST_FRAMES = 1_000, 50_000
"""How much is read at a time."""


class FrameIndex:
    """Where the frames of some versions stand.

    Args:
        root: The lake, with its restricted zone.
        wanted: The versions.

    Raises:
        RootNotUsable: `headers/` cannot be read.
        DamagedFile: A file of it is damaged.
    """

    def __init__(self, root: Root, wanted: Iterable[Version]) -> None:
        self._root = root
        self._places: dict[Version, tuple[str, int, int]] = {}
        versions = {*wanted}
        ids = pa.array(sorted({image_set_id for image_set_id, _ in versions}), pa.string())
        for path in files.paths(root):
            for group, keys in _keys(root, path):
                is_wanted = pc.and_(
                    pc.is_in(keys["image_set_id"], value_set=ids), pc.is_null(keys["failure"])
                )
                for place in pc.indices_nonzero(is_wanted).to_pylist():
                    version = keys["image_set_id"][place].as_py(), keys["version"][place].as_py()
                    if version in versions:
                        self._places.setdefault(version, (path, group, place))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, version: Version) -> bool:
        return version in self._places

    def read(self, wanted: Iterable[tuple[Version, int]]) -> Iterator[list[dict[str, Any]]]:
        """Yield the instances of versions, each with its frames, in the order of the versions.

        Args:
            wanted: Versions of the index, each with about how many frames it has.
        """
        for some in _in_parts(wanted):
            found = self._read_part(some)
            for version in some:
                instances, place = found[version]
                yield instances[place].as_py()

    def _read_part(self, versions: Sequence[Version]) -> dict[Version, tuple[Any, int]]:
        found: dict[Version, tuple[Any, int]] = {}
        in_files = sorted((self._places[version], version) for version in {*versions})
        for path, in_file in groupby(in_files, lambda one: one[0][0]):
            with damage.opened(self._root, path) as file, pq.ParquetFile(file) as stored:
                for group, in_group in groupby(in_file, lambda one: one[0][1]):
                    own = [(place, version) for (_, _, place), version in in_group]
                    rows = stored.read_row_group(group, [_INSTANCES])[_INSTANCES]
                    taken = rows.take([place for place, _ in own])
                    found |= {version: (taken, number) for number, (_, version) in enumerate(own)}
        return found


def _keys(root: Root, path: str) -> Iterator[tuple[int, pa.Table]]:
    with damage.opened(root, path) as file, pq.ParquetFile(file) as stored:
        for group in range(stored.num_row_groups):
            yield group, stored.read_row_group(group, ["image_set_id", "version", "failure"])


def _in_parts(wanted: Iterable[tuple[Version, int]]) -> Iterator[list[Version]]:
    part, frames = list[Version](), 0
    for version, count in wanted:
        if part and (len(part) == _MOST_VERSIONS or frames + count > _MOST_FRAMES):
            yield part
            part, frames = [], 0
        part.append(version)
        frames += count
    if part:
        yield part
