"""Cohorts as files: no text becomes a formula, and every value can be had back."""

from __future__ import annotations

import csv
import math
import re
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cohort.tiny import image_set, publish
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import examples

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import Criteria
from cohortlake.cohort.export import spreadsheet
from cohortlake.cohort.export.spreadsheet import write
from cohortlake.errors import ExportError, MissingExtra

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
PAYLOADS = [*(f"{sign}1+cmd|' /C calc'!A0" for sign in DANGEROUS), " =1", "'=1", "'", "#N/A", "1e5"]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXTS = st.sampled_from(PAYLOADS) | ANY_TEXT | st.tuples(
    st.sampled_from([*DANGEROUS, "'", "_x000D_"]), ANY_TEXT
).map("".join)  # fmt: skip
NUMBERS = st.none() | st.integers(1 - 10**15, 10**15 - 1)
ROWS = st.lists(st.tuples(st.none() | TEXTS, NUMBERS), min_size=1, max_size=5)
ONE_FOLDER = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=examples(60, quick=25),
)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def plain(cell: str) -> str:
    return cell.removeprefix("'")


def read_sheet(path: Path, name: str) -> list[list[Any]]:
    return [list(row) for row in openpyxl.load_workbook(path)[name].values]


def unescaped(text: str | None) -> str:
    return re.sub(r"_x([0-9A-F]{4})_", lambda found: chr(int(found[1], 16)), text or "")


def table(texts: list[str | None], numbers: list[int | None], name: str) -> pa.Table:
    rows = pa.array(range(len(texts)))  # a row of nothing is no row to who reads XLSX
    columns = [pa.array(texts, pa.string()), pa.array(numbers, pa.int64()), rows]
    return pa.table(columns, [name, "number", "row"])


@ONE_FOLDER
@given(ROWS, TEXTS)
def test_no_text_in_csv_is_a_formula_and_all_come_back(
    tmp_path: Path, rows: list[tuple[str | None, int | None]], name: str
) -> None:
    texts, numbers = map(list, zip(*rows, strict=True))
    path = tmp_path / "members.csv"
    write(path, {"members": table(texts, numbers, name)})
    head, *body = read_csv(path)
    assert plain(head[0]) == name
    assert not any(cell[0].startswith(DANGEROUS) for cell in (head, *body) if cell[0])
    assert [plain(cell) for cell, *_ in body] == [text or "" for text in texts]
    assert [cell for _, cell, _ in body] == ["" if n is None else str(n) for n in numbers]


@ONE_FOLDER
@given(ROWS, TEXTS)
def test_no_text_in_xlsx_is_a_formula_and_all_come_back(
    tmp_path: Path, rows: list[tuple[str | None, int | None]], name: str
) -> None:
    texts, numbers = map(list, zip(*rows, strict=True))
    path = tmp_path / "members.xlsx"
    write(path, {"members": table(texts, numbers, name)})
    sheet = openpyxl.load_workbook(path)["members"]
    (head, *_), *body = list(sheet.rows)
    assert unescaped(head.value) == name
    assert [unescaped(cell.value) for cell, *_ in body] == [text or "" for text in texts]
    assert [cell.value for _, cell, _ in body] == numbers
    for cell in (head, *(cell for cell, *_ in body)):
        assert cell.data_type in ("s", "n"), "a formula, or an error"
        assert cell.value is None or cell.data_type == "s"
        if (cell.value or "").startswith(("=", "+", "-", "@")):
            assert cell.quotePrefix


EVERY_TYPE = pa.table(
    {
        "date": pa.array([date(2020, 2, 29), date(1850, 1, 1), None]),
        "instant": pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None, None]),
        "time": pa.array([time(10, 15), None, None], pa.time64("us")),
        "truth": pa.array([True, False, None]),
        "share": pa.array([0.25, math.inf, 1e300]),
        "amount": pa.array([Decimal("1.50"), None, None]),
        "large": pa.array([2**60, -5, None]),
        "modalities": pa.array([["CT", "MR"], [], None]),
        "coded": pa.array(["=a", "b", None]).dictionary_encode(),
        "nothing": pa.nulls(3),
        "row": pa.array([1, 2, 3]),
    }
)


def test_every_kind_of_value_in_xlsx(tmp_path: Path) -> None:
    write(tmp_path / "all.xlsx", {"members": EVERY_TYPE})
    head, first, second, third = read_sheet(tmp_path / "all.xlsx", "members")
    assert head == EVERY_TYPE.column_names
    assert first == [
        datetime(2020, 2, 29),
        datetime(2026, 1, 2, 3, 4, 5),
        "10:15:00",
        True,
        0.25,
        1.5,
        str(2**60),
        "CT\\MR",
        "=a",
        None,
        1,
    ]
    assert second == ["1850-01-01", None, None, False, "inf", None, -5, None, "b", None, 2]
    assert third == [*[None] * 4, 1e300, *[None] * 5, 3]


