"""What the store's own statements cost: none may walk a whole data store."""

import sqlite3
from contextlib import closing

import pytest

from emulator import Options
from emulator.data.records import deletion, next_version
from emulator.world import build


@pytest.fixture
def world():
    world = build(Options(synthetic=50, seed=1, now="2024-06-03T09:00:00Z", clock="stopped"))
    yield world
    world.close()


def test_every_statement_seeks(world):
    store = world.store
    [datastore] = store.datastores()
    statements = []
    store._db.set_trace_callback(statements.append)
    record = store.pick(datastore, 0.5)
    store.versions(datastore, record.image_set_id)
    store.of_study(datastore, record.study_uid)
    store.has_primary(datastore, record.series_uid)
    store.truth(datastore, "5", 10)
    store.newest_ms()
    store.document(record)
    store.frame(record, "f" * 32)
    store.frames(record)
    store.replace(record)
    store.put([next_version(record, {}, 0)], 1, 0)
    store.put([deletion(store.current(datastore, record.image_set_id), 2)], 2, 5)
    store.settle(10)
    store._db.set_trace_callback(None)

    seen = [one for one in statements if one.startswith(("SELECT", "UPDATE"))]
    assert len(seen) > 15
    for statement in seen:
        for *_, step in store.query(f"EXPLAIN QUERY PLAN {statement}", []):
            whole = step.endswith("(datastore=?)") and "by_updated" not in step
            assert not whole, statement
            assert step not in ("SCAN image_sets", "SCAN documents", "SCAN frames"), statement


def test_a_nested_transaction_is_part_of_the_outer_one(world):
    store = world.store
    before = store.row_count()
    [datastore] = store.datastores()
    record = store.pick(datastore, 0)
    with pytest.raises(KeyError), store.transaction():
        store.put([next_version(record, {}, 0)], 1, 0)
        raise KeyError
    assert store.row_count() == before
    assert store.current(datastore, record.image_set_id) == record


def test_a_random_pick_falls_back_to_the_first(world):
    store = world.store
    [datastore] = store.datastores()
    assert store.pick(datastore, 1.0) is not None
    assert store.pick(datastore._replace(number=99), 0.5) is None


def test_documents_of_an_earlier_release_are_still_read(tmp_path):
    path = tmp_path / "state.db"
    build(Options(db=path, synthetic=1, now="2024-06-03T09:00:00Z")).close()
    with closing(sqlite3.connect(path)) as older:
        older.executescript(
            "DROP TABLE documents; DROP TABLE frames;"
            "CREATE TABLE documents (datastore INTEGER, image_set_id TEXT, document BLOB,"
            " PRIMARY KEY (datastore, image_set_id));"
            "INSERT INTO documents SELECT datastore, image_set_id, 'text' FROM image_sets;"
        )
    for _ in range(2):
        world = build(Options(db=path))
        try:
            [record] = world.store.truth(world.store.datastores()[0])
            assert world.store.document(record) == "text"
            assert world.store.frame(record, "a") is None
        finally:
            world.close()
