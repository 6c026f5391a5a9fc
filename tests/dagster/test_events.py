"""The events of Dagster say enough to operate a lake, and never the value of a tag."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from endpoint import DATASTORE, Endpoint

from cohortlake import Settings, Sync
from cohortlake.errors import AccessDenied, ServiceUnavailable
from cohortlake.history.image_sets import ApplyResult

from .conftest import Run
from .store import INCREMENTS, image_set

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CANARY = "CANARY"


def canary(number: int) -> dict[str, Any]:
    members = ("PatientId", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyId")
    values = {f"DICOM{member}": f"{CANARY}{number}" for member in members}
    return image_set(
        number, NOON, DICOMStudyDate=CANARY, DICOMNumberOfStudyRelatedSeries=CANARY, **values
    )


def told(instance: dg.DagsterInstance) -> str:
    """Everything in the event log."""
    return "\n".join(
        dg.serialize_value(event)
        for run in instance.get_runs()
        for event in instance.all_logs(run.run_id)
    )


class Broken(Sync):
    """Fails as a library underneath might, with a row's value in its text."""

    def apply(self) -> ApplyResult:
        raise ValueError(f"could not convert {CANARY}")


def test_events_have_no_value_of_a_tag_and_name_rows_and_columns(
    endpoint: Endpoint, lake: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    endpoint.image_sets = [canary(i) for i in range(3)]
    for job in ("tick", "reconcile_undated"):
        assert run(job).success
    assert CANARY not in told(instance)
    event = instance.get_latest_materialization_event(dg.AssetKey("published_image_sets"))
    metadata = event.asset_materialization.metadata
    assert metadata["dagster/row_count"].value == 3
    columns = {column.name for column in metadata["dagster/column_schema"].value.columns}
    assert "StudyDate" in columns
    assert "PatientName" not in columns, "only those that the policy shows"


def test_an_unexpected_error_shows_no_value_of_a_tag(
    endpoint: Endpoint, lake: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    result = run("tick", sync=Broken(Settings.from_env()))
    assert not result.success
    assert CANARY not in told(instance)
    (failure,) = result.get_step_failure_events()
    assert "ValueError in " in failure.step_failure_data.user_failure_data.description


def test_the_event_of_a_day_has_the_cost_of_its_search(
    endpoint: Endpoint, lake: Path, run: Run, instance: dg.DagsterInstance
) -> None:
    endpoint.image_sets = [image_set(0, NOON)]
    run("backfill", keys=(f"{DATASTORE}|2026-01-01", f"{DATASTORE}|2026-01-01"))
    event = instance.get_latest_materialization_event(INCREMENTS)
    told_of = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert told_of["dagster/row_count"] == 1
    assert told_of["requests"] == 1
    assert told_of["throttles"] == 0
    assert told_of["window_end"] == "2026-01-02T00:00:00+00:00"
    assert Path(told_of["path"]).is_file()


@pytest.mark.parametrize(
    ("error", "retried"), [(ServiceUnavailable("later"), True), (AccessDenied("a", "b"), False)]
)
def test_only_what_may_work_later_is_retried(
    deployment: ModuleType, error: Exception, retried: bool
) -> None:
    from assets.failures import RETRY, failures_told

    with pytest.raises(dg.Failure) as told_of, failures_told():
        raise error
    assert told_of.value.allow_retries is retried
    assert told_of.value.description == str(error)
    assert RETRY.max_retries > 0


def test_a_run_without_data_stores_says_what_to_set(
    endpoint: Endpoint, lake: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COHORTLAKE_DATASTORES")
    (failure,) = run("tick").get_step_failure_events()
    description = failure.step_failure_data.user_failure_data.description
    assert "COHORTLAKE_DATASTORES is not set" in description
