"""Which cells of a table of counts to hide, so that small ones stay unknown.

A cell of few patients may reveal who they are. To hide it alone does not help if the total of its
row or column is known, and several totals together may reveal what none of them does alone. This
module has the rule for that. It reads nothing: callers count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import isclose

import numpy as np

from cohortlake.errors import BadCriteria

_MOST_NUMBERS = 10_000_000
"""The most numbers in a matrix of totals and hidden cells. To solve it takes a few seconds."""

_TINY, _CLOSE = 1e-11, 1e-5


@dataclass(frozen=True)
class Cell:
    """A cell of a table of counts.

    Attributes:
        key: The values of the columns that it counts.
        patients: How many patients it counts. It is small if they are few.
        members: How many members it counts.
        few: The patients, if they are fewer than may be shown: one patient may be in several cells.
            None if no patient is in several cells.
    """

    key: tuple[object, ...]
    patients: int
    members: int
    few: frozenset[object] | None = None


@dataclass(frozen=True)
class _Total:
    """A sum over some cells of a table: a cell of the table over fewer columns.

    Attributes:
        cells: Their positions.
        is_shown: Whether that table shows it.
        is_few: Whether it counts few patients.
    """

    cells: frozenset[int]
    is_shown: bool
    is_few: bool


def hidden(cells: Sequence[Cell], below: int) -> set[int]:
    """Return which cells to hide.

    Args:
        cells: All cells of a table that are not empty; their keys are as long as each other.
        below: The least number of patients that may be shown.

    Returns:
        The positions of the cells that hold fewer, and of others from which they could be computed.
        Each total over some of the columns hides no cell, or at least two of `below` patients
        together, or all of its cells. No cell or total of few patients can be computed from the
        shown cells and the totals of tables over fewer columns, unless those totals alone reveal
        it: this table cannot hide that.

    Raises:
        BadCriteria: There are too many cells and totals to check what can be computed from them.
    """
    if all(cell.patients >= below for cell in cells):
        return set()
    width, out = len(cells[0].key), set[int]()
    known: dict[tuple[int, ...], dict[object, tuple[bool, bool]]] = {}
    for columns in _choices(tuple(range(width))):
        is_whole = len(columns) == width
        table = cells if is_whole else _coarser(cells, columns)
        totals = [
            _Total(frozenset(own), *known[kept][key])
            for kept in _choices(columns)[:-1]
            for key, own in _by(table, [columns.index(c) for c in kept]).items()
        ]
        out = _hidden(table, totals, below)
        known[columns] = {
            cell.key: (i not in out, cell.patients < below) for i, cell in enumerate(table)
        }
    return out


def _hidden(cells: Sequence[Cell], totals: Sequence[_Total], below: int) -> set[int]:
    small = {i for i, cell in enumerate(cells) if cell.patients < below}
    out = _with_enough(cells, totals, small, below)
    shown = [total.cells for total in totals if total.is_shown]
    asked = [frozenset((i,)) for i in sorted(small)] + [t.cells for t in totals if t.is_few]
    known_sums = _determined(asked, shown, out)
    alone = _determined(known_sums, shown, set(range(len(cells))))
    known_sums = [sum_ for sum_ in known_sums if sum_ not in alone]
    while known_sums:
        out |= {_smallest(cells, _beside(totals, sum_, out)) for sum_ in known_sums}
        out = _with_enough(cells, totals, out, below)
        # The more is hidden, the less can be computed.
        known_sums = _determined(known_sums, shown, out)
    return out


def _with_enough(
    cells: Sequence[Cell], totals: Sequence[_Total], out: set[int], below: int
) -> set[int]:
    """Return the hidden cells, with more of them in each total that hides too few."""
    while True:
        more = set[int]()
        for total in totals:
            gone, shown = total.cells & out, total.cells - out
            if gone and shown and (len(gone) < 2 or _together([cells[i] for i in gone]) < below):
                more.add(_smallest(cells, shown))
        if not more:
            return out
        out = out | more


def _determined(
    sums: Sequence[frozenset[int]], shown: Iterable[frozenset[int]], out: set[int]
) -> list[frozenset[int]]:
    """Return the sums over cells that can be computed from the sums that are shown.

    A sum can be computed if its vector over the hidden cells lies in the span of the vectors of the
    shown sums, that is, if its projection on them is as long as the vector.
    """
    unknown = {cell: place for place, cell in enumerate(sorted(out))}
    known = {total & out for total in shown} - {frozenset()}
    if not known or not sums:
        return []
    if len(known) * len(unknown) > _MOST_NUMBERS:
        raise BadCriteria(
            "there are too many small cells to check what could be computed from their totals; "
            "count by fewer columns, or by columns with fewer values"
        )
    rows = np.zeros((len(known), len(unknown)))
    for row, total in zip(rows, known, strict=True):
        row[[unknown[cell] for cell in total]] = 1
    both = np.column_stack([rows[:, [unknown[c] for c in sum_]].sum(axis=1) for sum_ in sums])
    square = rows @ rows.T + _TINY * np.eye(len(rows))  # else it may have no inverse
    lengths = (both * np.linalg.solve(square, both)).sum(axis=0)
    return [
        sum_
        for sum_, length in zip(sums, lengths, strict=True)
        if isclose(length, len(sum_), abs_tol=_CLOSE)
    ]


def _beside(totals: Sequence[_Total], sum_: frozenset[int], out: set[int]) -> frozenset[int]:
    """Return the cells still shown of the first total that shares some; the last is of all cells.

    Totals come with those over the most columns last: they are the smallest.
    """
    return next(
        total.cells - out for total in reversed(totals) if total.cells & sum_ and total.cells - out
    )


def _smallest(cells: Sequence[Cell], positions: Iterable[int]) -> int:
    return min(positions, key=lambda i: (cells[i].members, cells[i].key))


def _together(cells: Sequence[Cell]) -> int:
    """Return how many patients some cells count, or how many are known to be different."""
    if all(cell.few is None for cell in cells):
        return sum(cell.patients for cell in cells)
    known = frozenset[object]().union(*(cell.few or () for cell in cells))
    return max(len(known), *(cell.patients for cell in cells))


def _coarser(cells: Sequence[Cell], columns: Sequence[int]) -> list[Cell]:
    """Return the cells of the table over some of the columns."""
    coarser = []
    for key, positions in _by(cells, columns).items():
        own = [cells[i] for i in positions]
        few = None
        if any(cell.few is not None for cell in own):
            few = frozenset[object]().union(*(cell.few or () for cell in own))
        coarser.append(Cell(key, _together(own), sum(cell.members for cell in own), few))
    return coarser


def _by(cells: Sequence[Cell], columns: Sequence[int]) -> dict[tuple[object, ...], list[int]]:
    """Return the positions of cells, grouped by some columns of their keys."""
    positions = defaultdict(list)
    for i, cell in enumerate(cells):
        positions[tuple(cell.key[c] for c in columns)].append(i)
    return positions


def _choices(columns: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all choices of some columns: the fewest first, all of them last."""
    return list(chain.from_iterable(combinations(columns, n) for n in range(len(columns) + 1)))
