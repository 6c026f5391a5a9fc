"""Which states the history holds as current, asked again and again as a search goes on.

A search brings states in the order of its axis. The keys of the current states around them are read
in blocks, and few blocks are kept: eight bytes each state. A block has so few rows that any lake
needs the same memory. Files and row groups that a block does not touch are not opened.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa

from cohortlake.history.current_states import CurrentStates, Interval, microseconds
from cohortlake.storage.delta_log import FileRange
from cohortlake.storage.root import Root

_BLOCK_ROWS = 500_000
_BLOCKS = 32  # as many places as a search reads at once, and some more
_DAY_MICROSECONDS = 86_400_000_000
_NONE = pa.chunked_array([], pa.int64())


class KnownStates:
    """The current states, by a column that does not differ between states with the same key.

    Args:
        root: The lake. The newest version of the history at the first question counts.
        column: The column in whose order the states come: an instant, or StudyDate.
        start: The least value that is searched.
        end: The first value after it. Other values may be asked for too.
    """

    def __init__(self, root: Root, column: str, start: datetime, end: datetime) -> None:
        self._root = root
        self._column = column
        # Of the blocks. The first and the last block have one bound only.
        self._bounds = [microseconds(start), microseconds(end)]
        self._blocks: OrderedDict[Interval | None, np.ndarray] = OrderedDict()

    def lacks(self, states: pa.Table) -> np.ndarray:
        """Return which of some states are not current.

        Args:
            states: Their `state_key`, and the column.
        """
        keys = states["state_key"].to_numpy()
        unknown = np.ones(len(keys), np.bool_)
        if not len(keys) or not self._files:
            return unknown
        values = states[self._column]
        is_null = values.is_null().to_numpy()
        places = values.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0).to_numpy()
        if is_null.any():
            unknown[is_null] = _lacks(self._without_value(), keys[is_null])
        left = np.flatnonzero(~is_null)
        while len(left):
            block, known = self._block_of(int(places[left[0]]))
            is_inside = _are_inside(block, places[left])
            inside, left = left[is_inside], left[~is_inside]
            unknown[inside] = _lacks(known, keys[inside])
        return unknown

    @cached_property
    def _current(self) -> CurrentStates:
        return CurrentStates(self._root)

    @cached_property
    def _files(self) -> Sequence[FileRange]:
        return self._current.files(self._column)

    def _without_value(self) -> np.ndarray:
        paths = [file.path for file in self._files if file.nulls != 0]
        return self._keys(None, f"{self._column} IS NULL", paths)

    def _block_of(self, value: int) -> tuple[Interval, np.ndarray]:
        """Return the block that a value lies in, and its keys. A block that is too large is cut."""
        while True:
            block = self._interval_of(value)
            files = [file for file in self._files if block.overlaps(file)]
            if block in self._blocks or not self._is_too_large(block, files):
                return block, self._keys(block, block.sql, [file.path for file in files])
            middle = self._middle(block, files)
            if middle is None:
                return block, self._keys(block, block.sql, [file.path for file in files])
            bisect.insort(self._bounds, middle)

    def _interval_of(self, value: int) -> Interval:
        place = bisect.bisect_right(self._bounds, value)
        start = self._bounds[place - 1] if place else None
        end = self._bounds[place] if place < len(self._bounds) else None
        return Interval(self._column, start, end)

    def _is_too_large(self, block: Interval, files: Sequence[FileRange]) -> bool:
        if sum(file.rows for file in files) <= _BLOCK_ROWS:
            return False
        if sum(file.rows for file in files if block.contains(file)) > _BLOCK_ROWS:
            return True
        paths = [file.path for file in files]
        return self._current.count_versions(block.sql, paths) > _BLOCK_ROWS

    def _middle(self, block: Interval, files: Sequence[FileRange]) -> int | None:
        """Return where to cut a block, or None if it cannot be cut."""
        lows = [file.low for file in files if file.low is not None]
        highs = [file.high for file in files if file.high is not None]
        if not lows or not highs:
            return None
        start = max(min(lows), block.start if block.start is not None else min(lows))
        end = min(max(highs), block.end if block.end is not None else max(highs))
        middle = (start + end) // 2
        if self._column == "StudyDate":
            middle -= middle % _DAY_MICROSECONDS
        return middle if start < middle < end else None

    def _keys(self, block: Interval | None, where: str, paths: Sequence[str]) -> np.ndarray:
        """Return the sorted keys of a block, and keep them; forget the block not used longest."""
        if block not in self._blocks:
            found = self._current.read("state_key", where, paths)["state_key"] if paths else _NONE
            self._blocks[block] = np.sort(found.to_numpy())
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]


def _are_inside(block: Interval, places: np.ndarray) -> np.ndarray:
    inside = np.ones(len(places), np.bool_)
    if block.start is not None:
        inside &= places >= block.start
    if block.end is not None:
        inside &= places < block.end
    return inside


def _lacks(known: np.ndarray, keys: np.ndarray) -> np.ndarray:
    if not len(known):
        return np.ones(len(keys), np.bool_)
    unknown: np.ndarray = known.take(np.searchsorted(known, keys), mode="clip") != keys
    return unknown
