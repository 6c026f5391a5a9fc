"""What a search must stand over HTTP: hot instants, small memory, clocks, shared quotas."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import process_of
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from small_hospital import fill
from unpublished import assert_history_equals_truth, unpublished

from cohortlake import HealthImaging, Settings, Sync, search_image_sets
from cohortlake.errors import SettingError
from cohortlake.healthimaging import SearchProgress
from cohortlake.healthimaging.search_criteria import parse_criteria
from cohortlake.ingest.progress import PeriodicProgress, describe_search


@pytest.fixture(autouse=True)
def _unpublished() -> Iterator[None]:
    with unpublished():
        yield


def test_a_bulk_import_within_one_millisecond(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 2600)
    at = endpoint.created_at + 86400 * 7
    for row in endpoint.image_sets[300:2500]:
        row["updatedAt"] = row["createdAt"] = at
    outcome = Sync(lake_settings).run()
    assert outcome.rows == 2600, "each row once, though two workers read towards each other"
    assert_history_equals_truth(lake_settings.root, endpoint)


def test_a_sweep_of_a_busy_day(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 1500)
    for row in endpoint.image_sets[:1400]:
        row["DICOMTags"]["DICOMStudyDate"] = "20250311"
    Sync(lake_settings).run()
    gone = endpoint.image_sets.pop(700)
    endpoint.now += timedelta(hours=1)
    outcome = Sync(lake_settings).reconcile()
    assert outcome.applied.changes == {"deleted": 1}
    assert_history_equals_truth(lake_settings.root, endpoint)
    assert gone["imageSetId"] not in {row["imageSetId"] for row in endpoint.image_sets}


def test_rows_go_to_disk_as_they_come(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.ingest.extract._BATCH_BYTES", 1)
    monkeypatch.setattr("cohortlake.ingest.writer._BUFFERED_BYTES", 0)
    fill(endpoint, 600)
    for row in endpoint.image_sets:
        row["updatedAt"] = round(endpoint.created_at + row["updatedAt"] % 3600, 3)
    Sync(lake_settings).run()
    (written,) = [
        file
        for path in Path(lake_settings.root, "increments").rglob("*.parquet")
        if (file := pq.ParquetFile(path)).metadata.num_rows > 100
    ][:1]
    assert written.num_row_groups >= 3
    footer = json.loads(written.metadata.metadata[b"cohortlake"])
    assert footer["rows"] == written.metadata.num_rows
    assert footer["pages"] >= written.num_row_groups
    assert_history_equals_truth(lake_settings.root, endpoint)


def test_rows_newer_than_the_services_clock_wait_for_the_next_run(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 200)
    now = endpoint.now
    endpoint.now = datetime(2026, 1, 15, tzinfo=UTC)  # behind the hosts that wrote the rows
    first = Sync(lake_settings).run()
    behind = sum(row["updatedAt"] < endpoint.now.timestamp() for row in endpoint.image_sets)
    assert first.rows == behind < 200
    assert Sync(lake_settings).status().datastores[0].complete_until <= endpoint.now
    endpoint.now = now
    Sync(lake_settings).run()
    assert_history_equals_truth(lake_settings.root, endpoint)


@pytest.mark.parametrize("settings", [Settings(tps=0), Settings(tps=-1), Settings(burst=0)])
def test_no_quota_at_all_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingError, match="COHORTLAKE_TPS above 0"):
        HealthImaging(settings)


def test_processes_with_a_share_each_keep_within_the_quota(tmp_path: Path) -> None:
    options = {"synthetic": 4000, "quota": 60, "burst": 120, "latency_ms": 20}
    with emulated(seed=5, now="2026-06-01T12:00:00Z", clock="stopped", **options) as emulator:
        environment = os.environ | {
            "COHORTLAKE_DATASTORES": emulator.datastores[0],
            "COHORTLAKE_TPS": "60",
            "COHORTLAKE_SEARCHERS": "2",
        }
        runs = [
            subprocess.Popen(
                process_of("sync", "--json", "--root", str(tmp_path / name)),
                env=environment, stdout=subprocess.PIPE, text=True,
            )
            for name in ("one", "two")
        ]  # fmt: skip
        outcomes = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
        assert [outcome["rows"] for outcome in outcomes] == [4000, 4000]
        assert [outcome["throttles"] for outcome in outcomes] == [0, 0]


@pytest.mark.parametrize(
    ("equal", "between", "found"),
    [
        ([], ["StudyDate=2024-01-01..2024-01-31"], ["0130", "0131", "013112", "013123"]),
        ([], ["StudyDate=2024-01-01..2024-01-31T12:00"], ["0130", "0131", "013112"]),
        (["StudyDate=2024-01-31"], [], ["0131", "013112", "013123"]),
        (["StudyDate=2024-01-31T00:00"], [], ["0131"]),
        (["updatedAt=2024-02-03"], [], ["0130", "0131", "013112", "013123", "0201"]),
    ],
)
def test_a_search_finds_the_whole_of_its_last_day(
    equal: list[str], between: list[str], found: list[str]
) -> None:
    times = {"0130": "", "0131": "", "013112": "120000", "013123": "235959.999", "0201": ""}
    summaries = [
        {
            "DICOMTags": {
                "DICOMStudyId": name,
                "DICOMStudyDate": f"2024{name[:4]}",
                **({"DICOMStudyTime": time} if time else {}),
            }
        }
        for name, time in times.items()
    ]
    with emulated(now="2024-02-03T17:00:00Z", clock="stopped") as emulator:
        emulator.admin.import_summaries(summaries)
        emulator.admin.advance(days=1)
        service = HealthImaging(Settings(emulator.datastores, tps=1000))
        rows = search_image_sets(service, emulator.datastores[0], parse_criteria(equal, between))
    assert sorted(rows["StudyID"]) == found


def test_progress_is_described_in_words(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 400)
    told: list[SearchProgress] = []
    Sync(replace(lake_settings, tps=60, burst=1)).run(PeriodicProgress(told.append, 0.01))
    assert len(told) > 3
    assert [p.covered for p in told] == sorted(p.covered for p in told)
    assert [p.rows for p in told] == sorted(p.rows for p in told)
    last = told[-1]
    assert (last.covered, last.rows, last.rows_left, last.throttles) == (1.0, 400, 0, 0)
    assert Counter(p.requests <= 60 * p.seconds + 10 for p in told)[False] == 0
    words = describe_search(last, 60)
    assert words.startswith("100.0% of the time range, 400 rows, ")
    assert words.endswith(" of 60 requests/s, 0 throttled, about 0 rows to come")


def test_a_gap_within_a_day_closes_though_nothing_is_in_it(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 40)
    sync = Sync(lake_settings)
    store = sync.datastore(lake_settings.datastores[0])
    noon = datetime(2026, 1, 20, 12, tzinfo=UTC)
    for row in endpoint.image_sets:
        if noon - timedelta(days=1) < datetime.fromtimestamp(row["updatedAt"], UTC) < noon:
            row["updatedAt"] -= 3 * 86400
    due = sync.due(store)
    due["2026-01-20"] = [replace(due["2026-01-20"][0], start=noon)]  # as a killed run leaves it
    assert len(dict(sync.extract(store, due))) == len(due)
    sync.apply()
    (gap,) = sync.status().datastores[0].gaps
    assert (gap.start, gap.end) == (noon - timedelta(hours=12), noon)
    sync.run()
    assert sync.status().datastores[0].gaps == ()


def test_a_sweep_over_a_month_that_ends_at_its_last_instant(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search from 1 March also finds what lies at the end of 28 February."""
    fill(endpoint, 700)
    for number, row in enumerate(endpoint.image_sets):
        day, time = ("0228", "235959.999999") if number < 300 else (f"03{number % 31 + 1:02}", "12")
        row["DICOMTags"] |= {"DICOMStudyDate": f"2025{day}", "DICOMStudyTime": time}
    search_, latency = endpoint.search, 0.05  # long enough for idle workers to be given a share

    def slowly(criteria: dict[str, Any], size: int, token: str | None) -> dict[str, Any]:
        sleep(latency)
        return search_(criteria, size, token)

    monkeypatch.setattr(endpoint, "search", slowly)
    sync = Sync(replace(lake_settings, workers=16))
    swept = {key: s.search for _, key, s in sync.sweep_months({DATASTORE: ["2025-02", "2025-03"]})}
    assert {key: found.rows for key, found in swept.items()} == {"2025-02": 300, "2025-03": 400}
