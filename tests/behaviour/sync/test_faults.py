"""After any fault of the service, the lake equals the data store, and no row is in it twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from emulated import emulated
from unpublished import unpublished

from cohortlake import HealthImaging, Settings, Sync, read_table
from cohortlake.healthimaging import EPOCH, Axis, Window, WindowSearch
from emulator import Emulator

NOW, IMAGE_SETS = "2026-06-01T12:00:00Z", 700


@pytest.fixture
def hospital(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.02)
    day = date(2026, 4, 1)
    options = {"synthetic": IMAGE_SETS, "seed": 7, "now": NOW} | getattr(request, "param", {})
    with emulated(first_day=day, clock="stopped", **options) as emulator:
        yield emulator


def _settings(emulator: Emulator, root: object) -> Settings:
    return Settings(emulator.datastores, f"{root}/lake", tps=1000, workers=6, privacy="limited")


def _published(settings: Settings) -> dict[str, tuple[int, int]]:
    frame = read_table(settings.root, "image_sets")
    assert not frame.duplicated(["image_set_id"]).any()
    return {
        row.image_set_id: (row.version, round(row.updated_at.timestamp() * 1000))
        for row in frame.itertuples()
    }


def _truth(emulator: Emulator) -> dict[str, tuple[int, int]]:
    return {
        row["imageSetId"]: (row["version"], round(row["updatedAt"] * 1000))
        for row in emulator.admin.truth()
    }


FAULTS = {
    "none": {},
    "errors, resets and cut bodies": {"error_rate": 0.1, "reset_rate": 0.1, "cut_rate": 0.15},
    "refused tokens": {"token_refusal_rate": 0.3},
    "all at once": {
        "error_rate": 0.05,
        "reset_rate": 0.05,
        "cut_rate": 0.05,
        "token_refusal_rate": 0.1,
        "between": "open",
    },
    **{f"BETWEEN {ends}": {"between": ends} for ends in ("half-open", "open", "exclusive-start")},
}


IN_ALL_AT_ONCE = FAULTS.keys() - {"all at once"}
"""`make chaos` has each of them by itself, too. An open BETWEEN leaves out both of its ends."""


@pytest.mark.parametrize(
    "hospital",
    [
        pytest.param(faults, id=name, marks=[pytest.mark.chaos] if name in IN_ALL_AT_ONCE else [])
        for name, faults in FAULTS.items()
    ],
    indirect=True,
)
def test_the_lake_equals_the_data_store(hospital: Emulator, tmp_path: object) -> None:
    settings = _settings(hospital, tmp_path)
    outcome = Sync(settings).run()
    assert _published(settings) == _truth(hospital)
    assert outcome.rows == IMAGE_SETS, "no row was counted twice"

    hospital.admin.live(2, seed=1)
    with unpublished():
        Sync(settings).run()
    Sync(settings).reconcile()
    assert _published(settings) == _truth(hospital)


@pytest.mark.parametrize("hospital", [{"quota": 20, "burst": 1}], indirect=True)
def test_throttling_is_waited_out_and_counted(
    hospital: Emulator, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 2.0)
    settings = _settings(hospital, tmp_path)
    outcome = Sync(settings).run()
    assert outcome.throttles > 0
    assert _published(settings) == _truth(hospital)


@pytest.mark.parametrize("hospital", [{"index_lag_ms": 60_000}], indirect=True)
def test_what_the_index_shows_late_is_found_by_the_next_tick(
    hospital: Emulator, tmp_path: object
) -> None:
    settings = _settings(hospital, tmp_path)
    with unpublished():
        Sync(settings).run()
        hospital.admin.live(1, seed=2)
        Sync(settings).run()
        hospital.admin.advance(seconds=3600)
        Sync(settings).run()
    Sync(settings).reconcile()
    assert _published(settings) == _truth(hospital)


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize("hospital", [{"token_refusal_rate": 0.5}], indirect=True)
def test_a_search_resumes_where_its_token_was_refused(hospital: Emulator, axis: Axis) -> None:
    (datastore_id,) = hospital.datastores
    service = HealthImaging(Settings(tps=1000))
    store = service.datastore(datastore_id)
    window = Window(axis, EPOCH, store.now.replace(hour=0))
    arrivals = WindowSearch(service, store, [window], workers=1).arrivals()
    pages = [arrival.page for arrival in arrivals if arrival.page]
    ids = [h.image_set_id for p in pages for h in p.heads if h.image_set_id not in p.skip]
    assert len(ids) == len(set(ids))
    assert hospital.admin.stats()["faults"]["token_refused"] > 0
    expected = {row["imageSetId"] for row in hospital.admin.truth() if _is_in(row, axis, window)}
    assert expected <= set(ids)


def _is_in(row: dict[str, Any], axis: Axis, window: Window) -> bool:
    if axis is not Axis.STUDY_DATE:
        return bool(row[axis.member] < window.end.timestamp())
    date = row["DICOMTags"].get("DICOMStudyDate", "")
    return len(date) == 8 and "19700101" <= date < f"{window.end:%Y%m%d}" and date != "20240230"


def test_several_data_stores_share_a_lake(tmp_path: object) -> None:
    with emulated(synthetic=200, seed=7, datastores=2, now=NOW, clock="stopped") as emulator:
        settings = _settings(emulator, tmp_path)
        Sync(settings).run()
        frame = read_table(settings.root, "image_sets")
        for datastore_id in emulator.datastores:
            truth = {row["imageSetId"] for row in emulator.admin.truth(datastore_id=datastore_id)}
            own = frame[frame["datastore_id"] == datastore_id]
            assert set(own["image_set_id"]) == truth
        patients = read_table(settings.root, "patients")
        assert set(patients["datastore_id"]) == set(emulator.datastores)
