"""The windows of updatedAt and the sweeps by study date find the same image sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from small_hospital import change, fill
from unpublished import unpublished

from cohortlake import Settings, Sync
from cohortlake.admin.reconciliation_check import Reconciliation, reconciliation_check
from cohortlake.errors import ServiceUnavailable
from cohortlake.history import image_sets
from cohortlake.increments import files


@pytest.fixture(autouse=True)
def _unpublished() -> Iterator[None]:
    with unpublished():  # the history and the coverage are compared
        yield


def test_the_axes_agree_until_something_changes(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    sync = Sync(lake_settings)
    assert reconciliation_check(sync.root) == Reconciliation()
    fill(endpoint, 90)  # of thirty studies three have no date, the others lie in three months
    for row in endpoint.image_sets:
        row["DICOMTags"]["DICOMNumberOfStudyRelatedSeries"] = 3
    endpoint.image_sets[4]["DICOMTags"]["DICOMNumberOfStudyRelatedSeries"] = 5
    sync.run()
    before = reconciliation_check(sync.root)
    assert (before.agreeing, before.changed, before.differing) == (0, 0, ())
    months = before.unswept  # three, and `undated`
    assert (before.studies, before.studies_with_fewer_series) == (30, 1)

    endpoint.now += timedelta(hours=2)
    del endpoint.image_sets[7]
    sync.reconcile()
    after = reconciliation_check(sync.root)
    assert (after.agreeing, after.changed, after.differing) == (months, 0, ())
    assert after.studies_with_fewer_series == 2

    endpoint.now += timedelta(hours=2)
    change(endpoint, 20, DICOMPatientSex="F")
    sync.run()
    changed = reconciliation_check(sync.root)
    assert (changed.agreeing, changed.changed) == (months - 1, 1)


@pytest.mark.parametrize("undated_match", [False, True])
def test_a_date_in_the_old_form_is_swept_with_the_undated(
    undated_match: bool, tmp_path: Path
) -> None:
    """No day's search may find it, or every day's: its own month is compared without it."""
    dates = ["20240110", "2024.01.15", "20240120", "20240220 ", "20240225"]
    summaries = [{"DICOMTags": {"DICOMStudyDate": text}} for text in dates]
    month, now = date(2024, 1, 1), "2024-03-10T12:00:00Z"
    with emulated(first_month=month, now=now, undated_match=undated_match) as emulator:
        emulator.admin.import_summaries(summaries)
        emulator.admin.advance(days=1)
        sync = Sync(
            Settings(emulator.datastores, str(tmp_path / "lake"), tps=1000, privacy="limited")
        )
        sync.run()
        sync.reconcile()
        both = sync.status().agreement
        assert (both.differing, both.agreeing, both.unswept) == ((), 3, 0)
        emulator.admin.delete(next(
            s["imageSetId"] for s in emulator.admin.truth()
            if s["DICOMTags"]["DICOMStudyDate"] == "2024.01.15"
        ))  # fmt: skip
        emulator.admin.advance(days=1)
        assert sync.reconcile().applied.changes == {"deleted": 1}
        assert sync.status().agreement.differing == ()


ODD_DATES = ["20250115", "", "19611224", "20991231", "2025.01.15", "20250231"]


def _give_odd_dates(endpoint: Endpoint) -> None:
    for number, row in enumerate(endpoint.image_sets):
        row["DICOMTags"]["DICOMStudyDate"] = ODD_DATES[number % len(ODD_DATES)]


def test_after_a_reconcile_nothing_was_never_swept(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    """Nor what has no date, or one before the first month, in the future or oddly written."""
    sync = Sync(lake_settings)
    fill(endpoint, 30)
    _give_odd_dates(endpoint)
    sync.run()
    assert reconciliation_check(sync.root).unswept > 0
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=2)

    endpoint.now += timedelta(hours=2)
    fill(endpoint, 30)  # unknown to the sweep of `undated`: that keeps those of all months
    _give_odd_dates(endpoint)
    endpoint.image_sets.pop(1)
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=2)

    endpoint.now += timedelta(hours=2)
    change(endpoint, 2, DICOMPatientSex="F")  # of the undated ones, once the others have gone
    sync.run()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=1, changed=1)


def test_a_month_that_was_in_the_future_is_compared_with_its_own_sweep(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    sync = Sync(lake_settings)
    fill(endpoint, 9)
    for row in endpoint.image_sets:
        row["DICOMTags"]["DICOMStudyDate"] = "20260315"
    sync.run()
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=1)
    endpoint.now += timedelta(days=60)
    sync.run()
    list(sync.sweep_months({DATASTORE: ["2026-03"]}))
    sync.apply()
    assert reconciliation_check(sync.root).differing == ()
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=1)


@pytest.mark.parametrize(
    ("seconds", "undated"),
    [
        (0, False),
        (1, True),
        pytest.param(0, True, marks=pytest.mark.chaos),
        pytest.param(1, False, marks=pytest.mark.chaos),
    ],
)
def test_a_change_at_the_instant_of_the_sweep_is_no_difference(
    endpoint: Endpoint, lake_settings: Settings, seconds: int, undated: bool
) -> None:
    sync = Sync(lake_settings)
    fill(endpoint, 30)
    for row in endpoint.image_sets:
        row["DICOMTags"]["DICOMStudyDate"] = "" if undated else "20250115"
    sync.run()
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=1)
    endpoint.now += timedelta(hours=2)
    change(endpoint, 3, DICOMPatientSex="F")
    endpoint.image_sets[3]["updatedAt"] = endpoint.now.timestamp() + seconds
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(changed=1)
    endpoint.now += timedelta(hours=2)
    sync.run()
    assert reconciliation_check(sync.root) == Reconciliation(changed=1)
    sync.reconcile()
    assert reconciliation_check(sync.root) == Reconciliation(agreeing=1)


def test_states_lost_from_the_version_history_are_noticed(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    sync = Sync(lake_settings)
    fill(endpoint, 60)
    sync.run()
    sync.reconcile()
    (largest, *_) = sorted(
        files.paths(sync.root),
        key=lambda path: -files.read_record(sync.root, path).kept_rows,
    )
    sync.root.delete(largest)
    image_sets.rebuild(sync.root)
    lost = sync.status().agreement
    assert lost.differing
    assert set(lost.differing) <= {f"2025-{month:02}" for month in range(1, 13)}


def test_part_of_a_month_is_no_sweep_of_it(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers share a month: what one brings lands at once, though the other fails."""
    monkeypatch.setattr("cohortlake.ingest.extract._BATCH_BYTES", 0)
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    sync = Sync(replace(lake_settings, workers=2))
    fill(endpoint, 620)
    for number, row in enumerate(endpoint.image_sets):
        row["DICOMTags"]["DICOMStudyDate"] = f"202503{number // 20 + 1:02}"
    sync.run()

    _sweep_half(endpoint, sync, "2025-03", monkeypatch)
    never = sync.status().agreement
    assert (never.agreeing, never.changed, never.differing, never.unswept) == (0, 0, (), 1)

    _sweep(endpoint, sync, "2025-03")
    whole = sync.status().agreement
    assert (whole.agreeing, whole.changed, whole.differing, whole.unswept) == (1, 0, (), 0)

    _sweep_half(endpoint, sync, "2025-03", monkeypatch)
    since = sync.status().agreement
    assert (since.agreeing, since.changed, since.differing, since.unswept) == (0, 1, (), 0)


def _sweep(endpoint: Endpoint, sync: Sync, month: str) -> None:
    endpoint.now += timedelta(hours=2)
    change(endpoint, 615)  # of the month's last day
    try:
        list(sync.sweep_months({DATASTORE: [month]}))
    finally:
        sync.apply()


def _sweep_half(
    endpoint: Endpoint, sync: Sync, month: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the worker that began the month fail once the other's half of it has landed."""
    folder = Path(sync.root.uri_of(f"increments/{DATASTORE}/study_date/{month}"))
    before, search = {*folder.glob("*.parquet")}, endpoint.search

    def half(criteria: dict[str, Any], size: int, token: str | None) -> dict[str, Any]:
        first = criteria["filters"][0]["values"][0]["DICOMStudyDateAndTime"]["DICOMStudyDate"]
        if token is None or not month.replace("-", "") > first[:6]:
            return search(criteria, size, token)
        deadline = time.monotonic() + 30
        while {*folder.glob("*.parquet")} == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"no": "page"}

    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "search", half)
        with pytest.raises(ServiceUnavailable, match="broken pages"):
            _sweep(endpoint, sync, month)
    assert len({*folder.glob("*.parquet")} - before) == 1
