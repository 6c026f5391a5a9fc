from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from unpublished import unpublished

from cohortlake import HealthImaging, Settings, Sync, read_table
from cohortlake.errors import AccessDenied
from cohortlake.healthimaging import Page
from cohortlake.privacy.key_store import KEY_PATH
from cohortlake.schema import PUBLISHED

from .conftest import Run
from .store import INCREMENTS, checks, days, image_set, published_ids

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def fill(endpoint: Endpoint, count: int) -> None:
    endpoint.image_sets = [image_set(i, NOON + i * DAY) for i in range(count)]


class Denying(HealthImaging):
    """Answers so many pages and then no more, for a reason that no retry mends."""

    def __init__(self, settings: Settings, pages: int) -> None:
        super().__init__(settings)
        self.pages = pages

    def search_page(self, datastore_id: str, *args: Any, **kwargs: Any) -> Page:
        self.pages -= 1
        if self.pages < 0:
            raise AccessDenied("medical-imaging:SearchImageSets", f"data store {datastore_id}")
        return super().search_page(datastore_id, *args, **kwargs)


def denied_after(pages: int) -> Sync:
    settings = Settings.from_env()
    return Sync(settings, Denying(settings, pages))


def searches(lake: Path) -> Counter[str]:
    """How many increments each day has."""
    folder = lake / "increments" / DATASTORE / "updated_at"
    return Counter(path.parent.name for path in folder.glob("*/*.parquet"))