EXACT = [  # what comes back as it was, and what as its text
    (date(1900, 3, 1), datetime(1900, 3, 1)),
    (date(1900, 2, 28), "1900-02-28"),
    (date(1899, 12, 31), "1899-12-31"),
    (datetime(2026, 1, 2, 23, 59, 59), datetime(2026, 1, 2, 23, 59, 59)),
    (datetime(2026, 1, 2, 23, 59, 59, 999999), "2026-01-02 23:59:59.999999"),
    (datetime(1900, 2, 28, 1), "1900-02-28 01:00:00"),
    (datetime(2026, 1, 2, 0, 0, 0, 1), "2026-01-02 00:00:00.000001"),
    (time(23, 59, 59, 999999), "23:59:59.999999"),
    (time(0), "00:00:00"),
    (timedelta(days=400, microseconds=1), "400 days, 0:00:00.000001"),
    (10**15 - 1, 10**15 - 1),
    (1 - 10**15, 1 - 10**15),
    (10**15, "1000000000000000"),
    (-(10**15), "-1000000000000000"),
    (2**53 + 1, "9007199254740993"),
    (Decimal("0.1"), 0.1),
    (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
    (Decimal("1234567890.12345"), 1234567890.12345),
    (Decimal("1234567890.123456"), "1234567890.123456"),
    (0.1 + 0.2, 0.1 + 0.2),
    (math.nan, "nan"),
]


@pytest.mark.parametrize(("value", "read"), EXACT)
def test_what_xlsx_cannot_give_back_is_text(tmp_path: Path, value: Any, read: Any) -> None:
    write(tmp_path / "one.xlsx", {"members": pa.table({"value": [value]})})
    ((_,), (back,)) = read_sheet(tmp_path / "one.xlsx", "members")
    assert (type(back), back) == (type(read), read)


NANOSECONDS = 1577836800000000001


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_nanoseconds_are_text(tmp_path: Path, suffix: str) -> None:
    types = (pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.time64("ns"), pa.duration("ns"))
    values = [NANOSECONDS, NANOSECONDS, 1001, 1001]
    columns = [
        pa.array([value, None], pa.int64()).cast(type_)
        for value, type_ in zip(values, types, strict=True)
    ]
    whole = pa.array([1_577_836_800_000_000_000, None], pa.int64()).cast(pa.timestamp("ns"))
    path = tmp_path / f"a{suffix}"
    write(path, {"members": pa.table([*columns, whole], list("abcde"))})
    read = read_csv(path) if suffix == ".csv" else read_sheet(path, "members")
    assert [*read[1][:4]] == [
        "2020-01-01 00:00:00.000000001",
        "2020-01-01 00:00:00.000000001Z",
        "00:00:00.000001001",
        "0 days 00:00:00.000001001",
    ]
    assert read[1][4] == (
        datetime(2020, 1, 1) if suffix == ".xlsx" else "2020-01-01 00:00:00.000000"
    )
    assert all({*row} <= {None, ""} for row in read[2:])


@ONE_FOLDER
@given(
    st.datetimes(datetime(1890, 1, 1), datetime(9999, 12, 31)),
    st.integers(-(2**62), 2**62),
    st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-99, max_value=99),
)
def test_every_value_in_xlsx_comes_back(
    tmp_path: Path, instant: datetime, number: int, amount: Decimal
) -> None:
    for moment in (instant, instant.replace(microsecond=0)):
        values = pa.table({"at": [moment], "day": [moment.date()], "n": [number], "d": [amount]})
        write(tmp_path / "all.xlsx", {"members": values})
        _, (at, day, n, d) = read_sheet(tmp_path / "all.xlsx", "members")
        assert (datetime.fromisoformat(at) if isinstance(at, str) else at) == moment
        assert date.fromisoformat(str(day)[:10]) == moment.date()
        assert int(n) == number
        assert Decimal(str(d)) == amount


