"""Laws of publishing: what changed is published as if all had been, and nothing else is written."""

from __future__ import annotations

import shutil
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
from changing import STEPS, Hospital, image_set_id, published_rows
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings

from cohortlake.lake import publish
from cohortlake.lake.kinds import COMPARED
from cohortlake.lake.root import Root
from cohortlake.privacy import built_in


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_publishing_what_changed_gives_what_publishing_all_gives(
    tmp_path_factory: Any, steps: list[tuple[list[dict[str, Any]], list[int]]]
) -> None:
    root = Root(str(tmp_path_factory.mktemp("lake")))
    root.prepare()
    hospital = Hospital(root)
    for changes, gone in steps:
        hospital.step(changes, gone)
        publish.publish(root, built_in("identified"))
    little_by_little = published_rows(root)
    _assert_that_changed_fields_differ(little_by_little)

    shutil.rmtree(Path(root.path("published")))
    publish.publish(root, built_in("identified"))
    assert little_by_little == published_rows(root)


def _assert_that_changed_fields_differ(published: dict[str, list[dict[str, Any]]]) -> None:
    """Compare each state with the one before it, in whichever month they were published."""
    history = [row for path, rows in published.items() if "/history/" in path for row in rows]
    for own_id in {row["image_set_id"] for row in history}:
        own = [row for row in history if row["image_set_id"] == own_id]
        before = None
        for row in sorted(own, key=itemgetter("valid_from")):
            changed = before and [name for name in COMPARED if row[name] != before[name]]
            assert row["changed_fields"] == changed
            assert (row["kind"] == "created") == (before is None)
            before = row


def _change(number: int, **tags: Any) -> dict[str, Any]:
    study = {"DICOMStudyInstanceUID": f"1.{number % 3}", "DICOMSeriesInstanceUID": f"2.{number}"}
    where = {"DICOMPatientId": f"P{number % 3}", "DICOMStudyDate": f"2024{number % 3 + 1:02d}05"}
    return {"number": number, "isPrimary": True, **study, **where, **tags}


def test_a_state_that_moved_is_compared_with_one_in_a_month_that_is_not_written(
    tmp_path: Path,
) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    moved = {"DICOMStudyDate": "20250311"}
    for changes in ([_change(1)], [_change(1, **moved)], [_change(2)]):
        hospital.step(changes, [])
        publish.publish(root, built_in("identified"))
    study = {"DICOMStudyInstanceUID": "1.7", "DICOMSeriesInstanceUID": "2.7"}
    hospital.step([_change(7, **moved, **study)], [])
    last = publish.publish(root, built_in("identified"))
    assert last is not None
    written = [path for path in last.written if "/history/" in path]
    assert written == ["published/history/study_month=2025-03/history.parquet"]
    (row,) = duckdb.sql(
        f"FROM '{root.path(written[0])}' WHERE image_set_id = '{image_set_id(1)}'"
    ).to_arrow_table().to_pylist()  # fmt: skip
    assert row["kind"] == "moved"
    assert row["changed_fields"] == ["version", "updated_at", "StudyDate"]


def test_only_the_months_of_what_changed_are_written(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_change(number) for number in range(6)], [])
    first = publish.publish(root, built_in("limited"))
    assert first is not None
    assert len(first.written) == len(first.files) == 4 * 3 + 1

    hospital.step([_change(1, DICOMPatientSex="F")], [])
    second = publish.publish(root, built_in("limited"))
    assert second is not None
    assert sorted(second.written) == [
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("history", "image_sets")),
        "published/patients/patients.parquet",
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("series", "studies")),
    ]
    assert publish.publish(root, built_in("limited")) == publish.read_marker(root)
    untouched = [p for p in first.files if p not in second.written]
    assert all(second.files[path] == first.files[path] for path in untouched)


def test_a_compacted_memory_is_published_in_proportion_all_the_same(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_change(number) for number in range(6)], [])
    publish.publish(root, built_in("limited"))
    hospital.step([_change(1, DICOMPatientSex="F")], [])
    memory = DeltaTable(root.uri_of("image_sets"))
    assert memory.optimize.compact()["numFilesRemoved"] > 1
    compacted = publish.publish(root, built_in("limited"))
    assert compacted is not None
    assert len(compacted.written) == 5

    hospital.step([_change(2, DICOMPatientSex="F")], [])
    memory.update_incremental()
    memory.optimize.compact()
    memory.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    whole = publish.publish(root, built_in("limited"))
    assert whole is not None
    assert sorted(whole.written) == sorted(whole.files), "what was appended cannot be told any more"
