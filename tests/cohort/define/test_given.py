"""Values as pandas, NumPy, Arrow and Python give them become plain values, or are refused."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.cohort import Criteria
from cohortlake.cohort.define.given import condition, plain, several
from cohortlake.cohort.define.steps import Where
from cohortlake.errors import BadCondition

DAY, NOON = date(2025, 1, 1), datetime(2025, 1, 1, 12)
ZONED = datetime(2025, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))


class Sex(StrEnum):
    F = "F"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("F", "F"),
        (np.str_("F"), "F"),
        (Sex.F, "F"),
        (pa.scalar("F"), "F"),
        (pa.scalar("F").cast(pa.dictionary(pa.int8(), pa.string())), "F"),
        (True, True),
        (np.bool_(True), True),
        (pa.scalar(False), False),
        (2, 2),
        (Number.ONE, 1),
        (np.int64(2), 2),
        (np.uint8(2), 2),
        (pa.scalar(2, pa.int16()), 2),
        (Decimal(2), 2),
        (Decimal("2.0"), 2),
        (Decimal("0.1"), 0.1),
        (1.5, 1.5),
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (DAY, DAY),
        (pd.Timestamp("2025-01-01"), DAY),
        (datetime(2025, 1, 1), DAY),
        (np.datetime64("2025-01-01"), DAY),
        (np.datetime64("2025-01-01T00:00:00.000000000"), DAY),
        (pa.scalar(DAY), DAY),
        (pa.scalar(datetime(2025, 1, 1), pa.timestamp("ns")), DAY),
        (pd.Timestamp("2025-01-01 12:00"), NOON),
        (np.datetime64("2025-01-01T12", "ns"), NOON),
        (NOON.replace(fold=1), NOON),
        (ZONED, datetime(2025, 1, 1, 10, tzinfo=UTC)),
        (pd.Timestamp("2025-01-01", tz="UTC"), datetime(2025, 1, 1, tzinfo=UTC)),
        (time(10, 15), "10:15:00"),
        *((missing, None) for missing in (
            None, pd.NA, pd.NaT, float("nan"), np.nan, np.float32("nan"), np.datetime64("NaT"),
            np.datetime64("NaT", "ns"), pa.scalar(None), pa.scalar(None, pa.date32()),
            Decimal("NaN"))),
    ],
)  # fmt: skip
def test_a_value_becomes_a_plain_one(value: object, found: object) -> None:
    read = plain("x", value)
    assert (read, type(read)) == (found, type(found))
    assert several("x", value) == (found,)
    criteria = Criteria("a", steps=(Where(condition((), {"x": value})),))
    again = Criteria.from_yaml(criteria.to_yaml())
    assert repr(again) == repr(criteria)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["F", "M"], ("F", "M")),
        (("F", None), ("F", None)),
        ({"M", "F", None}, ("F", "M", None)),
        (frozenset((10, 9)), (9, 10)),
        ({NOON, ZONED, DAY}, (DAY, datetime(2025, 1, 1, 10, tzinfo=UTC), NOON)),
        (range(50, 53), (50, 51, 52)),
        (range(50, 60, 5), (50, 55)),
        ({"F": 1}.keys(), ("F",)),
        ((sex for sex in "FM"), ("F", "M")),
        (pd.Series(["F", None, "F"]), ("F", None)),
        (pd.Series(["F", pd.NA], dtype="string"), ("F", None)),
        (pd.Series(["F"], dtype="category"), ("F",)),
        (pd.Series([1, None]), (1.0, None)),
        (pd.Series([1, None], dtype="Int64"), (1, None)),
        (pd.Series([DAY, None], dtype=pd.ArrowDtype(pa.date32())), (DAY, None)),
        (pd.Series(["2025-01-01"], dtype="datetime64[ns]"), (DAY,)),
        (pd.Index(["F", "M"]), ("F", "M")),
        (pd.date_range("2025-01-01", periods=2), (DAY, date(2025, 1, 2))),
        (pd.array([1, 2]), (1, 2)),
        (np.array([1, 2]), (1, 2)),
        (np.array(["2025-01-01"], "datetime64[ns]"), (DAY,)),
        (np.array(5), (5,)),
        (pa.array(["F", None]), ("F", None)),
        (pa.chunked_array([[1], [2]]), (1, 2)),
        ([1, 1.0, True, 1], (1, 1.0, True)),
        ([], ()),
    ],
)
def test_several_values_become_plain_ones(values: object, found: tuple[object, ...]) -> None:
    read = several("x", values)
    assert list(map(repr, read)) == list(map(repr, found))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda frame: frame, 'x: a function is no value; .*"x > 0"'),
        (len, "x: a function is no value"),
        (str, "x: a function is no value"),
        (slice(50, 69), 'x: slice is no value; .*"x between ... and ..."'),
        (pd.Interval(50, 69), 'x: Interval is no value; .*"x between'),
        (pd.Period("2025-01"), 'x: Period is no value; .*"x between'),
        (np.datetime64("2025-01"), 'x: a month or a year is no value; .*"x between'),
        (range(10**9), 'x: a range of so many numbers is no value; .*"x between'),
        (re.compile("a"), r'x: Pattern is no value; .*"regexp_matches\(x'),
        (b"F", "x: bytes is no value; decode it"),
        ({"F": 1}, "x: a mapping is no value; give a list"),
        (pd.DataFrame({"x": ["F"]}), r"x: a table is no value; .*frame\['x'\]"),
        (pa.table({"x": ["F"]}), r"x: a table is no value; .*frame\['x'\]"),
        ([["F"]], "x: list is no value; give text, a number"),
        (np.array([["F"]]), "x: ndarray is no value; give text"),
        (timedelta(1), "x: timedelta is no value; give text"),
        (np.timedelta64(1, "D"), "x: timedelta is no value; give text"),
        (object(), "x: object is no value; give text"),
        (1j, "x: complex is no value"),
        (time(10, tzinfo=UTC), "x: time is no value"),
        (pd.Timestamp("2025-01-01 00:00:00.000000001"), "x: an instant is exact to microseconds"),
        (np.datetime64("2025-01-01T00:00:00.000000001"), "x: an instant is exact to microseconds"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "x: an instant is before year 1"),
        (Decimal("0.12345678901234567890123"), "x: a number has more digits"),
    ],
)
def test_what_is_no_value_is_told(value: object, says: str) -> None:
    with pytest.raises(BadCondition, match=says) as refused:
        several("x", value)
    assert "2025" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (lambda frame: frame, "a function is no condition.*where\\("),
        ({"Modality": "CT"}, r"a mapping is no condition: write where\(Modality='CT'\)"),
        (["a > 1"], "a list is no condition: give each"),
        (pd.Series([True]), "a Series is no condition, because .* come later: write a text"),
        (True, "a bool is no condition"),
        (None, "a NoneType is no condition"),
    ],
)
def test_what_is_no_condition_is_told(text: Any, says: str) -> None:
    with pytest.raises(BadCondition, match=says):
        condition((text,), {})


@given(st.sets(st.text() | st.integers() | st.dates() | st.none() | st.booleans()))
def test_a_set_has_one_order(values: set[object]) -> None:
    assert several("x", values) == several("x", set(sorted(values, key=repr)))
