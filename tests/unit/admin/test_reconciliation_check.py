"""The reconciliation check reads some months at a time, and counts as if it read all at once."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from looks import DATASTORE, Looked, write

from cohortlake.admin import reconciliation_check
from cohortlake.admin.reconciliation_check import Reconciliation
from cohortlake.history import coverage, image_sets
from cohortlake.increments import writer
from cohortlake.increments.record import Record, content_hash
from cohortlake.ingest import partitions
from cohortlake.storage import engine
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
DATES = ("20250115", "20250215", "20250315", "20250415", "no date", None)


def _summary(number: int, version: int) -> dict[str, Any]:
    study = number % 5
    tags = {
        "DICOMStudyDate": DATES[(number + study * version) % len(DATES)],
        "DICOMStudyInstanceUID": f"1.{study}" if study else None,
        "DICOMSeriesInstanceUID": f"2.{number // 2}" if number % 7 else None,
        "DICOMNumberOfStudyRelatedSeries": (None, 3, 4, 5, 6)[study],
    }
    return {
        "imageSetId": f"{number:032x}",
        "version": version,
        "createdAt": START,
        "updatedAt": START + timedelta(hours=version),
        "DICOMTags": {name: value for name, value in tags.items() if value is not None},
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake whose studies lie in several months, and whose image sets moved and went."""
    root = Root(str(tmp_path_factory.mktemp("swept")))
    looks = [
        Looked(START + timedelta(hours=1, minutes=1), [_summary(n, 1) for n in range(40)]),
        Looked(
            START + timedelta(hours=2, minutes=1),
            [_summary(n, 2) for n in range(0, 40, 3)],
            [f"{n:032x}" for n in (1, 2, 20)],
        ),
    ]
    paths = write(root, looks)
    image_sets.apply(root, paths)
    for month, rows in _current(root).items():
        if month not in ("2025-04", "undated"):
            window = partitions.month_window(month)
            at = START + timedelta(hours=3 if month != "2025-03" else 1)
            keys = [row["state_key"] for row in rows][month == "2025-02" :]
            record = Record(
                DATASTORE, "study_date", month, window.start, window.end, at, f"sweep-{month}",
                rows=len(keys), content_hash=content_hash(keys), missing=0,
            )  # fmt: skip
            writer.write_empty(root, record)
            paths.append(record.path)
    coverage.record(root, paths)
    return root


def _current(root: Root) -> dict[str, list[dict[str, Any]]]:
    by_month: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with engine.connection() as con:
        image_sets.register(con, root)
        for row in con.sql("FROM current").to_arrow_table().to_pylist():
            by_month[row["study_month"]].append(row)
    return by_month


@pytest.mark.parametrize("group_rows", [1, 15, 500_000])
def test_groups_of_months_count_as_all_of_them(
    lake: Root, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation_check, "_GROUP_ROWS", group_rows)
    said, series = dict[str, int](), defaultdict[str, set[str]](set)
    for rows in _current(lake).values():
        for row in rows:
            if (study := row["StudyInstanceUID"]) and row["NumberOfStudyRelatedSeries"] is not None:
                said[study] = row["NumberOfStudyRelatedSeries"]
                series[study] |= {row["SeriesInstanceUID"]} - {None}
    assert reconciliation_check.reconciliation_check(lake) == Reconciliation(
        agreeing=1,
        differing=("2025-02",),
        changed=1,
        unswept=2,
        studies=4,
        studies_with_fewer_series=sum(len(series[study]) < said[study] for study in said),
        studies_with_more_series=sum(len(series[study]) > said[study] for study in said),
    )
    assert {len(series[study]) - said[study] for study in said} != {0}


def test_an_empty_lake_has_nothing_to_compare(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = Root(str(tmp_path_factory.mktemp("empty")))
    assert reconciliation_check.reconciliation_check(root) == Reconciliation()
