"""Laws of reading: the past is what a replay gives, and changes lead from one instant to another.

Whatever was seen, in any order: states whose versions and instants agree on nothing, image sets
that vanish and come back. The replay is plain Python over what was seen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from laws import examples
from looks import Looked, write

import cohortlake
from cohortlake.errors import InstantError, NotALake, OldFormat, TagError, UnknownTag
from cohortlake.flatten import to_table
from cohortlake.history import image_sets
from cohortlake.instants import instant
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.publish.publication import snapshots
from cohortlake.publish.publication.marker import MARKER_PATH
from cohortlake.published.changes import FIELDS
from cohortlake.published.read import PublishedTables
from cohortlake.schema import FORMAT_VERSION
from cohortlake.storage.root import Root

pytestmark = pytest.mark.slow

Seen = tuple[str, int | None, int | None, int]
State = tuple[int | None, int | None]
"""Version and updatedAt, as the minutes that the tests are played in."""

START = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [character * 32 for character in "ab"]
SECOND = timedelta(seconds=1)

MINUTES = st.integers(1, 9)
SEEN = st.tuples(
    st.sampled_from(IDS),
    st.one_of(st.none(), st.integers(1, 4)),  # version
    st.one_of(st.none(), MINUTES),  # updated at
    MINUTES,  # seen at
)
ABSENT = st.tuples(st.sampled_from(IDS), MINUTES)
HISTORIES = st.tuples(st.lists(SEEN, min_size=1, max_size=8), st.lists(ABSENT, max_size=3))
History = tuple[list[Seen], list[tuple[str, int]]]

LAWS = settings(
    max_examples=examples(10, quick=2),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def _summary(image_set_id: str, version: int | None, updated: int | None) -> dict[str, Any]:
    tags = {
        "DICOMPatientSex": "MFO"[(version or 0) % 3],
        "DICOMAccessionNumber": "A" if updated and updated % 2 else None,
        "DICOMStudyDate": f"20250{(version or 0) % 2 + 1}05",
        "DICOMStudyInstanceUID": "1.2",
        "DICOMSeriesNumber": updated,
    }
    return {
        "imageSetId": image_set_id,
        "version": version,
        "createdAt": START,
        "updatedAt": None if updated is None else _at(updated),
        "isPrimary": (updated or 0) < 5,
        "DICOMTags": {name: value for name, value in tags.items() if value is not None},
    }


def _lake(folder: Any, history: History) -> PublishedTables:
    seen, absent = history
    looks = [Looked(_at(minute), [_summary(*state)]) for *state, minute in seen]
    looks += [Looked(_at(minute), gone=[image_set_id]) for image_set_id, minute in absent]
    root = Root(str(folder.mktemp("lake")))
    root.prepare()
    # Two looks of one instant differ in their run only.
    for place, look in enumerate(looks):
        look.at += timedelta(microseconds=place)
    image_sets.apply(root, write(root, looks))
    publisher.publish(root, built_in("identified"))
    return PublishedTables(root)


# the replay


def _order(state: State) -> tuple[int, int]:
    return (state[0] or 0, state[1] or 0)


def _lives(history: History, image_set_id: str) -> Iterator[tuple[int, dict[State, int], int]]:
    """Yield each life with its number, its states with when they were first seen, and its end."""
    seen, absent = history
    ends = sorted(minute for gone, minute in absent if gone == image_set_id)
    sightings = sorted((m, v, u) for i, v, u, m in _comparable(seen) if i == image_set_id)
    for life, end in enumerate([*ends, 99]):
        begin = ends[life - 1] if life else 0
        first: dict[State, int] = {}
        for minute, version, updated in sightings:
            if begin < minute <= end:
                first.setdefault((version or None, updated or None), minute)
        yield life, first, end


def _comparable(seen: list[Seen]) -> list[tuple[str, int, int, int]]:
    return [(i, version or 0, updated or 0, minute) for i, version, updated, minute in seen]


def _known(history: History, minute: int) -> dict[str, State]:
    """Return what a lake knew which had only looked until then."""
    seen, absent = history
    so_far = [s for s in seen if s[3] <= minute], [a for a in absent if a[1] <= minute]
    known = {}
    for image_set_id in IDS:
        *_, (_, states, _) = _lives(so_far, image_set_id)
        if states:
            known[image_set_id] = max(states, key=_order)
    return known


def _true(history: History, minute: int) -> dict[str, State]:
    """Return what was true then, as far as is known in the end."""
    true = {}
    for image_set_id in IDS:
        lives = [life for life in _lives(history, image_set_id) if life[1]]
        for place, (_, states, end) in enumerate(lives):
            reborn = min(states.values()) if place else 0
            begun = [s for s in states if max(s[1] or states[s], reborn) <= minute]
            if begun and minute < end:
                true[image_set_id] = max(begun, key=_order)
    return true


def _shown(frame: pd.DataFrame) -> dict[str, State]:
    rows = to_table(frame).to_pylist()
    shown = {
        row["image_set_id"]: (row["version"], row["updated_at"] and _minute(row["updated_at"]))
        for row in rows
    }
    assert len(shown) == len(rows)
    return shown


def _minute(at: datetime) -> int:
    return (at - START) // timedelta(minutes=1)


@LAWS
@given(HISTORIES, MINUTES)
@example(([(IDS[0], 1, 1, 1), (IDS[0], 1, 1, 5)], [(IDS[0], 3)]), 4)
@example(([(IDS[0], 1, 1, 1), (IDS[0], 3, 3, 3), (IDS[0], 2, 2, 5)], []), 2)
def test_the_past_is_what_a_replay_gives(
    tmp_path_factory: Any, history: History, minute: int
) -> None:
    lake = _lake(tmp_path_factory, history)
    first = min(minute for *_, minute in (*history[0], *history[1]))
    at = _at(max(minute, first)) + SECOND
    columns = ["image_set_id", "version", "updated_at"]
    known = lake.table("image_sets", columns, known_at=at)
    assert _shown(known) == _known(history, _minute(at))
    true = lake.table("image_sets", columns, as_of=at)
    assert _shown(true) == _true(history, _minute(at))
    now = _shown(lake.table("image_sets", columns))
    assert now == _shown(lake.table("image_sets", columns, known_at=_at(99)))


# changes


def _fields(frame: pd.DataFrame) -> dict[str, dict[str, str | None]]:
    """Return image set -> its values, as `changes` writes them."""
    rows = to_table(frame).to_pylist()
    return {row["image_set_id"]: {name: _text(row[name]) for name in FIELDS} for row in rows}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _apply(
    states: dict[str, dict[str, str | None]],
    changes: pd.DataFrame,
    lake: PublishedTables,
    clock: str,
) -> None:
    """Do to a table what changes tell; what begins is looked up."""
    history = lake.table("history")
    for change in to_table(changes).to_pylist():
        key, field = change["image_set_id"], change["field"]
        if change["kind"] == "deleted":
            del states[key]
        elif field:
            assert states[key][field] == change["before"]
            states[key][field] = change["after"]
        elif key not in states:
            assert change["kind"] in ("created", "reappeared")
            began = history[f"{clock}_from"] == change["changed_at"]
            lasted = history[f"{clock}_to"].isna() | (history[f"{clock}_to"] > change["changed_at"])
            states |= _fields(history[began & lasted & (history["image_set_id"] == key)])


@LAWS
@given(HISTORIES, MINUTES, MINUTES)
@example(([(IDS[0], 1, 1, 1), (IDS[0], 2, 3, 3), (IDS[0], 2, 3, 7)], [(IDS[0], 5)]), 2, 8)
@example(([(IDS[0], 3, 3, 1), (IDS[0], 2, 2, 5)], []), 1, 9)
def test_changes_lead_from_one_instant_to_another(
    tmp_path_factory: Any, history: History, one: int, other: int
) -> None:
    lake = _lake(tmp_path_factory, history)
    first = min(minute for *_, minute in (*history[0], *history[1]))
    since, until = (_at(max(minute, first)) + SECOND for minute in sorted((one, other)))
    until += SECOND
    lake.tag("all")
    columns = ["image_set_id", *FIELDS]
    for clock, at, changes in (
        ("valid", "as_of", lake.changes(since, until)),
        ("valid", "as_of", lake.diff(since.isoformat(), until.isoformat())),
    ):
        states = _fields(lake.table("image_sets", columns, **{at: since}))  # type: ignore[arg-type]
        _apply(states, changes, lake, clock)
        assert states == _fields(lake.table("image_sets", columns, **{at: until}))  # type: ignore[arg-type]
    states = _fields(lake.table("image_sets", columns, known_at=since))
    if since < snapshots.tagged(lake.root, "all").knew_until:
        _apply(states, lake.diff(since.isoformat(), "all"), lake, "observed")
    assert states == _fields(lake.table("image_sets", columns))


# what cannot be asked


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A published lake; each test works on a copy."""
    return _lake(tmp_path_factory, ([(IDS[0], 1, 1, 3), (IDS[0], 2, 4, 5)], [])).root


