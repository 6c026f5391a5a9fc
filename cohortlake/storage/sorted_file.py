"""Files of rows in the order of a key: the rows of some keys are read, and few others.

A file has sections. Each is a table with columns of its own, whose first column is an int64 key.
Its rows are in the order of the key, cut into blocks: one compressed Arrow record batch each. The
directory at the end of the file says where each block lies, between which keys, and its checksum.
An entry takes 40 bytes, whatever the number of columns. A Parquet footer takes some hundred bytes
for each column of each row group: reading it would take longer than reading the rows.

    blocks | columns of the sections, as JSON | directory | sizes and CRC-32 of both | magic bytes
"""

from __future__ import annotations

import base64
import itertools
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.errors import DamagedFile

_BLOCK_BYTES, _BLOCK_ROWS = 64 * 1024, 1000  # before compression
_CODEC, _LEVEL = "zstd", 1
_MAGIC = b"CLsorted"
_TAIL = struct.Struct(f"<QQI{len(_MAGIC)}s")
_TAIL_READ = 256 * 1024  # holds the whole directory of most files
# S3 takes some 30 ms for a request, and as long for a megabyte.
_GAP_BYTES = 256 * 1024
_REQUESTS_AT_ONCE = 16
_BLOCKS_AT_ONCE = 64
_BLOCKS_MERGED = 300  # some 30 MB
_ENTRY = np.dtype(
    {
        "names": ["first", "last", "offset", "size", "batch_size", "crc", "section"],
        "formats": ["<i8", "<i8", "<i8", "<u4", "<u4", "<u4", "<u4"],
    }
)

Section = tuple[pa.Schema, Iterable[pa.RecordBatch]]
"""The columns of a section, and its rows in the order of the first one."""


def write(stream: pa.NativeFile, sections: Mapping[str, Section]) -> None:
    """Write a file.

    Args:
        stream: Where to write.
        sections: Name -> its columns and rows. No key is null.
    """
    codec = pa.Codec(_CODEC, compression_level=_LEVEL)
    directory, offset = bytearray(), 0
    for number, (_, batches) in enumerate(sections.values()):
        for block in itertools.chain.from_iterable(map(_blocks, batches)):
            batch, keys = block.serialize(), block.column(0)
            content = codec.compress(batch, asbytes=True)
            stream.write(content)
            ends, crc = (keys[0].as_py(), keys[-1].as_py()), zlib.crc32(content)
            entry = (*ends, offset, len(content), batch.size, crc, number)
            directory += np.array(entry, _ENTRY).tobytes()
            offset += len(content)
    columns = {
        name: base64.b64encode(schema.serialize()).decode()
        for name, (schema, _) in sections.items()
    }
    header = json.dumps(columns).encode()
    stream.write(header + directory)
    crc = zlib.crc32(header + directory)
    stream.write(_TAIL.pack(len(header), len(directory), crc, _MAGIC))


