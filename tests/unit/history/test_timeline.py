"""Laws of the memory: idempotent, independent of order, and the same when rebuilt.

A small data store lives for a while and is looked at now and then, by searches that see
what is there and by sweeps that confirm what is gone. Whatever the order in which what
they saw is applied, the lake knows the same, and knows what really happened.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from laws import examples
from looks import Looked, write

from cohortlake import schema
from cohortlake.history import change_kinds, image_sets, timeline
from cohortlake.storage import engine
from cohortlake.storage.root import Root

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [character * 32 for character in "abc"]


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


def _history(root: Root) -> list[dict[str, Any]]:
    columns = (
        "image_set_id, version, PatientSex, study_month, change, changed_fields, "
        "coalesce(kind, 'created') AS kind, prior_state_key, prior_study_month, "
        "versions_unseen, valid_from, valid_to, last_seen_at, observed_from, observed_to, ended_by"
    )
    with engine.connection() as con:
        states = image_sets.register(con, root).history
        changes = change_kinds.find_changes(con, states, states)
        told = f"{states} LEFT JOIN {changes} USING (interval_key)"
        rows = con.sql(f"SELECT {columns} FROM {told} ORDER BY ALL")
        history: list[dict[str, Any]] = rows.to_arrow_table().to_pylist()
    return history


LAWS = settings(
    max_examples=examples(8, quick=2),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@LAWS
@given(EVENTS, st.data())
def test_applying_is_idempotent_and_independent_of_order(
    tmp_path_factory: Any, events: list[tuple[str, str]], data: st.DataObject
) -> None:
    looks, there = _live(events)
    in_order = Root(str(tmp_path_factory.mktemp("in-order")))
    shuffled = Root(str(tmp_path_factory.mktemp("shuffled")))
    paths = write(in_order, looks)
    write(shuffled, looks)

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

    current = {row["image_set_id"]: row["version"] for row in expected if not row["ended_by"]}
    assert current == {image_set_id: row["version"] for image_set_id, row in there.items()}


@LAWS
@given(EVENTS)
def test_history_has_no_overlap_and_no_hole(
    tmp_path_factory: Any, events: list[tuple[str, str]]
) -> None:
    looks, _ = _live(events)
    root = Root(str(tmp_path_factory.mktemp("lake")))
    image_sets.apply(root, write(root, looks))
    for _, rows in itertools.groupby(_history(root), key=itemgetter("image_set_id")):
        in_order = sorted(rows, key=itemgetter("valid_from"))
        assert in_order[0]["change"] == "created"
        for earlier, later in itertools.pairwise(in_order):
            assert earlier["valid_to"] == later["valid_from"]
            assert earlier["observed_to"] == later["observed_from"]
            assert later["changed_fields"]
            assert set(later["changed_fields"]) <= {*schema_columns()}


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
    paths = write(root, looks)
    random.Random(order).shuffle(paths)  # noqa: S311
    for path in paths:
        image_sets.apply(root, [path])
    history = _history(root)
    # A state that was first seen when a later one was known already was never what was known.
    known = [r for r in history if not r["observed_to"] or r["observed_to"] > r["observed_from"]]
    for earlier, later in itertools.pairwise(sorted(known, key=itemgetter("observed_from"))):
        assert earlier["observed_to"] == later["observed_from"]
        assert earlier["version"] < later["version"], "no version is forgotten"
    image_sets.rebuild(root)
    assert _history(root) == history


def schema_columns() -> list[str]:
    return [column.name for column in schema.STATE]


MINUTES = st.integers(1, 9)
SEEN = st.tuples(
    st.sampled_from(IDS[:2]),
    st.one_of(st.none(), st.integers(1, 4)),  # version
    st.one_of(st.none(), MINUTES),  # updated at
    st.sampled_from("MF"),
    MINUTES,  # observed at
)
ABSENT = st.tuples(st.sampled_from(IDS[:2]), MINUTES)
ANYTHING = st.lists(SEEN, max_size=8)


def _odd_looks(
    seen: list[tuple[Any, ...]], absent: list[tuple[str, int]], until: int = 10
) -> list[Looked]:
    """Looks that agree on nothing: any state at any time, absent in between or not."""
    looks = []
    for image_set_id, version, updated, sex, minute in seen:
        summary = _summary(image_set_id, 1, START, sex) | {
            "version": version,
            "updatedAt": None if updated is None else START + timedelta(minutes=updated),
        }
        looks.append((minute, [summary], []))
    looks += [(minute, [], [image_set_id]) for image_set_id, minute in absent]
    return [
        Looked(START + timedelta(minutes=minute, microseconds=place), found, gone)
        for place, (minute, found, gone) in enumerate(looks)
        if minute <= until
    ]


def _known_at(root: Root, minute: int) -> list[tuple[Any, ...]]:
    at = START + timedelta(minutes=minute, seconds=59)
    with engine.connection() as con:
        image_sets.register(con, root)
        return con.execute(
            "SELECT image_set_id, state_key FROM history WHERE observed_from <= $1 "
            "AND (observed_to IS NULL OR observed_to > $1) ORDER BY ALL",
            [at],
        ).fetchall()


def _current(root: Root) -> list[tuple[Any, ...]]:
    with engine.connection() as con:
        image_sets.register(con, root)
        return con.sql("SELECT image_set_id, state_key FROM current ORDER BY ALL").fetchall()


@LAWS
@given(ANYTHING, st.lists(ABSENT, max_size=3), MINUTES)
def test_what_was_known_at_an_instant_is_what_the_lake_then_held(
    tmp_path_factory: Any, seen: list[Any], absent: list[Any], minute: int
) -> None:
    root, then = (Root(str(tmp_path_factory.mktemp(name))) for name in ("now", "then"))
    image_sets.apply(root, write(root, _odd_looks(seen, absent)))
    image_sets.apply(then, write(then, _odd_looks(seen, absent, until=minute)))
    assert _known_at(root, minute) == _current(then)


@LAWS
@given(ANYTHING, st.lists(ABSENT, max_size=3), MINUTES)
def test_of_an_image_set_one_state_is_true_at_a_time(
    tmp_path_factory: Any, seen: list[Any], absent: list[Any], minute: int
) -> None:
    root = Root(str(tmp_path_factory.mktemp("lake")))
    image_sets.apply(root, write(root, _odd_looks(seen, absent)))
    with engine.connection() as con:
        image_sets.register(con, root)
        true_then = con.execute(
            "SELECT image_set_id FROM history WHERE valid_from <= $1 "
            "AND (valid_to IS NULL OR valid_to > $1)",
            [START + timedelta(minutes=minute, seconds=30)],
        ).fetchall()
    assert len(true_then) == len(set(true_then))


# A repeated sighting is not kept, so an absence before it must not come to light after it.
ANYTHING_ONCE = st.lists(SEEN, max_size=8, unique_by=lambda seen: seen[:4])


@LAWS
@given(
    st.one_of(
        st.tuples(ANYTHING, st.just([])),
        st.tuples(ANYTHING_ONCE, st.lists(ABSENT, max_size=3)),
    ),
    st.one_of(st.none(), st.integers(0, 99)),
)
# The absence comes last: an end moves to a later instant, is taken back, a state stands again.
@example(
    ([(IDS[0], 1, 1, "M", 1), (IDS[0], 2, 2, "M", 4)], [(IDS[0], 3)]),
    None,
)
@example(
    ([(IDS[0], 3, 1, "M", 1), (IDS[0], 1, 3, "M", 3), (IDS[0], 2, 4, "M", 4)], [(IDS[0], 2)]),
    None,
)
@example(
    ([(IDS[0], 1, 1, "M", 1), (IDS[0], 3, 2, "M", 2), (IDS[0], 2, 4, "M", 4)], [(IDS[0], 3)]),
    None,
)
def test_odd_observations_too_give_one_history_in_any_order(
    tmp_path_factory: Any, odd: tuple[list[Any], list[Any]], order: int | None
) -> None:
    at_once, one_by_one = (Root(str(tmp_path_factory.mktemp(name))) for name in ("all", "each"))
    image_sets.apply(at_once, write(at_once, _odd_looks(*odd)))
    paths = write(one_by_one, _odd_looks(*odd))
    if order is not None:
        random.Random(order).shuffle(paths)  # noqa: S311
    for path in paths:
        image_sets.apply(one_by_one, [path])
    assert _history(one_by_one) == _history(at_once)
    assert _current(one_by_one) == _current(at_once)


def test_a_jump_in_version_is_recorded(tmp_path: Any) -> None:
    image_set_id, other = IDS[:2]
    looks = [
        Looked(START, [_summary(image_set_id, 3, START, "M")], []),
        Looked(
            START + timedelta(hours=1),
            [
                _summary(image_set_id, 7, START + timedelta(minutes=1), "M"),
                _summary(other, 1, START, "M"),
            ],
            [],
        ),
    ]
    root = Root(str(tmp_path))
    image_sets.apply(root, write(root, looks))
    with engine.connection() as con:
        image_sets.register(con, root)
        rows = con.sql("SELECT image_set_id, version, versions_unseen FROM history ORDER BY ALL")
        assert rows.fetchall() == [(image_set_id, 3, 2), (image_set_id, 7, 3), (other, 1, 0)]


def test_image_sets_whose_keys_are_alike_are_told_apart(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(timeline, "IMAGE_SET_KEY", "7")
    root = Root(str(tmp_path))
    later = START + timedelta(hours=1)
    looks = [
        Looked(START, [_summary(IDS[0], 1, START, "M")]),
        Looked(START + timedelta(minutes=1), [_summary(IDS[1], 2, START, "F")]),
        Looked(later, [_summary(IDS[0], 2, later, "F")]),
        Looked(later + timedelta(hours=1), gone=[IDS[1]]),
    ]
    for path in write(root, looks):
        image_sets.apply(root, [path])
    told = [(row["image_set_id"], row["change"], row["ended_by"]) for row in _history(root)]
    assert told == [
        (IDS[0], "created", "superseded"),
        (IDS[0], "updated", None),
        (IDS[1], "created", "deleted"),
    ]