@pytest.fixture
def lake(pristine: Root, tmp_path: Path) -> PublishedTables:
    return PublishedTables(Root(shutil.copytree(pristine.path(), str(tmp_path / "lake"))))


@pytest.mark.parametrize(
    ("name", "past", "says"),
    [
        ("image_sets", {"as_of": START}, "first search began at 2026-01-01T00:03"),
        ("image_sets", {"known_at": date(2025, 1, 1)}, "first search began at"),
        ("image_sets", {"as_of": "yesterday"}, "a date like 2026-06-01"),
        ("image_sets", {"as_of": START, "known_at": START}, "not both"),
        ("studies", {"as_of": START}, "first search began at 2026-01-01T00:03"),
        ("studies", {"known_at": _at(9)}, "'history' holds all states"),
        ("history", {"as_of": _at(9)}, "read it without as_of"),
    ],
)
def test_what_has_no_past_says_so(lake: PublishedTables, name: str, past: Any, says: str) -> None:
    with pytest.raises(InstantError, match=says):
        lake.table(name, **past)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("2025-01-01", "now", "first search began at"),
        ("now", "2026-01-02", "the earlier one first"),
        ("2026-01-03", "2026-01-02", "is not before"),
    ],
)
def test_a_diff_goes_forward_from_what_was_seen(
    lake: PublishedTables, a: str, b: str, says: str
) -> None:
    with pytest.raises(InstantError, match=says):
        lake.diff(a, b)


