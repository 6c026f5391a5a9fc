"""What is suppressed in a table of counts stays unknown: laws over any small table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cohortlake.cohort.describe import suppress
from cohortlake.cohort.describe.suppress import Cell, hidden
from cohortlake.errors import BadCriteria

CELLS = st.integers(1, 3).flatmap(
    lambda width: st.dictionaries(
        st.tuples(*[st.sampled_from("abc")] * width), st.integers(1, 30), min_size=1
    )
)


@given(CELLS, st.integers(0, 15))
def test_no_total_gives_a_small_cell_away(cells: dict[Any, int], below: int) -> None:
    table = [Cell(key, n, n) for key, n in cells.items()]
    out = hidden(table, below)
    assert all(cell.patients >= below for i, cell in enumerate(table) if i not in out)
    width = len(table[0].key)
    for kept in (c for n in range(width) for c in combinations(range(width), n)):
        totals: dict[Any, list[int]] = {}
        for i, cell in enumerate(table):
            totals.setdefault(tuple(cell.key[c] for c in kept), []).append(i)
        for own in totals.values():
            gone = [i for i in own if i in out]
            enough = len(gone) >= 2 and sum(table[i].patients for i in gone) >= below
            assert not gone or enough or len(gone) == len(own)


PEOPLE = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc")),
    st.frozensets(st.integers(0, 12), min_size=1),
    min_size=1,
)


@given(PEOPLE, st.integers(0, 8))
def test_the_same_few_patients_in_two_cells_do_not_hide_each_other(
    people: dict[Any, frozenset[int]], below: int
) -> None:
    table = [
        Cell(key, len(own), len(own), own if len(own) < below else frozenset())
        for key, own in people.items()
    ]
    out = hidden(table, below)
    for column in (None, 0, 1):
        totals: dict[Any, list[int]] = {}
        for i, cell in enumerate(table):
            totals.setdefault(None if column is None else cell.key[column], []).append(i)
        for own in totals.values():
            gone = [i for i in own if i in out]
            behind = frozenset[int]().union(*(people[table[i].key] for i in gone))
            assert not gone or len(gone) == len(own) or len(behind) >= below


@given(CELLS)
def test_where_no_cell_is_small_none_is_hidden(cells: dict[Any, int]) -> None:
    table = [Cell(key, n, n) for key, n in cells.items()]
    assert not hidden(table, min(cells.values()))


def patients_in(cells: dict[Any, int], below: int) -> list[Cell]:
    """Cells of patients who are each in one cell only, as a query gives them."""
    return [
        Cell(key, n, n, frozenset((*key, i) for i in range(n)) if n < below else frozenset())
        for key, n in cells.items()
    ]


def shown_totals(table: list[Cell], below: int) -> list[list[int]]:
    """The cells of each count that the tables of fewer columns show."""
    width, shown = len(table[0].key), []
    for kept in (c for n in range(width) for c in combinations(range(width), n)):
        totals: dict[Any, list[int]] = {}
        for i, cell in enumerate(table):
            totals.setdefault(tuple(cell.key[c] for c in kept), []).append(i)
        coarser = {key: sum(table[i].patients for i in own) for key, own in totals.items()}
        out = hidden(patients_in(coarser, below), below)
        shown += [own for i, own in enumerate(totals.values()) if i not in out]
    return shown


def follow(totals: list[list[int]], unknown: Iterable[int], asked: list[list[int]]) -> list[Any]:
    """The sums over unknown cells that follow from totals: they do not add to their rank."""
    places = sorted(unknown)

    def rank(sums: list[list[int]]) -> int:
        matrix = [[place in sum_ for place in places] for sum_ in sums]
        return int(np.linalg.matrix_rank(np.array(matrix, dtype=float)))

    before = rank(totals) if totals else 0
    return [sum_ for sum_ in asked if rank([*totals, sum_]) == before]


def bridged() -> dict[Any, int]:
    """Two blocks of small cells and one that joins them: rows 1 and 2 less columns 1 and 2."""
    blocks = {*product("12", "12"), *product("34", "34"), ("2", "3")}
    return {key: 7 if key in blocks else 50 for key in product("1234", "1234")}


@given(CELLS, st.integers(1, 15))
@example(bridged(), 11)
def test_no_totals_together_give_a_small_cell_away(cells: dict[Any, int], below: int) -> None:
    table = patients_in(cells, below)
    out, totals = hidden(table, below), shown_totals(table, below)
    small = [[i] for i in out if table[i].patients < below]
    alone = follow(totals, range(len(table)), small)  # this table can do nothing about these
    assert [sum_ for sum_ in follow(totals, out, small) if sum_ not in alone] == []


def test_two_blocks_joined_by_a_cell_hide_another_one() -> None:
    table = patients_in(bridged(), 11)
    out = hidden(table, 11)
    assert len(out) > sum(cell.patients < 11 for cell in table)
    assert len(out) < len(table)
    assert follow(shown_totals(table, 11), out, [[i] for i in out]) == []


def test_a_table_too_large_to_look_through_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppress, "_MOST_NUMBERS", 20)
    with pytest.raises(BadCriteria, match="count by fewer columns"):
        hidden(patients_in(bridged(), 11), 11)


@pytest.mark.parametrize("length", [3, 300])
def test_along_a_path_all_follows_and_round_a_ring_nothing_does(length: int) -> None:
    def rows_and_columns(cells: list[tuple[int, int]]) -> list[frozenset[int]]:
        totals: dict[Any, set[int]] = {}
        for place, cell in enumerate(cells):
            for axis in (0, 1):
                totals.setdefault((axis, cell[axis]), set()).add(place)
        return [frozenset(total) for total in totals.values()]

    every = [frozenset((place,)) for place in range(2 * length)]
    path = [(i, i + step) for i in range(length) for step in (0, 1)]
    ring = [(row, column % length) for row, column in path]
    unknown = set(range(2 * length))
    assert suppress._determined(every, rows_and_columns(path), unknown) == every
    assert suppress._determined(every, rows_and_columns(ring), unknown) == []
