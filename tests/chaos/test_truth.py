"""The comparison after a storm finds each kind of wrong lake."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from emulated import emulated, fill_lake

from chaos import truth

Tables = dict[str, list[truth.Row]]
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tables, list[truth.Row]]]:
    """The tables of a lake with some history, and the summaries of the data store."""
    root = tmp_path_factory.mktemp("lake")
    noon: dict[str, Any] = {"now": "2026-06-01T12:00:00Z", "clock": "stopped"}
    with emulated(synthetic=100, seed=1, **noon) as emulator:
        fill_lake(emulator, root, days=3, tps=2000, privacy="identified").reconcile()
        yield truth.read(root), list(emulator.admin.truth())


def _one(rows: list[truth.Row], column: str = "image_set_id") -> truth.Row:
    return next(row for row in rows if row[column] is not None)


def _superseded(tables: Tables) -> truth.Row:
    return next(row for row in tables["history"] if row["ended_by"] == "superseded")


def _updated(tables: Tables) -> truth.Row:
    return next(row for row in tables["history"] if row["change"] == "updated")


def _set(table: str, column: str, value: Any) -> Callable[[Tables], None]:
    return lambda tables: _one(tables[table], column).update({column: value})


def _end(clock: str, later: timedelta) -> Callable[[Tables], None]:
    def tamper(tables: Tables) -> None:
        row = _superseded(tables)
        row[f"{clock}_to"] += later

    return tamper


WRONG: dict[str, Callable[[Tables], object]] = {
    "a row is missing": lambda tables: tables["image_sets"].pop(),
    "a row is there twice": lambda tables: tables["image_sets"].append(tables["image_sets"][0]),
    "a version is stale": _set("image_sets", "version", 77),
    "a text differs": _set("image_sets", "PatientSex", "X"),
    "a number differs": _set("image_sets", "SeriesNumber", 77),
    "a date differs": _set("image_sets", "StudyDate", date(1999, 1, 1)),
    "a month is wrong": _set("image_sets", "study_month", "1999-01"),
    "an age is wrong": _set("image_sets", "age_at_study_years", 1),
    "a sex is wrong": _set("image_sets", "sex", "X"),
    "a body part is wrong": _set("image_sets", "body_part", "TOE"),
    "a status is wrong": _set("image_sets", "age_status", "implausible"),
    "a series is no duplicate": _set("series", "has_duplicates", None),
    "a band is wrong": _set("series", "age_band", "200+"),
    "a study has another place": _set("studies", "study_ordinal", 77),
    "a study comes later": _set("studies", "days_since_previous", 77),
    "a patient was followed longer": _set("patients", "follow_up_days", 77),
    "a patient's sexes agree": _set("patients", "sex_status", "agreed"),
    "a key is another's": _set("image_sets", "patient_key", "0" * 32),
    "a series is missing": lambda tables: tables["series"].pop(),
    "a study counts wrongly": _set("studies", "n_image_sets", 77),
    "a patient is stale": _set("patients", "last_study_date", date(1999, 1, 1)),
    "history has no end": lambda tables: _superseded(tables).update(
        valid_to=None, observed_to=None, ended_by=None
    ),
    "history has a hole": _end("valid", -timedelta(milliseconds=1)),
    "history overlaps": _end("valid", HOUR),
    "history ends before it begins": _end("valid", -9999 * HOUR),
    "knowledge has a hole": _end("observed", -timedelta(milliseconds=1)),
    "knowledge overlaps": _end("observed", HOUR),
    "a state was known before it was": lambda tables: _superseded(tables).update(
        observed_from=_superseded(tables)["valid_from"] - HOUR
    ),
    "a change is of another kind": lambda tables: _updated(tables).update(kind="created"),
    "a change names other fields": lambda tables: _updated(tables)["changed_fields"].pop(),
    "a version was not missed": lambda tables: _updated(tables).update(versions_unseen=7),
    "a study did not change": lambda tables: _updated(tables).update(
        is_study_wide=not _updated(tables)["is_study_wide"]
    ),
    "history lacks the present": lambda tables: tables["history"].remove(
        next(row for row in tables["history"] if row["valid_to"] is None)
    ),
}


def test_nothing_is_wrong_with_a_good_lake(lake: tuple[Tables, list[truth.Row]]) -> None:
    tables, sent = lake
    assert truth.differences(tables, sent) == []
    assert truth.different_rows(tables, copy.deepcopy(tables)) == []


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_whatever_is_wrong_is_found(
    lake: tuple[Tables, list[truth.Row]], wrong: Callable[[Tables], object]
) -> None:
    tables, sent = copy.deepcopy(lake)
    wrong(tables)
    assert truth.differences(tables, sent)
    assert truth.different_rows(tables, lake[0])