def test_a_range_of_days_is_one_run(
    endpoint: Endpoint, run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    fill(endpoint, 20)
    result = run("backfill", keys=(f"{DATASTORE}|2026-01-03", f"{DATASTORE}|2026-01-12"))
    assert result.success
    assert days(instance) == {f"2026-01-{day:02}" for day in range(3, 13)}
    assert len(published_ids(lake)) == 10
    assert instance.get_runs_count() == 1


def test_a_day_without_a_window_is_on_record(
    endpoint: Endpoint, lake: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    fill(endpoint, 3)
    result = run("backfill", keys=(f"{DATASTORE}|2025-12-30", f"{DATASTORE}|2026-01-02"))
    assert result.success
    assert days(instance) == {"2025-12-30", "2025-12-31", "2026-01-01", "2026-01-02"}


def test_a_data_store_that_fails_holds_up_no_other(
    endpoint: Endpoint,
    run: Run,
    instance: dg.DagsterInstance,
    lake: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = "f" * 32
    monkeypatch.setenv("COHORTLAKE_DATASTORES", f"{unknown},{DATASTORE}")
    fill(endpoint, 3)
    result = run("backfill")
    assert not result.success
    (failed,) = [e for e in result.all_events if e.is_step_failure]
    assert failed.step_failure_data.error_display_string.count(f"no data store {unknown}") == 1
    assert len(days(instance)) == 32


def test_a_new_lake_is_filled_by_a_run_that_names_nothing(
    endpoint: Endpoint, run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    fill(endpoint, 20)
    result = run("backfill")
    assert result.success
    assert len(days(instance)) == 32
    assert len(published_ids(lake)) == 20
    assert all(checks(result).values())
    assert len(checks(result)) == 10


@pytest.fixture
def seventy_days(endpoint: Endpoint) -> None:
    first = NOON - 40 * DAY
    endpoint.created_at = first.timestamp()
    endpoint.image_sets = [image_set(i, first + i * DAY) for i in range(70)]


@pytest.mark.usefixtures("seventy_days")
def test_rows_written_before_a_failure_stay_and_the_next_run_does_the_rest(
    run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    assert not run("backfill", sync=denied_after(1)).success
    landed = days(instance)
    assert 10 < len(landed) < 60
    begun = set(searches(lake)) - landed
    assert landed < set(searches(lake))
    assert len(begun) <= 1, "the day that its only worker had come to"

    assert run("backfill").success
    assert len(days(instance)) == 72
    assert len(published_ids(lake)) == 70
    assert {searches(lake)[day] for day in landed} == {1}, "what landed is not asked for again"


@pytest.mark.usefixtures("seventy_days")
def test_a_range_that_failed_is_finished_by_running_it_again(
    run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    keys = (f"{DATASTORE}|2025-11-25", f"{DATASTORE}|2026-01-24")
    assert not run("backfill", keys=keys, sync=denied_after(1)).success
    assert 10 < len(days(instance)) < 55
    assert run("backfill", keys=keys).success
    assert len(days(instance)) == len(published_ids(lake)) == 61


def test_a_tick_takes_everything_since_the_last_one(
    endpoint: Endpoint, run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    assert run("tick").success
    endpoint.now += 5 * DAY
    endpoint.image_sets = [
        image_set(i, datetime(2026, 2, 1 + i, 1 + i, tzinfo=UTC)) for i in range(6)
    ]
    # The first of them changed before the last tick, but was not searchable then.
    endpoint.image_sets[0]["updatedAt"] = datetime(2026, 2, 1, 11, 59, tzinfo=UTC).timestamp()
    before = days(instance)
    assert run("tick").success
    assert days(instance) - before == {f"2026-02-{day:02}" for day in range(2, 7)}
    assert len(published_ids(lake)) == 6


def test_a_tick_with_nothing_new_writes_nothing_whatever_dagster_remembers(
    endpoint: Endpoint, run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    fill(endpoint, 3)
    Sync(Settings.from_env()).run()
    files = sorted(lake.rglob("*.parquet"))
    sent = len(endpoint.requests)
    with dg.DagsterInstance.ephemeral() as another:
        for number, on in enumerate((instance, another), 1):
            assert run("tick", on=on).success
            assert sorted(lake.rglob("*.parquet")) == files
            assert len(endpoint.requests) == sent + number


@pytest.mark.parametrize(
    ("job", "study_date"), [("reconcile", "20251215"), ("reconcile_undated", "")]
)
def test_reconciling_closes_what_is_gone(
    endpoint: Endpoint,
    run: Run,
    lake: Path,
    job: str,
    study_date: str,
) -> None:
    fill(endpoint, 3)
    for row in endpoint.image_sets:
        row["DICOMTags"]["DICOMStudyDate"] = study_date
    Sync(Settings.from_env()).run()
    gone = endpoint.image_sets.pop()["imageSetId"]
    endpoint.now += timedelta(hours=1)
    result = run(job)
    assert result.success
    assert all(checks(result).values())
    assert gone not in published_ids(lake)
    history = read_table(str(lake), "history")
    assert set(history.loc[history["ended_by"] == "deleted", "image_set_id"]) == {gone}


@pytest.mark.parametrize(
    ("job", "study_date"), [("reconcile", "20251215"), ("reconcile_undated", "")]
)
def test_a_data_store_with_too_much_gone_holds_up_no_other(
    lake: Path,
    run: Run,
    instance: dg.DagsterInstance,
    job: str,
    study_date: str,
) -> None:
    month, now = date(2025, 10, 1), "2026-01-01T12:00:00Z"
    with emulated(first_month=month, datastores=2, now=now, clock="stopped") as emulator:
        sync = Sync(replace(Settings.from_env(), datastores=tuple(emulator.datastores)))
        first, second = emulator.datastores
        summaries = [{"DICOMTags": {"DICOMStudyDate": study_date}} for _ in range(20)]
        ids = {
            store: emulator.admin.import_summaries(summaries, datastore_id=store)
            for store in (first, second)
        }
        emulator.admin.advance(days=1)
        with unpublished():
            sync.run()
        for store, count in ((first, 15), (second, 2)):
            for image_set_id in ids[store][:count]:
                emulator.admin.delete(image_set_id, datastore_id=store)
        emulator.admin.advance(days=1)

        (failure,) = run(job, sync=sync).get_step_failure_events()
        description = failure.step_failure_data.user_failure_data.description
        assert f"data store {first}: more of what the lake holds" in description
        asset = "study_date_sweeps" if job == "reconcile" else "undated_sweeps"
        recorded = instance.get_materialized_partitions(dg.AssetKey(asset))
        assert {key.split("|")[0] for key in recorded} == {first, second}
        assert sync.apply().changes == {"deleted": 2}


def test_one_data_store_can_be_swept_alone(
    endpoint: Endpoint, lake: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    assert run("reconcile_undated", keys=(DATASTORE, DATASTORE)).success
    assert instance.get_materialized_partitions(dg.AssetKey("undated_sweeps")) == {DATASTORE}


def test_study_months_can_be_had_before_all_others(
    endpoint: Endpoint, run: Run, instance: dg.DagsterInstance, lake: Path
) -> None:
    fill(endpoint, 3)
    endpoint.image_sets[1]["DICOMTags"]["DICOMStudyDate"] = "20210301"
    assert run("reconcile", keys=(f"{DATASTORE}|2025-11", f"{DATASTORE}|2025-12")).success
    assert len(published_ids(lake)) == 2
    assert len(instance.get_materialized_partitions(dg.AssetKey("study_date_sweeps"))) == 2


def test_dagster_and_the_library_leave_the_same_rows(
    endpoint: Endpoint,
    run: Run,
    instance: dg.DagsterInstance,
    lake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(endpoint, 20)
    assert run("tick").success
    records = instance.fetch_materializations(INCREMENTS, limit=100).records
    recorded = [record.partition_key for record in records if record.partition_key]
    assert len(recorded) == len(set(recorded)) == 32, "each day is recorded once"

    monkeypatch.setenv("COHORTLAKE_ROOT", str(tmp_path / "other"))
    alone = Sync(Settings.from_env())
    alone.root.write(KEY_PATH, (lake / KEY_PATH).read_bytes())
    alone.run()
    for table in PUBLISHED:
        by = [c.name for c in PUBLISHED[table] if c.name in ("StudyInstanceUID", "patient_key")]
        frames = [read_table(str(root), table) for root in (lake, tmp_path / "other")]
        one, other = (frame.sort_values(by, ignore_index=True) for frame in frames)
        assert len(one) or table in ("series_headers", "earlier_headers")
        pd.testing.assert_frame_equal(one, other)


def test_a_run_that_is_ended_keeps_what_came(endpoint: Endpoint, run: Run, lake: Path) -> None:
    fill(endpoint, 25)
    for number in range(25, 400):
        endpoint.image_sets.append(image_set(number, NOON + timedelta(minutes=number)))
    answer, asked, released = endpoint.search, itertools.count(), threading.Event()

    def ended_at_the_fourth(*request: Any) -> dict[str, Any]:
        if next(asked) == 3:
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            released.wait(60)
        return answer(*request)

    endpoint.search = ended_at_the_fourth  # type: ignore[method-assign]
    ended = run("tick")
    assert not ended.success
    (failure,) = [e for e in ended.all_events if e.event_type_value == "STEP_FAILURE"]
    assert "somebody ended the run; what had come is kept" in str(failure.step_failure_data.error)
    released.set()
    endpoint.search = answer  # type: ignore[method-assign]
    assert Sync(Settings.from_env()).apply().changes == {"created": 150}
    Sync(Settings.from_env()).run()
    assert len(published_ids(lake)) == 400
