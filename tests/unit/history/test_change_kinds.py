"""What a change was: its kind, and whether the whole study changed with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow as pa
import pytest

from cohortlake.history import change_kinds
from cohortlake.history.change_kinds import COMPARED
from cohortlake.storage import engine

AT = datetime(2026, 1, 1, tzinfo=UTC)


def _kind(change: str, fields: list[str] | None) -> str:
    with engine.connection() as con:
        told = {"change": [change], "changed_fields": [fields], "changed_values": [fields]}
        con.register("states", pa.table(told))
        ((kind,),) = con.sql(f"SELECT {change_kinds.KIND} FROM states").fetchall()
    return str(kind)


@pytest.mark.parametrize(
    ("change", "fields", "kind"),
    [
        ("created", None, "created"),
        ("reappeared", ["PatientName"], "reappeared"),
        ("updated", ["version", "StudyDate", "PatientName"], "moved"),
        ("updated", ["StudyDate_raw"], "moved"),
        ("updated", ["version", "PatientID"], "demographic"),
        ("updated", ["PatientBirthDate_raw", "is_primary"], "demographic"),
        ("updated", ["version", "is_primary", "Modality"], "primary_flip"),
        ("updated", ["version", "updated_at", "Modality"], "updated"),
        ("updated", ["extra"], "updated"),
        ("updated", ["version", "updated_at"], "reimported"),
        ("updated", ["NumberOfStudyRelatedSeries", "version"], "reimported"),
    ],
)
def test_the_first_kind_that_fits(change: str, fields: list[str] | None, kind: str) -> None:
    assert _kind(change, fields) == kind


def test_every_column_that_may_change_has_a_kind() -> None:
    assert {_kind("updated", [column]) for column in COMPARED} == {
        "moved",
        "demographic",
        "primary_flip",
        "updated",
        "reimported",
    }


def _study_wide(*states: tuple[str, str, int, int | None]) -> list[int]:
    """Return which of some states of one study, given with seconds from and to, are in cascades."""
    rows = [
        {
            "datastore_id": "d",
            "StudyInstanceUID": "1.2",
            "image_set_id": image_set_id,
            "interval_key": key,
            "kind": kind,
            "valid_from": AT + timedelta(seconds=start),
            "valid_to": None if end is None else AT + timedelta(seconds=end),
        }
        for key, (image_set_id, kind, start, end) in zip(count(), states)
    ]
    with engine.connection() as con:
        con.register("study_states", pa.Table.from_pylist(rows))
        found = change_kinds.find_study_wide(con, "study_states")
        return [key for (key,) in con.sql(f"FROM {found} ORDER BY ALL").fetchall()]


def _study(size: int, until: dict[int, int]) -> list[tuple[str, str, int, int | None]]:
    return [(f"i{n}", "created", -9000, until.get(n)) for n in range(size)]


@pytest.mark.parametrize(
    ("size", "changes", "found"),
    [
        (2, [("demographic", 0), ("demographic", 60)], 2),
        (2, [("demographic", 0), ("demographic", 61)], 0),
        (2, [("demographic", 0), ("moved", 1)], 0),
        (4, [("updated", 0), ("updated", 1)], 2),
        (5, [("updated", 0), ("updated", 1)], 0),
        (1, [("updated", 0)], 0),
    ],
)
def test_half_of_the_study_within_a_minute(
    size: int, changes: list[tuple[str, int]], found: int
) -> None:
    created: list[Any] = _study(size, {n: at for n, (_, at) in enumerate(changes)})
    changed = [(f"i{n}", kind, at, None) for n, (kind, at) in enumerate(changes)]
    assert _study_wide(*created, *changed) == list(range(size, size + found))


def test_a_study_that_is_imported_at_once_is_no_cascade() -> None:
    assert _study_wide(*_study(3, {})) == []


def test_what_was_imported_later_does_not_count() -> None:
    created = _study(2, {0: 0, 1: 0})
    changed: list[Any] = [(f"i{n}", "moved", 0, None) for n in range(2)]
    later: list[Any] = [(f"j{n}", "created", 500, None) for n in range(9)]
    assert _study_wide(*created, *changed, *later) == [2, 3]
