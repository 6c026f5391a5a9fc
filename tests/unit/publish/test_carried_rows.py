"""Rows that wait for their period: each is given once it is complete, and no file is left."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cohortlake.publish.carried_rows import CarriedRows
from cohortlake.publish.periods import Batch
from cohortlake.storage import engine


def _batch(periods: set[str], unfinished: set[str]) -> Batch:
    return Batch(frozenset(), frozenset(periods), frozenset(unfinished))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "it's [temporary] period=1" / "n=2"
    folder.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_rows_wait_until_their_period_is_complete(temporary: Path) -> None:
    first = "SELECT 1 AS n, '2019' AS period UNION ALL SELECT 2, '2020'"
    second = "SELECT 3 AS n, '2020' AS period UNION ALL SELECT 4, '2021'"
    with engine.connection() as con, CarriedRows(con) as carried:
        one = _batch({"2019"}, {"2020"})
        assert con.sql(carried.join("series", first, one)).order("n").fetchall() == [
            (1, "2019"), (2, "2020")
        ]  # fmt: skip
        carried.keep_unfinished("series", one)
        assert len(list(temporary.rglob("*.parquet"))) == 1
        two = _batch({"2020"}, {"2021"})
        rows = con.sql(carried.join("series", second, two)).filter("period = '2020'")
        assert rows.order("n").fetchall() == [(2, "2020"), (3, "2020")]
        carried.keep_unfinished("series", two)
        assert len(list(temporary.rglob("*.parquet"))) == 1, "the first batch is written"
        last = _batch({"2021"}, set())
        rows = con.sql(carried.join("series", "SELECT 5 AS n, '2021' AS period", last))
        assert rows.filter("period = '2021'").order("n").fetchall() == [(4, "2021"), (5, "2021")]
        carried.keep_unfinished("series", last)
        assert not list(temporary.rglob("*.parquet"))
    assert not list(temporary.iterdir())


def test_rows_that_wait_for_nothing_are_not_written(temporary: Path) -> None:
    with engine.connection() as con, CarriedRows(con) as carried:
        batch = _batch({"2019"}, set())
        assert con.sql(carried.join("series", "SELECT 1 AS n", batch)).fetchall() == [(1,)]
        carried.keep_unfinished("series", batch)
        assert not list(temporary.rglob("*.parquet"))


def test_an_error_leaves_no_file(temporary: Path) -> None:
    with (
        engine.connection() as con,
        pytest.raises(ValueError, match="stop"),
        CarriedRows(con) as carried,
    ):
        carried.join("series", "SELECT 1 AS n", _batch(set(), {"2020"}))
        assert list(temporary.rglob("*.parquet"))
        raise ValueError("stop")
    assert not list(temporary.iterdir())
