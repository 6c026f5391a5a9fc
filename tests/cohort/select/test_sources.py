"""Tables from outside: what is taken, which types a CSV file gets, and what is said of keys."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import Criteria
from cohortlake.cohort.cohort import draw
from cohortlake.cohort.freeze import digest
from cohortlake.cohort.select.sources import read
from cohortlake.errors import BadCondition, BadOutsideTable

DAY = date(2024, 1, 1)
FRAME = pd.DataFrame({"patient_key": ["p0", "p1"], "grade": [1, 2]})
SECRET = "Canary^Bird"  # noqa: S105 - a name that no message may hold


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("sources") / "lake")
    rows = [
        image_set(10 * k + n, f"p{k}", f"1.{k}.{n}", StudyDate=DAY + timedelta(days=30 * n))
        for k in range(4)
        for n in range(4)
    ]
    publish(root, rows)
    return root


@pytest.fixture
def lake(root: str) -> Iterator[Lake]:
    with cohortlake.open(root) as opened:
        yield opened


class Stream:
    """What no library knows, with Arrow's C stream interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class Interchange:
    """The older interface for frames."""

    def __dataframe__(self, *_: Any, **__: Any) -> object:
        with warnings.catch_warnings(action="ignore"):  # pandas will give it up
            return FRAME.__dataframe__()


def sources(lake: Lake, folder: Path) -> dict[str, Any]:
    table = pa.Table.from_pandas(FRAME)
    FRAME.to_csv(folder / "a.csv", index=False)
    FRAME.to_csv(folder / "semicolons.csv", index=False, sep=";")
    (folder / "bom.csv").write_text("\ufeff" + FRAME.to_csv(index=False), "utf-8")
    hive = folder / "grade=9" / "[x]*"
    hive.mkdir(parents=True)
    pq.write_table(table, hive / "a.parquet")
    large = pa.schema([("patient_key", pa.large_string()), ("grade", pa.int64())])
    values = "SELECT * FROM (VALUES ('p0', 1), ('p1', 2)) AS t(patient_key, grade)"
    views = table.cast(pa.schema([("patient_key", pa.string_view()), ("grade", pa.int64())]))
    return {
        "pandas": FRAME,
        "pandas with categories": FRAME.astype({"patient_key": "category"}),
        "pandas backed by Arrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
        "table": table,
        "batch": table.to_batches()[0],
        "reader": table.to_reader(),
        "stream": Stream(table),
        "views": Stream(views),
        "large text": table.cast(large),
        "interchange": Interchange(),
        "rows of the lake": lake.sql(values),
        "DuckDB": lake.connection.sql(values),
        "dict": {"patient_key": ["p0", "p1"], "grade": (1, 2)},
        "dict of arrays": {"patient_key": pa.array(["p0", "p1"]), "grade": np.array([1, 2])},
        "dict of series": {"patient_key": FRAME["patient_key"], "grade": FRAME["grade"]},
        "list of dicts": FRAME.to_dict("records"),
        "CSV": folder / "a.csv",
        "CSV with semicolons": str(folder / "semicolons.csv"),
        "CSV with a mark of its encoding": folder / "bom.csv",
        "Parquet in odd folders": os.fspath(hive / "a.parquet"),
    }  # fmt: skip


def test_all_that_has_columns_is_taken(lake: Lake, tmp_path: Path) -> None:
    for kind, source in sources(lake, tmp_path).items():
        attached = lake.attach("registry", source)
        assert (attached.rows, attached.matched, attached.nearly) == (2, 2, 0), kind
        assert lake.outside["registry"].to_pylist() == FRAME.to_dict("records"), kind
        found = lake.cohort("a").join("registry").where(grade=2).to_pandas()
        assert set(found["patient_key"]) == {"p1"}, kind


def test_polars_frames_are_taken(lake: Lake) -> None:
    polars = pytest.importorskip("polars", reason="polars is none of the development extras")
    lake.attach("registry", polars.DataFrame(FRAME.to_dict("list")))
    assert lake.outside["registry"].to_pylist() == FRAME.to_dict("records")