def test_every_kind_of_value_in_csv(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", {"members": EVERY_TYPE})
    assert (tmp_path / "all.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    _, first, second, third = read_csv(tmp_path / "all.csv")
    assert first == [
        "2020-02-29",
        "2026-01-02 03:04:05.000000",
        "10:15:00.000000",
        "true",
        "0.25",
        "1.50",
        str(2**60),
        "CT\\MR",
        "'=a",
        "",
        "1",
    ]
    assert second == ["1850-01-01", "", "", "false", "inf", "", "-5", "", "b", "", "2"]
    assert third == [*[""] * 4, "1e+300", *[""] * 5, "3"]


@pytest.mark.parametrize(
    ("name", "rows", "says"),
    [
        ("m.xlsx", pa.table({"n": range(2**20)}), "1,048,576 rows .*1,048,576 .*csv or a .parquet"),
        ("m.xlsx", pa.table({"n": ["x" * 32_768]}), "longer than the 32,767 characters"),
        ("m.csv", pa.table({"n": [{"a": 1}]}), "'n' is of type struct.*leave it out"),
        ("m.xls", pa.table({"n": [1]}), "'m.xls' must end in .csv, .xlsx, .parquet"),
        ("no/m.csv", pa.table({"n": [1]}), "cannot write .*No such file.*name a folder"),
        ("no/m.xlsx", pa.table({"n": [1]}), "cannot write .*No such file.*name a folder"),
        ("no/m.parquet", pa.table({"n": [1]}), "cannot write .*No such file.*name a folder"),
        ("file/m.csv", pa.table({"n": [1]}), "cannot write .*Not a directory"),
    ],
)
def test_what_cannot_be_written_says_why_and_leaves_nothing(
    tmp_path: Path, name: str, rows: pa.Table, says: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=says):
        write(tmp_path / name, {"members": rows})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_sheet_is_one_row_below_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheet, "MOST_ROWS", 3)
    write(tmp_path / "m.xlsx", {"members": pa.table({"n": [1, 2]})})
    assert len(read_sheet(tmp_path / "m.xlsx", "members")) == 3
    with pytest.raises(ExportError):
        write(tmp_path / "m.xlsx", {"members": pa.table({"n": [1, 2, 3]})})
    assert len(read_sheet(tmp_path / "m.xlsx", "members")) == 3, "the old file stays"


def test_without_openpyxl_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=r"openpyxl.*cohortlake\[xlsx\]"):
        write(tmp_path / "m.xlsx", {"members": pa.table({"n": [1]})})


def test_a_cohort_is_exported_with_its_attrition_and_where_it_is_from(
    hospital: Lake, tmp_path: Path
) -> None:
    cohort = hospital.cohort("ct", about="=1+1").where(Modality="CT").first_study_per_patient()
    expected = cohort.to_pandas()
    for suffix in ("csv", "xlsx", "parquet"):
        assert cohort.export(str(tmp_path / f"ct.{suffix}")) == len(expected) > 10
    assert pq.read_table(tmp_path / "ct.parquet").equals(cohort.to_arrow())
    in_pandas = pd.read_parquet(tmp_path / "ct.parquet")
    assert in_pandas["days_since_previous"].isna().any()
    assert str(in_pandas["days_since_previous"].dtype) == "Int64"

    keys = expected["patient_key"].tolist()
    for rows in (read_csv(tmp_path / "ct.csv"), read_sheet(tmp_path / "ct.xlsx", "members")):
        assert rows[0] == list(expected.columns)
        at = rows[0].index("patient_key")
        assert [row[at] for row in rows[1:]] == keys

    head, *steps = read_sheet(tmp_path / "ct.xlsx", "attrition")
    counted = cohort.attrition().to_pandas()
    assert head == list(counted.columns)
    assert steps == counted.to_numpy().tolist()
    told = [tuple(row) for row in read_sheet(tmp_path / "ct.xlsx", "provenance")]
    assert ("policy", "limited") in told
    assert ("published_at", hospital.opened.publication.published_at) in told
    yaml = "\n".join(value for what, value in told if what == "criteria")
    assert Criteria.from_yaml(yaml) == cohort.criteria


def test_a_formula_from_a_tag_stays_text(root: str, tmp_path: Path) -> None:
    formula = "=HYPERLINK(A1)"
    publish(root, [image_set(0, "p", "1.1", Modality="CT", BodyPartExamined=formula)])
    with cohortlake.open(root) as lake:
        cohort = lake.cohort("all", level="series").where("Modality = 'CT'")
        cohort.export(tmp_path / "all.csv")
        cohort.export(tmp_path / "all.xlsx")
    assert f"'{formula}" in read_csv(tmp_path / "all.csv")[1]
    (cell,) = (
        cell
        for row in openpyxl.load_workbook(tmp_path / "all.xlsx")["members"].rows
        for cell in row
        if cell.value == formula
    )
    assert (cell.data_type, cell.quotePrefix) == ("s", True)
