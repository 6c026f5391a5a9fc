"""Laws of older versions: whatever was seen when, they change nothing but what was missing.

A small data store lives for a while. It is searched and swept now and then, sometimes by a sweep
that takes for gone what is there, and asked for older versions now and then.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import examples

from cohortlake.errors import NoSuchDatastore
from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import EPOCH, Datastore, HealthImaging, Version
from cohortlake.history import image_sets
from cohortlake.increments import files, kinds, writer
from cohortlake.increments.record import Record
from cohortlake.ingest import older_versions
from cohortlake.ingest.older_versions import VersionsResult
from cohortlake.ingest.partition_search import SearchRun
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.storage import engine
from cohortlake.storage.root import Root

pytestmark = pytest.mark.slow

DATASTORE = "d" * 32
START = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [character * 32 for character in "ab"]
Row = dict[str, Any]


@dataclass
class Store:
    """The data store, which keeps all versions of what is not deleted."""

    there: dict[str, list[Row]] = field(default_factory=dict)
    forgotten: set[tuple[str, int]] = field(default_factory=set)
    calls: int = 0

    def update(self, image_set_id: str, at: datetime) -> None:
        own = self.there.setdefault(image_set_id, [])
        number = len(own) + 1
        tags = {"DICOMPatientSex": "MFO"[number % 3], "DICOMStudyDate": f"20250{number % 9 + 1}01"}
        own.append(
            {"imageSetId": image_set_id, "version": number, "createdAt": START, "updatedAt": at,
             "isPrimary": True, "DICOMTags": tags}
        )  # fmt: skip

    def newest(self) -> list[Row]:
        return [own[-1] for own in self.there.values()]

    def versions(self, _: str, image_set_id: str, meter: object) -> list[Version]:
        self.calls += 1
        if image_set_id not in self.there:
            raise NoSuchDatastore(DATASTORE, "here")
        return [
            Version(image_set_id, row["version"], False, START, row["updatedAt"], True)
            for row in self.there[image_set_id]
            if (image_set_id, row["version"]) not in self.forgotten
        ]

    def tags_of(self, _: str, image_set_id: str, version: int, meter: object) -> Row:
        self.calls += 1
        return dict(self.there[image_set_id][version - 1]["DICOMTags"])


class Lake:
    """A lake of that data store."""

    def __init__(self, folder: str, store: Store) -> None:
        self.root = Root(folder)
        self.store = store
        self.filled = VersionsResult()

    def see(self, at: datetime, found: list[Row], absent: list[str]) -> None:
        record = Record(DATASTORE, "updated_at", "day", EPOCH, at, at, f"run-{at:%d%H%M}")
        states = flatten_summaries(found, DATASTORE)
        states = states.append_column("page", pa.array([0] * len(states), pa.int32()))
        writer.write_table(self.root, record, kinds.with_run_columns(states, record))
        if absent:
            gone = Record(DATASTORE, "absence", "day", EPOCH, at, at, record.run_id)
            rows = [
                {
                    "datastore_id": DATASTORE,
                    "image_set_id": key,
                    "confirmed_by": "GetImageSet",
                    "last_seen_at": at,
                }
                for key in absent
            ]
            table = pa.Table.from_pylist(rows, kinds.ABSENCE_WITHOUT_RUN)
            writer.write_table(self.root, gone, kinds.with_run_columns(table, gone))
        self.apply()

    def fill(self, at: datetime) -> VersionsResult:
        service = cast("HealthImaging", self.store)
        run = SearchRun(
            root=self.root,
            service=service,
            store=Datastore(DATASTORE, START, at),
            erased=ErasedPatients(self.root),
            run_id=f"fill-{at:%d%H%M%S}",
            settle=timedelta(minutes=5),
        )
        filled = sum(older_versions.fill(run), VersionsResult())
        self.apply()
        return filled

    def apply(self) -> None:
        image_sets.apply(self.root, files.paths(self.root))

    def rows(self, relation: str) -> list[Row]:
        with engine.connection() as con:
            image_sets.register(con, self.root)
            rows: list[Row] = con.sql(f"FROM {relation} ORDER BY ALL").to_arrow_table().to_pylist()
        return rows


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["update", "update", "search", "fill", "delete", "miss", "forget"]),
        st.sampled_from(IDS),
    ),
    max_size=16,
)
JUMP = [("update", IDS[0])] * 3


@settings(max_examples=examples(12, quick=2), deadline=None)
@given(EVENTS)
@example([*JUMP, ("search", ""), ("fill", "")])
@example([("update", IDS[0]), ("search", ""), ("miss", IDS[0]), *JUMP, ("search", "")])
@example([*JUMP, ("search", ""), ("miss", IDS[0]), ("search", ""), *JUMP, ("search", "")])
@example([*JUMP, ("search", ""), ("delete", IDS[0]), ("fill", ""), ("search", "")])
@example([*JUMP, ("forget", IDS[0]), ("search", ""), ("fill", ""), *JUMP, ("search", "")])
def test_what_was_missing_is_there_and_nothing_else_changes(
    tmp_path_factory: Any, events: list[tuple[str, str]]
) -> None:
    store = Store()
    lake = Lake(str(tmp_path_factory.mktemp("lake")), store)
    known: set[str] = set()
    for minute, (event, key) in enumerate([*events, ("search", "")]):
        now = START + timedelta(minutes=minute)
        if event == "update" and (key in store.there or key not in known):
            store.update(key, now)
        elif event == "delete":
            store.there.pop(key, None)
        elif event == "forget" and key in store.there:
            store.forgotten.add((key, len(store.there[key])))
        elif event == "miss" and key in known:
            lake.see(now, [], [key])
        elif event == "fill":
            lake.fill(now)
        elif event == "search":
            lake.see(now, store.newest(), sorted(known - store.there.keys()))
            known |= store.there.keys()

    end = START + timedelta(hours=1)
    current, before = lake.rows("current"), lake.rows("history")
    lake.fill(end)
    assert _without_prior(lake.rows("current")) == _without_prior(current)
    after = lake.rows("history")
    seen = ("image_set_id", "version", "observed_from", "observed_to")
    assert {_of(row, *seen) for row in before} <= {_of(row, *seen) for row in after}
    for row in current:
        _assert_nothing_lacks(row["image_set_id"], after, store)
    _assert_lines_hold(after)

    store.calls = 0
    assert lake.fill(end + timedelta(minutes=1)) == VersionsResult()
    assert store.calls == 0, "nothing is asked for twice"
    image_sets.rebuild(lake.root)
    assert lake.rows("history") == after, "rebuilt"
    assert lake.fill(end + timedelta(minutes=2)) == VersionsResult()


def _of(row: Row, *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _without_prior(rows: list[Row]) -> list[Row]:
    """Leave out what a state says of the one before it."""
    of_prior = ("interval_key", "change", "prior_state_key", "prior_study_month", "versions_unseen")
    return [{k: v for k, v in row.items() if k not in of_prior} for row in rows]


def _assert_nothing_lacks(key: str, history: list[Row], store: Store) -> None:
    own = sorted((row for row in history if row["image_set_id"] == key), key=_observed)
    ends = [row["observed_to"] for row in own if row["ended_by"] == "deleted"]
    back_at = max(ends, default=EPOCH)
    alive = {row["version"] for row in own if row["observed_from"] > back_at}
    first = 1 if not ends else min(alive)
    given = {
        row["version"] for row in store.there[key] if (key, row["version"]) not in store.forgotten
    }
    assert {n for n in given if first <= n <= max(alive)} <= alive


def _observed(row: Row) -> Any:
    return row["observed_from"]


def _assert_lines_hold(history: list[Row]) -> None:
    for _, rows in itertools.groupby(history, key=lambda row: row["image_set_id"]):
        line = sorted(
            rows,
            key=lambda row: (
                row["valid_from"],
                row["valid_to"] or datetime.max.replace(tzinfo=UTC),
            ),
        )
        assert [row["change"] for row in line].count("created") == 1
        for earlier, later in itertools.pairwise(line):
            if earlier["ended_by"] == "deleted":
                assert earlier["valid_to"] <= later["valid_from"]
            else:
                assert earlier["valid_to"] == later["valid_from"]
                assert earlier["version"] < later["version"]
        known = [
            r for r in line if r["observed_to"] is None or r["observed_to"] > r["observed_from"]
        ]
        for earlier, later in itertools.pairwise(sorted(known, key=_observed)):
            assert earlier["observed_to"] <= later["observed_from"]
            assert (
                earlier["ended_by"] == "deleted" or earlier["observed_to"] == later["observed_from"]
            )