KEYS = ["p0", "p1"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"patient_key": KEYS, "x": [1, SECRET]}, "'x' holds values of several kinds"),
        (pd.DataFrame({"patient_key": KEYS, "x": [1, SECRET]}), "'x' holds values of several"),
        (pd.DataFrame({"patient_key": KEYS, "x": [{"a": 1}, SECRET]}), "'x' holds values"),
        ([{"patient_key": "p0", "x": SECRET}, {"patient_key": "p1", "x": 1}], "'x' holds values"),
        ({"patient_key": KEYS, "x": [object(), object()]}, "'x' holds values"),
        (pd.DataFrame([["p0", 1, 2]], columns=["patient_key", "x", "x"]), "'x' is the name of two"),
        (pa.Table.from_arrays([pa.array(KEYS), pa.array(KEYS)], names=["patient_key"] * 2), "two"),
        (pd.DataFrame([["p0", 1]], columns=["patient_key", 7]), "name is no text"),
        ({"patient_key": KEYS, "x": [1]}, "not equally long"),
        ({"patient_key": KEYS, "x": SECRET}, "'x' is no list"),
        ({"patient_key": KEYS, "x": 3}, "'x' is no list"),
        ({"patient_key": KEYS, "x": pa.array([b"a", b"b"]).cast(pa.binary()),
          "X": [1, 2]}, "'X' is already a column"),
        ({"patient_key": [1, 2]}, "patient_key must be text"),
        ({"patient_key": ["p0", None]}, "have no patient_key"),
        ({"patient_key": ["p0", "p0"]}, "repeat a patient_key"),
        ({"patient_kye": KEYS}, "did you mean"),
        ([], "no column 'patient_key'"),
        ({}, "no column 'patient_key'"),
        (pa.chunked_array([KEYS]), "cannot be read as a table"),
        (pd.Series(KEYS), "cannot be read as a table"),
        (iter([SECRET]), "is no table; give a pandas"),
        (7, "a int is no table"),
        ([SECRET], "is no table"),
        (None, "is no table"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_table_is_told_without_a_cell(lake: Lake, source: Any, says: str) -> None:
    with pytest.raises(BadOutsideTable, match=says) as refused:
        lake.attach("registry", source)
    error: BaseException | None = refused.value
    while error:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


def csv(folder: Path, *lines: str) -> Path:
    path = folder / "registry.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("texts", "type_", "values"),
    [
        (["2024-01-31", "2024-02-01"], pa.date32(), [date(2024, 1, 31), date(2024, 2, 1)]),
        (["20240131", "20240201"], pa.date32(), [date(2024, 1, 31), date(2024, 2, 1)]),
        (["20240131", ""], pa.date32(), [date(2024, 1, 31), None]),
        (["03/04/2024", "31/12/2024"], pa.string(), ["03/04/2024", "31/12/2024"]),
        (["03/04/2024", "03/04/2024"], pa.string(), ["03/04/2024"] * 2),
        (["03/04/24", "13/04/24"], pa.string(), ["03/04/24", "13/04/24"]),
        (["2024-01-31", "31.01.2024"], pa.string(), ["2024-01-31", "31.01.2024"]),
        (["2024-02-30", "2024-01-01"], pa.string(), ["2024-02-30", "2024-01-01"]),
        (["2024-1-5", "2024-01-05"], pa.string(), ["2024-1-5", "2024-01-05"]),
        (["0123", "123"], pa.string(), ["0123", "123"]),
        (["1", "-20"], pa.int64(), [1, -20]),
        (["1.50", "2"], pa.float64(), [1.5, 2]),
        (["1e-05", "2"], pa.float64(), [1e-5, 2]),
        (["12E3", "2"], pa.string(), ["12E3", "2"]),
        (["1,5", "2"], pa.string(), ["1,5", "2"]),
        (["1_000", "2"], pa.string(), ["1_000", "2"]),
        (["+1", "2"], pa.string(), ["+1", "2"]),
        ([" 1", "2"], pa.string(), [" 1", "2"]),
        (["12345678901234567890", "1"], pa.float64(), [12345678901234567890.0, 1]),
        (["1" * 400, "1"], pa.string(), ["1" * 400, "1"]),
        (["NaN", "1"], pa.string(), ["NaN", "1"]),
        (["true", "False"], pa.bool_(), [True, False]),
        (["yes", "no"], pa.string(), ["yes", "no"]),
        (["12:30", "10:15"], pa.string(), ["12:30", "10:15"]),
        (["", ""], pa.string(), [None, None]),
        (["2024-01-31T10:00:00", "2024-01-31 11:00"], pa.timestamp("us"),
         [datetime(2024, 1, 31, 10), datetime(2024, 1, 31, 11)]),
        (["2024-01-31T10:00:00Z", "2024-01-31T10:00:00+05:30"], pa.timestamp("us", "UTC"),
         [datetime(2024, 1, 31, 10, tzinfo=UTC), datetime(2024, 1, 31, 4, 30, tzinfo=UTC)]),
        (["2024-01-31T10:00:00Z", "2024-01-31T10:00:00"], pa.string(),
         ["2024-01-31T10:00:00Z", "2024-01-31T10:00:00"]),
    ],
)  # fmt: skip
def test_a_csv_files_text_is_a_type_only_where_all_of_it_is(
    lake: Lake, tmp_path: Path, texts: list[str], type_: pa.DataType, values: list[Any]
) -> None:
    lines = [f'p{n},"{text}"' for n, text in enumerate(texts)]
    lake.attach("registry", csv(tmp_path, "patient_key,x", *lines))
    assert lake.types("registry") == {"patient_key": pa.string(), "x": type_}
    assert lake.outside["registry"]["x"].to_pylist() == values


