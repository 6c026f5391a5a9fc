"""Laws of the memory: idempotent, independent of order, and the same when rebuilt.

A small data store lives for a while and is looked at now and then, by searches that see
what is there and by sweeps that confirm what is gone. Whatever the order in which what
they saw is applied, the lake knows the same, and knows what really happened.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cohortlake import schema
from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import EPOCH
from cohortlake.lake import engine, image_sets, increments
from cohortlake.lake.increments import Record
from cohortlake.lake.root import Root

DATASTORE = "d" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [character * 32 for character in "abc"]


@dataclass
class Looked:
    """What one look at the data store saw."""

    at: datetime
    found: list[dict[str, Any]]
    gone: list[str]


def _summary(image_set_id: str, version: int, at: datetime, sex: str) -> dict[str, Any]:
    return {
        "imageSetId": image_set_id,
        "version": version,
        "createdAt": START,
        "updatedAt": at,
        "DICOMTags": {"DICOMPatientSex": sex, "DICOMStudyDate": f"2025{version % 12 + 1:02d}01"},
    }


EVENTS = st.lists(
    st.tuples(st.sampled_from(["update", "delete", "look"]), st.sampled_from(IDS)), max_size=14
)


def _live(events: list[tuple[str, str]]) -> tuple[list[Looked], dict[str, dict[str, Any]]]:
    """Play events, one a minute; return what the looks saw, and what is there at the end."""
    there: dict[str, dict[str, Any]] = {}
    deleted: set[str] = set()
    known: set[str] = set()
    looks = []
    for minute, (event, image_set_id) in enumerate([*events, ("look", "")]):
        now = START + timedelta(minutes=minute)
        if event == "update" and image_set_id not in deleted:
            version = there.get(image_set_id, {"version": 0})["version"] + 1
            there[image_set_id] = _summary(image_set_id, version, now, "MFO"[version % 3])
        elif event == "delete" and there.pop(image_set_id, None):
            deleted.add(image_set_id)
        elif event == "look":
            gone = sorted(known - set(there))
            looks.append(Looked(now + timedelta(seconds=30), list(there.values()), gone))
            known = set(there)
    return looks, there


def _write(root: Root, looks: list[Looked]) -> list[str]:
    paths = []
    for look in looks:
        run_id = f"run-{look.at:%H%M%S}"
        record = Record(DATASTORE, "updated_at", "2026-01-01", EPOCH, look.at, look.at, run_id)
        states = flatten_summaries(look.found, DATASTORE)
        states = states.append_column("page", pa.array([0] * len(states), pa.int32()))
        increments.write_table(root, record, increments.with_run(states, record))
        paths.append(record.path)
        if look.gone:
            absence = replace(record, axis=increments.ABSENCE_AXIS)
            rows = [
                {"datastore_id": DATASTORE, "image_set_id": gone, "confirmed_by": "GetImageSet"}
                for gone in look.gone
            ]
            table = pa.Table.from_pylist(rows, schema.arrow_schema(schema.ABSENCE[:3]))
            increments.write_table(root, absence, increments.with_run(table, absence))
            paths.append(absence.path)
    return paths


def _history(root: Root) -> list[tuple[Any, ...]]:
    columns = (
        "image_set_id, version, PatientSex, study_month, change, changed_fields, "
        "valid_from, valid_to, observed_from, observed_to, ended_by"
    )
    with engine.connection() as con:
        image_sets.register(con, root)
        rows = con.sql(f"SELECT {columns} FROM history ORDER BY ALL")  # noqa: S608
        return [tuple(row.values()) for row in rows.to_arrow_table().to_pylist()]


LAWS = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@LAWS
@given(EVENTS, st.data())
def test_applying_is_idempotent_and_independent_of_order(
    tmp_path_factory: Any, events: list[tuple[str, str]], data: st.DataObject
) -> None:
    looks, there = _live(events)
    in_order = Root(str(tmp_path_factory.mktemp("in-order")))
    shuffled = Root(str(tmp_path_factory.mktemp("shuffled")))
    paths = _write(in_order, looks)
    _write(shuffled, looks)

    for path in paths:
        image_sets.apply(in_order, [path])
    assert image_sets.apply(in_order, paths).rows == 0, "applied twice"

    for path in data.draw(st.permutations(paths)):
        image_sets.apply(shuffled, [path])
        image_sets.apply(shuffled, [path])
    expected = _history(in_order)
    assert _history(shuffled) == expected

    image_sets.rebuild(shuffled)
    assert _history(shuffled) == expected, "rebuilt"

    current = {row[0]: row[1] for row in expected if row[-1] is None}
    assert current == {image_set_id: row["version"] for image_set_id, row in there.items()}


@LAWS
@given(EVENTS)
def test_history_has_no_overlap_and_no_hole(
    tmp_path_factory: Any, events: list[tuple[str, str]]
) -> None:
    looks, _ = _live(events)
    root = Root(str(tmp_path_factory.mktemp("lake")))
    image_sets.apply(root, _write(root, looks))
    for _, rows in itertools.groupby(_history(root), key=lambda row: row[0]):
        in_order = sorted(rows, key=lambda row: row[6])
        assert in_order[0][4] == "created"
        for earlier, later in itertools.pairwise(in_order):
            assert earlier[7] == later[6], "valid_to meets valid_from"
            assert earlier[9] == later[8], "observed_to meets observed_from"
            assert later[5] and set(later[5]) <= {*schema_columns()}


STALE = st.lists(
    st.tuples(st.sampled_from(["update", "look"]), st.integers(0, 3)), min_size=2, max_size=12
)


def _stale_looks(events: list[tuple[str, int]]) -> list[Looked]:
    """Play events, one a minute; a look sees what was there some minutes before."""
    seen: list[dict[str, Any]] = []
    looks = []
    for minute, (event, minutes_ago) in enumerate([("update", 0), *events, ("look", 0)]):
        now = START + timedelta(minutes=minute)
        version = seen[-1]["version"] if seen else 0
        if event == "update":
            seen.append(_summary(IDS[0], version + 1, now, "MFO"[version % 3]))
        else:
            seen.append(seen[-1])
            looks.append(Looked(now, [seen[max(0, minute - minutes_ago)]], []))
    return looks


@LAWS
@given(STALE, st.integers(0, 99))
@example([("look", 0), ("update", 0), ("update", 0), ("look", 0), ("look", 3)], 0)
@example([("look", 0), ("update", 0), ("look", 0)], 0)
def test_what_was_known_has_no_overlap_and_no_hole_where_the_index_lags(
    tmp_path_factory: Any, events: list[tuple[str, int]], order: int
) -> None:
    looks = _stale_looks(events)
    root = Root(str(tmp_path_factory.mktemp("lake")))
    paths = _write(root, looks)
    random.Random(order).shuffle(paths)  # noqa: S311
    for path in paths:
        image_sets.apply(root, [path])
    history = _history(root)
    # A state that was first seen when a later one was known already was never what was known.
    known = [row for row in history if row[9] is None or row[9] > row[8]]
    for earlier, later in itertools.pairwise(sorted(known, key=lambda row: row[8])):
        assert earlier[9] == later[8], "observed_to meets observed_from"
        assert earlier[1] < later[1], "no version is forgotten"
    image_sets.rebuild(root)
    assert _history(root) == history


def schema_columns() -> list[str]:
    return [column.name for column in schema.STATE]