def _blocks(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    count = max(1, round(batch.nbytes / _BLOCK_BYTES), round(len(batch) / _BLOCK_ROWS))
    bounds = [len(batch) * number // count for number in range(count + 1)]
    return (batch.slice(low, high - low) for low, high in itertools.pairwise(bounds) if low < high)


class SortedFile:
    """A file that `write` wrote.

    Args:
        path: Its name, for errors.
        open_file: Opens it for random reading.

    Raises:
        DamagedFile: It is damaged.
    """

    def __init__(
        self, path: str, open_file: Callable[[], AbstractContextManager[pa.NativeFile]]
    ) -> None:
        self._path, self._open = path, open_file
        header, entries = self._read_directory()
        self._sections = {
            name: _Blocks(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(columns))), own)
            for number, (name, columns) in enumerate(json.loads(header).items())
            for own in [entries[entries["section"] == number]]
        }

    def first_keys(self, section: str) -> np.ndarray:
        """Return the first key of each block of a section."""
        return self._sections[section].first

    def count_blocks(self, section: str, keys: pa.Array) -> tuple[int, int]:
        """Return how many blocks `find` reads for some sorted keys, and how many there are."""
        blocks = self._sections[section]
        return len(blocks.holding(keys.to_numpy())), len(blocks.entries)

    def find(self, section: str, keys: pa.Array) -> Iterator[pa.Table]:
        """Yield the rows of some keys.

        Args:
            section: The section.
            keys: The keys, sorted.

        Raises:
            DamagedFile: A block is damaged.
        """
        blocks = self._sections[section]
        for rows in self._read(blocks, blocks.holding(keys.to_numpy())):
            found = rows.filter(pc.is_in(rows.column(0), value_set=keys))
            if len(found):
                yield found

    def between(self, section: str, start: int | None, end: int | None) -> Iterator[pa.Table]:
        """Yield the rows whose key lies in [start, end); None is no bound.

        Raises:
            DamagedFile: A block is damaged.
        """
        blocks = self._sections[section]
        is_needed = np.ones(len(blocks.first), np.bool_)
        if start is not None:
            is_needed &= blocks.last >= start
        if end is not None:
            is_needed &= blocks.first < end
        for rows in self._read(blocks, np.flatnonzero(is_needed)):
            keys = rows.column(0).to_numpy()
            low = 0 if start is None else int(np.searchsorted(keys, start))
            high = len(keys) if end is None else int(np.searchsorted(keys, end))
            yield rows.slice(low, high - low)

    def _read_directory(self) -> tuple[bytes, np.ndarray]:
        with self._open() as file:
            size = file.size()
            tail = file.read_at(min(size, _TAIL_READ), max(0, size - _TAIL_READ))
            if len(tail) < _TAIL.size:
                raise DamagedFile(self._path)
            header, directory, crc, magic = _TAIL.unpack(tail[-_TAIL.size :])
            length = header + directory + _TAIL.size
            if magic != _MAGIC or length > size:
                raise DamagedFile(self._path)
            if length > len(tail):
                tail = file.read_at(length, size - length)
        content = tail[-length : -_TAIL.size]
        if zlib.crc32(content) != crc:
            raise DamagedFile(self._path)
        return content[:header], np.frombuffer(content[header:], _ENTRY)

    def _read(self, blocks: _Blocks, numbers: np.ndarray) -> Iterator[pa.Table]:
        """Yield the rows of some blocks, in order, not many at once."""
        with self._open() as file, ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            for start in range(0, len(numbers), _BLOCKS_AT_ONCE):
                near = blocks.near_each_other(numbers[start : start + _BLOCKS_AT_ONCE])
                read = pool.map(lambda some: self._read_range(file, blocks, some), near)
                batches = itertools.chain.from_iterable(read)
                yield pa.Table.from_batches(batches, blocks.schema).combine_chunks()

    def _read_range(
        self, file: pa.NativeFile, blocks: _Blocks, numbers: np.ndarray
    ) -> list[pa.RecordBatch]:
        """Return the rows of blocks that lie near each other."""
        entries = blocks.entries[numbers]
        start, last = int(entries["offset"][0]), entries[-1]
        content = memoryview(file.read_at(int(last["offset"] + last["size"]) - start, start))
        batches = []
        for entry in entries:
            place = int(entry["offset"]) - start
            block = content[place : place + int(entry["size"])]
            if zlib.crc32(block) != entry["crc"]:
                raise DamagedFile(self._path)
            batch = pa.decompress(block, int(entry["batch_size"]), _CODEC)
            batches.append(pa.ipc.read_record_batch(batch, blocks.schema))
        return batches


class _Blocks:
    """The columns of a section, and the entries of its blocks in the directory."""

    def __init__(self, schema: pa.Schema, entries: np.ndarray) -> None:
        self.schema, self.entries = schema, entries
        self.first, self.last = entries["first"], entries["last"]

    def holding(self, keys: np.ndarray) -> np.ndarray:
        """Return the numbers of the blocks that may hold a row of some sorted keys."""
        # The first key that is not before the block must not be after it.
        nearest = np.searchsorted(keys, self.first)
        is_inside = nearest < len(keys)
        is_inside[is_inside] = keys[nearest[is_inside]] <= self.last[is_inside]
        return np.flatnonzero(is_inside)

    def near_each_other(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Split sorted numbers of blocks where the gap between two blocks is large."""
        starts = self.entries["offset"][numbers]
        ends = starts + self.entries["size"][numbers]
        return np.split(numbers, np.flatnonzero(starts[1:] - ends[:-1] > _GAP_BYTES) + 1)


def merged(
    files: Sequence[SortedFile], section: str, start: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a section of several files in the order of the key, not many at once.

    The rows of a key are in one batch.

    Args:
        files: The files.
        section: The section, which each of them has, with the same columns.
        start: The first key; None for all rows.

    Raises:
        DamagedFile: A block is damaged.
    """
    firsts = np.sort(np.concatenate([file.first_keys(section) for file in files]))
    step = max(_BLOCKS_MERGED, 2 * len(files))
    cuts = [cut for cut in np.unique(firsts[step::step]).tolist() if start is None or cut > start]
    for low, high in itertools.pairwise([start, *cuts, None]):
        parts = [part for file in files for part in file.between(section, low, high)]
        if parts:
            rows = pa.concat_tables(parts)
            yield from rows.sort_by(rows.column_names[0]).combine_chunks().to_batches()