def test_a_key_of_digits_stays_text(lake: Lake, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="0 of 2 keys"):
        lake.attach("registry", csv(tmp_path, "patient_key", "0123", "20240131"))
    assert lake.outside["registry"]["patient_key"].to_pylist() == ["0123", "20240131"]


def test_a_column_used_as_a_date_that_is_none_names_column_and_line(
    lake: Lake, tmp_path: Path
) -> None:
    file = csv(tmp_path, "patient_key,note,seen,code", 'p0,"two', 'lines",2024-01-31,5', "",
               "p1,x,03/04/2024,6")  # fmt: skip
    lake.attach("registry", file)
    cohort = lake.cohort("a").join("registry")
    with pytest.raises(BadOutsideTable, match=r"registry\.seen is used as a date.* line 5") as told:
        cohort.closest_study_per_patient(to="seen")
    assert "03/04" not in str(told.value)
    with pytest.raises(BadOutsideTable, match=r"registry\.code is used as a date.* line 2"):
        cohort.closest_study_per_patient(to="code")
    for condition in ("seen >= '2024-02-01'", "seen < '20240201'", "year(seen) = 2024",
                      "seen = DATE '2024-01-31'", "seen BETWEEN '2024-01-01' AND '2024-12-31'",
                      "date_diff('day', seen, '2024-01-01') > 0"):  # fmt: skip
        with pytest.raises(BadOutsideTable, match=r"registry\.seen .* line 5"):
            cohort.where(condition)
    assert len(cohort.where("seen = '03/04/2024'").to_pandas()) == 4
    lake.attach("frame", pd.DataFrame({"patient_key": ["p0", "p1"], "first": ["2024-01-31", "?"]}))
    with pytest.raises(BadOutsideTable, match=r"frame\.first .* row 2"):
        lake.cohort("a").join("frame").closest_study_per_patient(to="first")


def test_a_format_that_is_given_is_used_in_python_and_in_yaml(lake: Lake, tmp_path: Path) -> None:
    file = csv(tmp_path, "patient_key,seen", "p0,03/04/2024", "p1,31/12/2024")
    formats = {"seen": "%d/%m/%Y"}
    lake.attach("registry", file, date_formats=formats)
    assert lake.outside["registry"]["seen"].to_pylist() == [date(2024, 4, 3), date(2024, 12, 31)]
    cohort = lake.cohort("a").join("registry").closest_study_per_patient(to="seen")
    text = cohort.criteria.to_yaml()
    assert "date_formats" in text
    criteria = Criteria.from_yaml(text)
    assert criteria == cohort.criteria
    cohort.freeze()
    with cohortlake.open(lake.root.uri) as other:
        other.attach_files(criteria, "/")
        assert draw(other.opened, criteria).to_pandas().equals(cohort.to_pandas())
        assert other.verify("a").is_identical
    for form, says in {
        "%m/%d/%Y": "no date of the format given in line 3",
        "%d/%m/%y": "in line 2",
        "%q": "is no format",
    }.items():
        with pytest.raises(BadOutsideTable, match=says) as told:
            lake.attach("registry", file, date_formats={"seen": form})
        assert "31/12" not in str(told.value)
    with pytest.raises(BadOutsideTable, match="no such column"):
        lake.attach("registry", file, date_formats={"sen": "%d/%m/%Y"})


