"""What stands beside a date or an instant in a condition is one, or is refused at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake import Lake
from cohortlake.errors import BadCondition

SEEN = datetime(2026, 11, 1, tzinfo=UTC)
ROWS = [
    image_set(0, "p", "1.0", Modality="CT", StudyDate=date(2024, 1, 1), created_at=SEEN),
    image_set(1, "q", "1.1", Modality="MR", StudyDate=date(2024, 6, 30),
              created_at=datetime(2026, 10, 31, 23, 59, tzinfo=UTC)),
    image_set(2, "r", "1.2", Modality="CT"),
]  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    root = str(tmp_path_factory.mktemp("literals") / "lake")
    publish(root, ROWS)
    with cohortlake.open(root) as opened:
        yield opened


def members(lake: Lake, *conditions: str, **values: Any) -> set[str]:
    found = lake.cohort("a").where(*conditions, **values).to_pandas()
    return {uid.rsplit(".", 1)[1] for uid in found["StudyInstanceUID"]}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("StudyDate >= '20240201'", "1"),
        ("StudyDate >= '2024-02-01'", "1"),
        ("'20240201' <= StudyDate", "1"),
        ("StudyDate between '20231231' and '20240101'", "0"),
        ("StudyDate in ('20240101', '2024-06-30')", "01"),
        ("StudyDate not in ('20240101')", "1"),
        ("StudyDate <> '20240101'", "1"),
        ("StudyDate >= DATE '20240201'", "1"),
        ("StudyDate >= '20240201'::DATE", "1"),
        ("StudyDate >= TRY_CAST('20240201' AS DATE)", "1"),
        ("date_diff('day', '20240101', StudyDate) = 0", "0"),
        ("greatest(StudyDate, '20240201') = '20240201'", "02"),
        ("coalesce(StudyDate, '19000101') < '20240101'", "2"),
        ("NOT (StudyDate < '20240201')", "1"),
        ("Modality = 'CT' AND (StudyDate IS NULL OR StudyDate > '20240201')", "2"),
        ("first_created_at >= '2026-11-01'", "0"),
        ("first_created_at >= '20261101'", "0"),
        ("first_created_at >= '2026-11-01T00:00:00Z'", "0"),
        ("first_created_at >= '2026-11-01 01:00:00+01:00'", "0"),
        ("first_created_at >= DATE '20261101'", "0"),
        ("first_created_at < TIMESTAMPTZ '2026-11-01'", "12"),
    ],
)
def test_a_date_is_written_as_iso_or_as_dicom_does(lake: Lake, condition: str, found: str) -> None:
    assert members(lake, condition) == {*found}


@pytest.mark.parametrize(
    "text", ["2024-1-1", "2024-02-30", "20240230", "2024", "", " ", "202401", "01/02/2024",
             "2024-01-01T10:00:00Z", "today", "00000000"]
)  # fmt: skip
@pytest.mark.parametrize(
    "condition",
    [
        "StudyDate >= '{}'",
        "'{}' = StudyDate",
        "StudyDate BETWEEN '20240101' AND '{}'",
        "StudyDate IN ('20240101', '{}')",
        "StudyDate > CAST('{}' AS DATE)",
        "Modality = 'none' AND StudyDate > '{}'",
    ],
)
def test_a_text_that_is_no_date_is_refused_where_it_is_written(
    lake: Lake, condition: str, text: str
) -> None:
    with pytest.raises(BadCondition, match="write a date as 2024-01-31 or 20240131") as caught:
        lake.cohort("a").where(condition.format(text))
    assert re.search("StudyDate|cast to DATE", str(caught.value))
    assert not text.strip() or text not in str(caught.value).replace("2024-01-31 or 20240131", "")


@pytest.mark.parametrize(
    "condition",
    [
        "StudyDate = 20240101",
        "StudyDate >= TIMESTAMP '2024-01-01 10:00:00'",
        "StudyDate >= TIMESTAMPTZ '2024-01-01'",
        "first_created_at >= '2026'",
        "first_created_at >= 'yesterday'",
        "first_created_at >= ''",
        "first_created_at = 20261101",
        "year(StudyDate) = 'last'",
        "n_series = 'two'",
        "Modality = 'none' AND n_series = 'two'",
        "modalities = 'CT'",
        "StudyTime >= '1030'",
    ],
)
def test_whatever_else_fits_no_column_names_it(lake: Lake, condition: str) -> None:
    with pytest.raises(BadCondition, match=r"StudyDate|first_created_at|n_series|modalities|Time"):
        lake.cohort("a").where(condition)


def test_a_number_that_is_text_is_refused_by_its_column(lake: Lake) -> None:
    with pytest.raises(BadCondition, match="n_series"):
        lake.cohort("a").where(n_series="two")
