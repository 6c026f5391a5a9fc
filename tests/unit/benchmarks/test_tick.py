"""A kept lake: a later run goes on after the last search."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from benchmarks import tick
from benchmarks.publish import NOW
from cohortlake.history import coverage, image_sets
from cohortlake.increments import writer
from cohortlake.storage import engine
from cohortlake.storage.root import Root


def test_a_later_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    tick.make_lake(root, 300, 2)
    first = tick._searched_until(root)
    assert first > NOW
    searched = tick._record(first, first + timedelta(hours=2), "1")
    writer.write_empty(root, searched)
    coverage.record(root, [searched.path])
    assert tick._searched_until(root) >= first + timedelta(hours=2)


def test_the_cases_of_two_runs_change_other_image_sets(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    tick.make_lake(root, 3000, 0)
    drawn = []
    with engine.connection() as con:
        image_sets.register(con, root)
        for seed in (1, 2):
            recent = next(case for case in tick.cases(3000, seed) if case.key == "all")
            drawn.append(con.sql(f"SELECT image_set_id FROM ({recent.changed})").fetchall())
    assert drawn[0] != drawn[1]
    assert len({case.key for case in tick.cases(1, 0)}) == len(tick.cases(1, 0))