def test_two_digit_years_are_read_only_by_a_format_that_says_so(lake: Lake, tmp_path: Path) -> None:
    file = csv(tmp_path, "patient_key,seen", "p0,03/04/24")
    with pytest.raises(BadOutsideTable, match="line 2"):
        lake.attach("registry", file, date_formats={"seen": "%d/%m/%Y"})
    lake.attach("registry", file, date_formats={"seen": "%d/%m/%y"})
    assert lake.outside["registry"]["seen"].to_pylist() == [date(2024, 4, 3)]


def test_text_of_a_frame_is_used_as_dates_where_all_of_it_is(lake: Lake) -> None:
    seen = ["2024-01-31", "20240301"]
    lake.attach("registry", {"patient_key": KEYS, "seen": seen})
    found = lake.cohort("a").join("registry").closest_study_per_patient(to="seen").to_pandas()
    assert list(found["StudyInstanceUID"]) == ["1.0.1", "1.1.2"]
    with pytest.raises(BadCondition, match="date_formats"):
        lake.cohort("a").join("registry").where("seen > '2024-02-01'")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["patient_key,x", "p0,1", "p1,2,3", "p2"], r"2 columns have names.*line 3, 4"),
        (["patient_key,x", 'p0,"1'], "cannot be read as CSV"),
        (["patient_key,x,x", "p0,1,2"], "'x' is the name of two"),
        ([""], "is empty"),
    ],
)
def test_a_csv_file_that_is_none_is_refused(
    lake: Lake, tmp_path: Path, lines: list[str], says: str
) -> None:
    with pytest.raises(BadOutsideTable, match=says):
        lake.attach("registry", csv(tmp_path, *lines))


def test_a_csv_file_in_another_encoding_is_refused(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("patient_key,x\np0,Müller\n".encode("latin-1"))
    with pytest.raises(BadOutsideTable, match="UTF-8") as told:
        lake.attach("registry", tmp_path / "a.csv")
    assert "ller" not in str(told.value)


def test_keys_that_match_no_patient_are_counted_and_said(lake: Lake) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attached = lake.attach("registry", {"patient_key": ["p0", "q"]})
    assert (attached.matched, attached.unmatched, attached.nearly) == (1, 1, 0)
    with pytest.warns(UserWarning, match="2 of these would be without blanks or in other case"):
        attached = lake.attach("registry", {"patient_key": ["p0", "P1", " p2 ", "q"]})
    assert str(attached) == (
        "registry: 1 of 4 keys are patients of the lake, 3 are not; 2 of these would be without "
        "blanks or in other case"
    )
    with pytest.warns(UserWarning, match="0 of 1 keys"):
        lake.attach("registry", {"patient_key": ["q"]})


def test_a_digest_is_over_instants_and_not_over_the_label_of_a_zone(lake: Lake) -> None:
    at = datetime(2024, 1, 31, 10, tzinfo=UTC)
    zones = [
        UTC,
        ZoneInfo("America/New_York"),
        ZoneInfo("Asia/Kolkata"),
        timezone(timedelta(hours=1)),
    ]
    found = set()
    for zone in zones:
        lake.attach("registry", {"patient_key": ["p0"], "at": [at.astimezone(zone)]})
        rows = pa.Table.from_pylist(
            [{"at": at}],
            pa.schema(
                [("at", pa.timestamp("us", str(zone) if zone is not zones[3] else "+01:00"))]
            ),
        )
        found.add(
            json.dumps([digest.of_members(lake.outside["registry"]), digest.of_members(rows)])
        )
    assert len(found) == 1


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["2024-01-31", None, "1880-02-01"], pa.date32()),
        (["2024-01-31", "2024-01-31 00:00:00.000001"], pa.timestamp("us")),
        (["2024-01-31", None, "2024-01-31 10:15:00"], pa.timestamp("us")),
        (["2024-01-31", "1969-12-31 23:59:59"], pa.timestamp("us")),
    ],
)
def test_times_at_midnight_are_the_dates_that_pandas_has_no_type_for(
    times: list[str | None], expected: pa.DataType
) -> None:
    frame = pd.DataFrame({"patient_key": list("abc")[: len(times)], "seen": times})
    frame["seen"] = pd.to_datetime(frame["seen"], format="ISO8601")
    table = read(frame, "patient_key").table
    assert table["seen"].type.equals(expected)
    for given, taken in zip(frame["seen"], table["seen"].to_pylist(), strict=True):
        assert taken is None if pd.isna(given) else pd.Timestamp(taken) == given
