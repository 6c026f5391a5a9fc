"""What the history holds as current, asked part by part: the same answer, and few files opened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from looks import DATASTORE, Looked, write

from cohortlake import schema
from cohortlake.healthimaging import EPOCH, Datastore
from cohortlake.history import coverage, image_sets, known_states, views
from cohortlake.history.current_states import CurrentStates, Interval
from cohortlake.history.known_states import KnownStates
from cohortlake.ingest import held_index, partitions
from cohortlake.ingest.headers import choice
from cohortlake.ingest.headers.choice import HeaderChoice
from cohortlake.ingest.held_index import HeldIndex
from cohortlake.storage import engine
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 4
COLUMNS = ("updated_at", "created_at", "StudyDate")


def _summary(number: int, day: int, **tags: str) -> dict[str, Any]:
    at = START + timedelta(days=day, minutes=number)
    return {
        "imageSetId": f"{number:032x}",
        "version": day + 1,
        "createdAt": START - timedelta(days=30 * number),
        "updatedAt": at,
        "DICOMTags": {"DICOMStudyDate": f"2025{number % 12 + 1:02d}15", **tags},
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake of four days, a commit each: updates, deletions, moves, and states without values."""
    root = Root(str(tmp_path_factory.mktemp("known")))
    for day in range(DAYS):
        found = [_summary(n, day) for n in range(24) if n % DAYS == day or n % 7 == day]
        found.append(_summary(30 + day, day, DICOMStudyDate="not a date"))
        found.append(_summary(40 + day, day, DICOMStudyDate=f"20260{day + 1}01"))
        found.append({"imageSetId": f"{50 + day:032x}", "version": 1, "DICOMTags": {}})
        gone = [f"{day - 1:032x}", f"{50 + day - 1:032x}"] if day else []
        look = Looked(START + timedelta(days=day + 1), found, gone)
        paths = write(root, [look])
        image_sets.apply(root, paths)
        coverage.record(root, paths)
    return root


def _rows(root: Root, relation: str) -> pa.Table:
    with engine.connection() as con:
        image_sets.register(con, root)
        return con.sql(f"FROM {relation}").to_arrow_table()


