"""What users of pandas do with a frame works with its dtypes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohortlake.flatten import to_frame, to_table, with_pandas_dtypes

TABLE = pa.table(
    {
        "day": pa.array([date(2024, 1, 1), date(1, 1, 2), None, date(9999, 12, 31)], pa.date32()),
        "at": pa.array([datetime(2024, 1, 1, 12, tzinfo=UTC), None] * 2, pa.timestamp("us", "UTC")),
        "text": ["a b", None, "b", "c"],
        "whole": pa.array([1, None, 2, 2**62 + 1], pa.int64()),
        "year": pa.array([2024, None, 2025, 2026], pa.int16()),
        "is_true": [True, None, False, True],
        "list": pa.array([["CT"], ["CT", "MR"], [], None], pa.list_(pa.string())),
        "clock": pa.array([time(12, 0), None, time(23, 59, 59, 999999), time(0)], pa.time64("us")),
        "real": [1.5, None, 2.0, 3.0],
    }
)
FIRST = pd.Timestamp("2024-01-01")


@pytest.fixture
def frame() -> pd.DataFrame:
    return to_frame(TABLE)


@pytest.mark.parametrize(
    ("ask", "rows"),
    [
        (lambda f: f[f.day >= "2024-01-01"], [0, 3]),
        (lambda f: f[f.day >= FIRST], [0, 3]),
        (lambda f: f[f.day == "2024-01-01"], [0]),
        (lambda f: f[f.day < pd.to_datetime(date(2024, 1, 2))], [0, 1]),
        (lambda f: f[f.day.between("1900-01-01", "2030-12-31")], [0]),
        (lambda f: f[f.day.isin([FIRST])], [0]),
        (lambda f: f[f.day.isin(pd.to_datetime(["2024-01-01"]))], [0]),
        (lambda f: f[f.day.dt.year == 2024], [0]),
        (lambda f: f[f.day.isna()], [2]),
        (lambda f: f.query("day >= '2024-01-01' and whole == 1"), [0]),
        (lambda f: f.sort_values("day").dropna(subset="day"), [1, 0, 3]),
        (lambda f: f.merge(pd.DataFrame({"day": [FIRST]}), on="day"), [0]),
        (lambda f: f[f["at"] >= "2024-01-01"], [0, 2]),
        (lambda f: f[f["at"] >= FIRST.tz_localize("UTC")], [0, 2]),
        (lambda f: f[f["at"].dt.tz_convert("Asia/Tokyo").dt.hour == 21], [0, 2]),
        (lambda f: f[f.text == "b"], [2]),
        (lambda f: f[f.text.isin(["b", "c"])], [2, 3]),
        (lambda f: f[f.text.str.contains("B", case=False)], [0, 2]),
        (lambda f: f[f.text.str.split(" ").str.len() == 2], [0]),
        (lambda f: f.merge(pd.DataFrame({"text": ["b"]}), on="text"), [0]),
        (lambda f: f[f.whole % 2 == 0], [2]),
        (lambda f: f[f.whole == 2**62 + 1], [3]),
        (lambda f: f[f.whole.isin([1, 2])], [0, 2]),
        (lambda f: f[f.year.between(2024, 2025)], [0, 2]),
        (lambda f: f[f.is_true], [0, 3]),
        (lambda f: f[~f.is_true], [2]),
        (lambda f: f[f.list.map(lambda found: "CT" in found, na_action="ignore") == True], [0, 1]),  # noqa: E712
        (lambda f: f[f.clock == time(12)], [0]),
        (lambda f: f[f.real > 1.6], [2, 3]),
    ],
)  # fmt: skip
def test_conditions_find_what_they_find_in_a_frame_of_pandas(
    frame: pd.DataFrame, ask: Callable[[pd.DataFrame], pd.DataFrame], rows: list[int]
) -> None:
    assert list(ask(frame).index) == rows


def test_frames_are_grouped_counted_and_reckoned_with(frame: pd.DataFrame) -> None:
    known = frame[frame["day"].dt.year == 2024]
    assert known.groupby(pd.Grouper(key="day", freq="YS")).size().to_dict() == {FIRST: 1}
    assert known.groupby(known["day"].dt.to_period("Q").astype(str)).size().to_dict() == {
        "2024Q1": 1
    }
    assert (known["day"] + pd.DateOffset(months=12)).tolist() == [pd.Timestamp("2025-01-01")]
    assert (known["day"] - FIRST).dt.days.tolist() == [0]
    assert frame.groupby("text", dropna=False).size().sum() == 4
    assert frame["whole"].head(3).sum() == 3
    assert frame["year"].mean() == 2025
    assert frame["real"].mean() == pytest.approx(6.5 / 3)
    assert frame.explode("list")["list"].dropna().tolist() == ["CT", "CT", "MR"]
    assert str(pd.concat([frame["text"], pd.Series(["z"])]).dtype) == "string"


def test_no_value_of_a_column_changes_its_type(frame: pd.DataFrame) -> None:
    assert frame["whole"].tolist()[0::3] == [1, 2**62 + 1]
    assert frame["whole"].iloc[1] is pd.NA
    assert [str(day.date()) for day in frame["day"].dropna()] == [
        "2024-01-01", "0001-01-02", "9999-12-31"
    ]  # fmt: skip
    again = to_table(frame)
    for name in TABLE.column_names:
        assert again[name].to_pylist() == TABLE[name].to_pylist()


def test_sums_of_duckdb_are_whole_numbers() -> None:
    decimals = pa.table(
        {
            "sum": pa.array([Decimal(3), None], pa.decimal128(38, 0)),
            "share": pa.array([Decimal("1.5"), None], pa.decimal128(4, 1)),
            "huge": pa.array([Decimal(10**30), None], pa.decimal128(38, 0)),
        }
    )
    frame = to_frame(decimals)
    assert frame["sum"].tolist() == [3, pd.NA]
    assert frame["share"].iloc[0] == 1.5
    assert frame["huge"].iloc[0] == Decimal(10**30)


def test_to_excel_takes_all_but_zones(frame: pd.DataFrame, tmp_path: Path) -> None:
    file: Any = tmp_path / "frame.xlsx"
    zoned = frame.select_dtypes("datetimetz").columns
    assert list(zoned) == ["at"]
    plain = frame.assign(**{name: frame[name].dt.tz_localize(None) for name in zoned})
    plain = plain[plain["day"].dt.year == 2024]
    plain.to_excel(file, index=False)
    read = pd.read_excel(file)
    assert read["day"].tolist() == [FIRST]
    assert read["at"].tolist() == [pd.Timestamp("2024-01-01 12:00")]
    assert read["whole"].tolist() == [1]


def test_plain_pandas_reads_a_file_with_nulls_in_the_dtypes_of_a_frame(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    pq.write_table(with_pandas_dtypes(TABLE), tmp_path / "a.parquet")
    read = pd.read_parquet(tmp_path / "a.parquet")
    same = ["text", "whole", "year", "is_true", "at", "real"]
    pd.testing.assert_frame_equal(read[same], frame[same])
    assert pd.to_datetime(read["day"]).tolist() == frame["day"].tolist()
    assert read["day"].dt.year.tolist() == [2024, 1, pd.NA, 9999]
    assert [value is not None and list(value) for value in read["list"]] == [
        ["CT"], ["CT", "MR"], [], False
    ]  # fmt: skip
    for backend in ("pyarrow", "numpy_nullable"):
        again = pd.read_parquet(tmp_path / "a.parquet", dtype_backend=backend)
        assert again["whole"].tolist() == frame["whole"].tolist()
    counted = duckdb.read_parquet(str(tmp_path / "a.parquet")).aggregate("sum(whole), max(day)")
    assert counted.fetchall() == [(2**62 + 4, date(9999, 12, 31))]