def test_a_lake_without_image_sets_has_no_past(tmp_path: Any) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    with pytest.raises(NotALake, match="cohortlake sync"):
        cohortlake.open(root.uri)
    image_sets.apply(root, write(root, [Looked(START)]))
    publisher.publish(root, built_in("limited"))
    lake = cohortlake.open(root.uri)
    assert len(lake.table("image_sets")) == 0
    assert lake.snapshots()["observed_until"].isna().tolist() == [True]
    with pytest.raises(InstantError, match="no past"):
        lake.table("image_sets", as_of=START)


def test_what_an_older_release_published_asks_to_be_rebuilt(lake: PublishedTables) -> None:
    own, older = (f'"format": {n}'.encode() for n in (FORMAT_VERSION, FORMAT_VERSION - 1))
    marker = lake.root.read(MARKER_PATH)
    assert own in marker
    lake.root.write(MARKER_PATH, marker.replace(own, older))
    with pytest.raises(OldFormat, match="cohortlake rebuild"):
        cohortlake.read_table(lake.root.uri, "studies")


# snapshots and tags


def test_a_tag_holds_what_was_published_when_it_was_given(lake: PublishedTables) -> None:
    lake.tag("paper-1")
    tagged = lake.table("image_sets")
    image_sets.apply(lake.root, write(lake.root, [Looked(_at(7), [_summary(IDS[1], 1, 6)])]))
    publisher.publish(lake.root, built_in("identified"))

    pd.testing.assert_frame_equal(
        lake.table("image_sets", known_at="paper-1").reset_index(drop=True), tagged
    )
    found = lake.diff("paper-1", "now")
    assert found[["image_set_id", "kind"]].to_numpy().tolist() == [[IDS[1], "created"]]
    listed = lake.snapshots()
    assert listed["n_image_sets"].tolist() == [1, 2]
    assert [list(tags) for tags in listed["tags"]] == [["paper-1"], []]
    assert snapshots.tagged_versions(lake.root) == {listed["image_sets_version"][0]}


def test_a_tag_never_moves(lake: PublishedTables) -> None:
    lake.tag("paper")
    lake.tag("paper")
    image_sets.apply(lake.root, write(lake.root, [Looked(_at(7), [_summary(IDS[1], 1, 6)])]))
    publisher.publish(lake.root, built_in("identified"))
    with pytest.raises(TagError, match=r"never moves.*_tags/paper\.json"):
        lake.tag("paper")
    with pytest.raises(UnknownTag, match=r"did you mean 'paper'\? \(tags: paper\)"):
        lake.diff("papers", "now")


@pytest.mark.parametrize("name", ["", "now", "2026-06-01", "20260601", "a/b", ".hidden", "x" * 65])
def test_a_tag_has_a_name_that_nothing_else_has(lake: PublishedTables, name: str) -> None:
    with pytest.raises(TagError, match="cannot be a tag"):
        lake.tag(name)


def test_instants_are_utc() -> None:
    expected = datetime(2026, 6, 1, tzinfo=UTC)
    given: list[Any] = [expected, date(2026, 6, 1), "2026-06-01", "2026-06-01T02:00:00+02:00"]
    given += [datetime(2026, 6, 1), pd.Timestamp("2026-06-01")]
    assert {instant(one) for one in given} == {expected}