@settings(max_examples=examples(60, quick=4), deadline=None)
@given(data=st.data())
def test_the_answer_is_that_of_all_current_keys(lake: Root, data: st.DataObject) -> None:
    current = set(_rows(lake, "current")["state_key"].to_pylist())
    versions = _rows(lake, "versions")
    column = data.draw(st.sampled_from(COLUMNS))
    first = START + timedelta(days=data.draw(st.integers(-800, DAYS)))
    last = first + timedelta(days=data.draw(st.integers(1, 900)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_states, "_BLOCK_ROWS", data.draw(st.sampled_from([3, 10, 1000])))
        patch.setattr(known_states, "_BLOCKS", 3)
        known = KnownStates(lake, column, first, last)
        for _ in range(data.draw(st.integers(1, 3))):
            picked = data.draw(st.lists(st.integers(0, len(versions) - 1), max_size=9))
            asked = versions.take(pa.array(picked, pa.int64()))
            other = data.draw(st.lists(st.booleans(), min_size=len(asked), max_size=len(asked)))
            keys = [k + o for k, o in zip(asked["state_key"].to_pylist(), other, strict=True)]
            place = asked.column_names.index("state_key")
            asked = asked.set_column(place, "state_key", pa.array(keys, pa.int64()))
            assert known.lacks(asked).tolist() == [key not in current for key in keys]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of version rows that are given to DuckDB."""
    paths: list[str] = []
    create: Callable[..., Any] = views.create

    def spy(con: Any, root: Root, files: list[str]) -> Any:
        paths.extend(path for path in files if "row_kind=version" in path)
        return create(con, root, files)

    monkeypatch.setattr(views, "create", spy)
    return paths


def _states(column: str, *values: object) -> pa.Table:
    types = {"StudyDate": pa.date32()}
    return pa.table({
        "state_key": pa.array(range(len(values)), pa.int64()),
        column: pa.array(values, types.get(column, schema.INSTANT)),
    })  # fmt: skip


def test_only_files_with_such_states_are_opened(lake: Root, opened: list[str]) -> None:
    assert len(CurrentStates(lake).files("updated_at")) == DAYS
    last = START + timedelta(days=DAYS - 1)
    known = KnownStates(lake, "updated_at", last, last + timedelta(days=1))
    asked = _states("updated_at", last + timedelta(minutes=3))
    known.lacks(asked)
    known.lacks(asked)
    assert len(opened) == 1, "the last day's file, once"
    known.lacks(_states("updated_at", last + timedelta(days=2), EPOCH))
    assert len(opened) == 1 + (DAYS - 1), "earlier instants; there is nothing later"
    opened.clear()
    known = KnownStates(
        lake, "StudyDate", datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    )
    known.lacks(_states("StudyDate", date(2026, 2, 1)))
    assert (
        len(opened)
        == sum(
            Interval.between(
                "StudyDate", datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
            ).overlaps(f)
            for f in CurrentStates(lake).files("StudyDate")
        )
        < DAYS
    )


def test_a_search_without_rows_opens_nothing(lake: Root, opened: list[str]) -> None:
    known = KnownStates(lake, "updated_at", START, START + timedelta(days=9))
    assert known.lacks(_states("updated_at")).tolist() == []
    assert opened == []


def test_a_lake_without_history_knows_nothing(tmp_path: Path) -> None:
    known = KnownStates(Root(str(tmp_path)), "updated_at", START, START + timedelta(days=9))
    assert known.lacks(_states("updated_at", START, None)).all()


def test_few_keys_are_kept(lake: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_states, "_BLOCK_ROWS", 8)
    monkeypatch.setattr(known_states, "_BLOCKS", 3)
    known = KnownStates(lake, "updated_at", START, START + timedelta(days=9))
    instants = [at for at in _rows(lake, "versions")["updated_at"].to_pylist() if at]
    known.lacks(_states("updated_at", *instants))
    assert len(known._blocks) == 3
    assert max(map(len, known._blocks.values())) <= 8


def test_the_bounds_of_a_file_are_those_of_its_rows(lake: Root) -> None:
    for column in COLUMNS:
        for file in CurrentStates(lake).files(column):
            with engine.connection() as con:
                views.create(con, lake, [file.path])
                rows = con.sql(f"SELECT {column} FROM versions").to_arrow_table()[column]
            values = rows.cast(pa.timestamp("us")).cast(pa.int64())
            assert (file.rows, file.nulls) == (len(values), values.null_count)
            assert file.low is not None and file.high is not None
            bounds = np.array(values.drop_null().to_pylist())
            assert file.low <= bounds.min() and bounds.max() <= file.high < bounds.max() + 1000


def _held_by_view(root: Root, store: Datastore) -> dict[str, list[str]]:
    with engine.connection() as con:
        image_sets.register(con, root)
        rows = con.sql(f"""
            SELECT {partitions.partition_sql(store)} AS "partition", image_set_id FROM current
            WHERE observed_at < TIMESTAMPTZ '{store.now.isoformat()}' ORDER BY ALL
        """).fetchall()
    held: dict[str, list[str]] = {}
    for partition, image_set_id in rows:
        held.setdefault(partition, []).append(image_set_id)
    return held


@pytest.mark.parametrize("group_rows", [4, 1000])
def test_each_partition_holds_what_the_whole_table_says(
    lake: Root, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_index, "_GROUP_ROWS", group_rows)
    for days in (DAYS - 1, DAYS + 1):
        store = Datastore(DATASTORE, START, START + timedelta(days=days, minutes=1))
        expected = _held_by_view(lake, store)
        wanted = partitions.all_partitions(store)
        held = HeldIndex(lake, store, wanted)
        found = {key: sorted(held.in_partition(key)["image_set_id"].to_pylist()) for key in wanted}
        assert {key: ids for key, ids in found.items() if ids} == expected
        everything = held.of_image_sets({i for ids in expected.values() for i in ids} | {"f" * 32})
        earlier = everything.filter(everything["is_earlier"])
        assert set(earlier["image_set_id"].to_pylist()) == {i for v in expected.values() for i in v}


def test_single_image_sets_are_read_from_the_files_of_their_months(
    lake: Root, opened: list[str]
) -> None:
    store = Datastore(DATASTORE, START, START + timedelta(days=365))
    held = HeldIndex(lake, store)
    rows = held.of_image_sets([f"{40 + 3:032x}"])
    assert rows["image_set_id"].to_pylist() == [f"{40 + 3:032x}"]
    assert len(opened) == DAYS + 1, "the keys of all files, and the other columns of one"
    assert len(held.of_image_sets([f"{99:032x}"])) == len(held.of_image_sets([])) == 0


def test_a_study_in_the_last_month_of_all_is_held(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    last = _summary(1, 0, DICOMStudyDate="99991231")
    image_sets.apply(root, write(root, [Looked(START + timedelta(days=1), [last], [])]))
    store = Datastore(DATASTORE, START, START + timedelta(days=365))
    rows = HeldIndex(root, store).of_image_sets([last["imageSetId"]])
    assert rows["partition"].to_pylist() == [schema.UNDATED]
    assert choice.estimate(root, [DATASTORE], HeaderChoice(), tps=50).requests == 1


def test_a_month_opens_the_files_that_have_it(lake: Root, opened: list[str]) -> None:
    store = Datastore(DATASTORE, START, START + timedelta(days=365))
    held = HeldIndex(lake, store, ["2026-04"])
    assert opened == [], "one partition needs no counts"
    rows = held.in_partition("2026-04")
    assert rows["image_set_id"].to_pylist() == [f"{40 + 3:032x}"]
    assert len(opened) == 1
