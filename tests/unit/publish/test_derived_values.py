"""Ages, bands and their statuses, against a calendar; and how values come into a table."""

from __future__ import annotations

from datetime import date

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cohortlake.publish import derived_values

DATES = st.none() | st.dates(date(1800, 1, 1), date(2030, 1, 1))
TEXTS = pa.schema(
    [
        ("PatientBirthDate", pa.date32()),
        ("StudyDate", pa.date32()),
        ("PatientBirthDate_raw", pa.string()),
        ("StudyDate_raw", pa.string()),
    ]
)


def _ages(born: date | None, studied: date | None, *raw: str | None) -> tuple[object, ...]:
    born_raw, studied_raw = raw or (None, None)
    sent = [[born], [studied], [born_raw], [studied_raw]]
    with duckdb.connect() as con:
        con.register("sent", pa.table(sent, TEXTS))
        (row,) = con.sql(f"""
            SELECT age_at_study_years, age_status, {derived_values.AGE_BAND}
            FROM (SELECT {derived_values.AGE} FROM (SELECT *, {derived_values.YEARS} FROM sent))
        """).fetchall()
    return tuple(row)


@given(DATES, DATES)
@example(date(2004, 2, 29), date(2005, 2, 28))
@example(date(2004, 2, 29), date(2005, 3, 1))
@example(date(1900, 1, 1), date(2021, 1, 1))
@example(date(2020, 5, 2), date(2020, 5, 1))
def test_an_age_is_the_birthdays_since_birth(born: date | None, studied: date | None) -> None:
    age, status, _ = _ages(born, studied)
    if born is None or studied is None:
        assert (age, status) == (None, "missing")
        return
    later = [year for year in range(born.year + 1, 2031) if _birthday(born, year) <= studied]
    if studied < born or len(later) > 120:
        assert (age, status) == (None, "implausible")
    else:
        assert (age, status) == (min(90, len(later)), "ok")


def _birthday(born: date, year: int) -> date:
    is_leap_day = (born.month, born.day) == (2, 29)
    if is_leap_day and (year % 4 or (year % 100 == 0 and year % 400)):
        return date(year, 3, 1)
    return born.replace(year=year)


@pytest.mark.parametrize(
    ("born", "studied", "status"),
    [
        ("19700230", date(2020, 1, 1), "invalid"),
        (date(1970, 1, 1), "2020", "invalid"),
        ("", date(2020, 1, 1), "missing"),
        (date(1970, 1, 1), "  ", "missing"),
        ("1962", None, "invalid"),
    ],
)
def test_a_date_that_cannot_be_read_is_not_a_missing_one(
    born: date | str, studied: date | str | None, status: str
) -> None:
    dates = [value if isinstance(value, date) else None for value in (born, studied)]
    texts = [value if isinstance(value, str) else None for value in (born, studied)]
    assert _ages(*dates, *texts) == (None, status, None)


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "<1"), (1, "1-9"), (9, "1-9"), (10, "10-19"), (19, "10-19"), (45, "40-49"),
     (89, "80-89"), (90, "90+"), (120, "90+")],
)  # fmt: skip
def test_bands(age: int, band: str) -> None:
    assert _ages(date(1880, 1, 1), date(1880 + age, 1, 1)) == (min(age, 90), "ok", band)


def test_each_value_is_read_once_and_what_nobody_sent_is_left_out() -> None:
    sent = {
        "PatientSex": ["F", "F", None, "F", "?"],
        "PatientSex_raw": [None, "F ", None, "f", None],
        "BodyPartExamined": ["HIPS", None, None, None, None],
        "BodyPartExamined_raw": [None, None, "", " ", ""],
    }
    with duckdb.connect() as con:
        con.register("sent", pa.table(sent))
        sexes = derived_values.sexes(con, "sent").to_pylist()
        parts = derived_values.body_parts(con, "sent").to_pylist()
    assert sorted(tuple(row.values()) for row in sexes) == [
        ("?", None, "invalid"),
        ("F", "F", "ok"),
        ("F ", "F", "ok"),
        ("f", "F", "respelled"),
    ]
    assert sorted(tuple(row.values()) for row in parts) == [
        ("", None, "missing"),
        (" ", None, "missing"),
        ("HIPS", "HIP", "respelled"),
    ]
