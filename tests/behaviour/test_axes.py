"""What the updatedAt axis brought, compared with what the sweeps by study date found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from endpoint import Endpoint
from small_hospital import change, fill

from cohortlake import Settings, Sync
from cohortlake.lake import image_sets, increments
from cohortlake.lake.axes import Agreement, agreement
from emulator import running


def test_the_axes_agree_until_something_changes(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    sync = Sync(lake_settings)
    assert agreement(sync.root) == Agreement()
    fill(endpoint, 90)  # of thirty studies three have no date, the others lie in eleven months
    for row in endpoint.image_sets:
        row["DICOMTags"]["DICOMNumberOfStudyRelatedSeries"] = 3
    endpoint.image_sets[4]["DICOMTags"]["DICOMNumberOfStudyRelatedSeries"] = 5
    sync.run()
    before = agreement(sync.root)
    assert (before.agreeing, before.changed, before.differing) == (0, 0, ())
    swept_months = before.unswept - 1  # `undated` is no study month
    assert (before.studies, before.studies_with_fewer_series) == (30, 1)

    endpoint.now += timedelta(hours=2)
    del endpoint.image_sets[7]
    sync.reconcile()
    after = agreement(sync.root)
    assert (after.agreeing, after.changed, after.differing) == (swept_months, 0, ())
    assert after.studies_with_fewer_series == 2

    endpoint.now += timedelta(hours=2)
    change(endpoint, 20, DICOMPatientSex="F")
    sync.run()
    changed = agreement(sync.root)
    assert (changed.agreeing, changed.changed) == (swept_months - 1, 1)


@pytest.mark.parametrize("undated_match", [False, True])
def test_a_date_in_the_old_form_is_swept_with_the_undated(
    undated_match: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No day's search may find it, or every day's: its own month is compared without it."""
    dates = ["20240110", "2024.01.15", "20240120", "20240220 ", "20240225"]
    summaries = [{"DICOMTags": {"DICOMStudyDate": text}} for text in dates]
    with running(undated_match=undated_match) as emulator:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        emulator.admin.import_summaries(summaries)
        emulator.admin.advance(days=1)
        sync = Sync(
            Settings(emulator.datastores, str(tmp_path / "lake"), tps=1000, privacy="limited")
        )
        sync.run()
        sync.reconcile()
        both = sync.status().agreement
        assert (both.differing, both.agreeing, both.unswept) == ((), 2, 1)
        emulator.admin.delete(next(
            s["imageSetId"] for s in emulator.admin.truth()
            if s["DICOMTags"]["DICOMStudyDate"] == "2024.01.15"
        ))  # fmt: skip
        emulator.admin.advance(days=1)
        assert sync.reconcile().applied.changes == {"deleted": 1}
        assert sync.status().agreement.differing == ()


def test_what_the_memory_has_lost_is_seen(endpoint: Endpoint, lake_settings: Settings) -> None:
    sync = Sync(lake_settings)
    fill(endpoint, 60)
    sync.run()
    sync.reconcile()
    (largest, *_) = sorted(
        increments.paths(sync.root),
        key=lambda path: -increments.read_record(sync.root, path).kept_rows,
    )
    sync.root.delete(largest)
    image_sets.rebuild(sync.root)
    lost = sync.status().agreement
    assert lost.differing
    assert set(lost.differing) <= {f"2025-{month:02}" for month in range(1, 13)}
