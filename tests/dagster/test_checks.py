from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint
from filled import FilledLake
from filled import filled as filled_lake

from cohortlake import Settings, Sync
from cohortlake.history import image_sets
from cohortlake.storage.root import Root

from .conftest import Run
from .store import checks, image_set

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST_MONTH = date(2025, 7, 1)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """A lake of four image sets, filled by the library alone: the checks look at the lake."""
    return filled_lake(tmp_path_factory.mktemp("four"), fill_and_sweep, first_month=FIRST_MONTH)


def fill_and_sweep(endpoint: Endpoint, sync: Sync) -> None:
    endpoint.image_sets = [image_set(i, NOON + i * timedelta(days=1)) for i in range(4)]
    sync.run()
    sync.reconcile()


@pytest.fixture
def filled(four: FilledLake, endpoint: Endpoint, lake: Path) -> Path:
    """The test's own copy of it."""
    four.copy_to(str(lake), endpoint)
    return lake


@pytest.fixture
def evaluate(deployment: ModuleType, instance: dg.DagsterInstance) -> Callable[[], dict[str, bool]]:
    """Run the checks alone, against the lake as it lies."""
    job = dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())
    defs = dg.Definitions.merge(deployment.defs, dg.Definitions(jobs=[job]))

    def execute() -> dict[str, bool]:
        return checks(defs.resolve_job_def("checks").execute_in_process(instance=instance))

    return execute


def failing(outcome: dict[str, bool]) -> set[str]:
    assert len(outcome) == 10
    return {name for name, passed in outcome.items() if not passed}


def rewrite(lake: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    (path,) = (lake / "published" / table).rglob("*.parquet")
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def test_a_lake_never_filled_is_not_complete_and_an_empty_one_is(
    endpoint: Endpoint, lake: Path, run: Run, evaluate: Callable[[], dict[str, bool]]
) -> None:
    assert failing(evaluate()) == {"coverage_is_complete"}
    assert run("tick").success
    assert not failing(evaluate())


def test_a_lake_that_fell_behind_is_not_complete(
    endpoint: Endpoint, filled: Path, evaluate: Callable[[], dict[str, bool]]
) -> None:
    endpoint.now += timedelta(hours=10)
    assert not failing(evaluate())
    endpoint.now += timedelta(days=2)
    assert failing(evaluate()) == {"coverage_is_complete"}


def test_an_image_set_with_two_rows_is_noticed(
    filled: Path, evaluate: Callable[[], dict[str, bool]]
) -> None:
    rewrite(filled, "image_sets", lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    assert failing(evaluate()) == {
        "each_image_set_once",
        "equals_version_history",
        "holds_all_states",
    }


def test_a_missing_state_is_noticed(filled: Path, evaluate: Callable[[], dict[str, bool]]) -> None:
    rewrite(filled, "history", lambda rows: rows.slice(1))
    assert failing(evaluate()) == {"holds_all_states"}


def test_states_lost_from_the_version_history_are_noticed(
    filled: Path, evaluate: Callable[[], dict[str, bool]]
) -> None:
    found = (filled / "increments").rglob("updated_at/**/*.parquet")
    max(found, key=lambda path: path.stat().st_size).unlink()
    image_sets.rebuild(Root(str(filled)))
    assert failing(evaluate()) == {"axes_agree"}, "and what is published shows an older version"


def test_what_sweeps_do_not_find_and_nobody_can_confirm_is_warned_of(
    endpoint: Endpoint, filled: Path, run: Run, evaluate: Callable[[], dict[str, bool]]
) -> None:
    endpoint.denied = {"GetImageSet"}
    del endpoint.image_sets[1]
    endpoint.now += timedelta(minutes=10)
    result = run("reconcile")
    told = [
        event.materialization.metadata["unconfirmed"].value
        for event in result.get_asset_materialization_events()
        if "unconfirmed" in event.materialization.metadata
    ]
    assert sum(told) == 1
    # The month holds one more than the sweep found, and nobody can tell which of them is right.
    assert failing(evaluate()) == {"axes_agree", "deletions_are_closed"}
    endpoint.denied = set()
    endpoint.now += timedelta(minutes=10)
    Sync(Settings.from_env()).reconcile()
    assert not failing(evaluate())


def test_an_import_job_that_failed_is_warned_of_and_a_missing_right_is_not(
    endpoint: Endpoint, filled: Path, evaluate: Callable[[], dict[str, bool]]
) -> None:
    failed = {"jobId": "a", "jobStatus": "FAILED", "submittedAt": endpoint.now.timestamp()}
    endpoint.import_jobs = [failed]
    assert failing(evaluate()) == {"imports_arrived"}
    endpoint.denied = {"ListDICOMImportJobs"}
    assert not failing(evaluate())


def test_many_invalid_dates_are_noticed_but_only_warned_of(
    endpoint: Endpoint, lake: Path, run: Run
) -> None:
    endpoint.image_sets = [image_set(i, NOON, DICOMStudyDate="20251399") for i in range(2)]
    result = run("tick")
    (warned,) = [c for c in result.get_asset_check_evaluations() if not c.passed]
    assert warned.check_name == "values_are_valid"
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.metadata["invalid_share_StudyDate"].value == 1.0
