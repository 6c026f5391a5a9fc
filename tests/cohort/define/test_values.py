"""Who is a member is not guessed: a value must be of its column's kind, in YAML, Python and SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import Criteria
from cohortlake.cohort.cohort import draw
from cohortlake.cohort.define.values import parameter
from cohortlake.errors import BadCondition, BadCriteria
from cohortlake.privacy import built_in

IDS = ["83", "123", "0123", "00123", "750", "12:30", "NO", "1e3", "089"]
NUMBER, INSTANT = pa.int16(), pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    root = str(tmp_path_factory.mktemp("values") / "lake")
    rows = [
        image_set(n, f"p{n}", f"1.{n}", PatientID=id_, AccessionNumber=id_, Modality="CT",
                  StudyDate=date(2024, 1, 1 + n), StudyTime=time(10, n), age_at_study_years=40 + n)
        for n, id_ in enumerate(IDS)
    ]  # fmt: skip
    publish(root, rows, policy=built_in("identified"))
    with cohortlake.open(root) as opened:
        yield opened


def members(lake: Lake, where: str) -> list[int]:
    """Draw what YAML says of one condition, and return the numbers of its studies."""
    criteria = Criteria.from_yaml(f"cohort: a\nsteps:\n  - where: {{{where}}}\n")
    found = draw(lake.opened, criteria).to_pandas()["StudyInstanceUID"]
    return [int(uid.split(".")[1]) for uid in found]


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ("PatientID: '123'", [1]),
        ("PatientID: '0123'", [2]),
        ("AccessionNumber: '12:30'", [5]),
        ("AccessionNumber: ['750', 'NO']", [4, 6]),
        # As in YAML, these two are text.
        ("PatientID: 1e3", [7]),
        ("PatientID: 089", [8]),
        ("PatientID: null", []),
        ("Modality: ~", []),
        ("age_at_study_years: 41", [1]),
        ("age_at_study_years: [40, 42.0]", [0, 2]),
        ("StudyDate: 2024-01-02", [1]),
        ("StudyDate: '2024-01-02'", [1]),
        ("StudyDate: '20240102'", [1]),
        ("StudyTime: '10:03'", [3]),
        ("StudyTime: '100300'", [3]),
        ("modalities: CT", list(range(9))),
        ("first_created_at: 2026-01-01", list(range(9))),
        ("first_created_at: 2026-01-01T02:00:00+02:00", list(range(9))),
        ("first_created_at: 2026-01-01 00:00:00.000001", []),
        ("StudyDate: 2024-01-02 00:00:00", [1]),
        ("has_duplicates: false", list(range(9))),
        ("has_duplicates: yes", []),
    ],
)
def test_a_value_of_its_columns_kind_finds_what_it_says(
    lake: Lake, where: str, numbers: list[int]
) -> None:
    assert members(lake, where) == numbers


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("PatientID: 0123", "PatientID in line 3 .*quote it"),
        ("AccessionNumber: 12:30", "AccessionNumber in line 3 .*quote it"),
        ("AccessionNumber: ['1', 12:30:15]", "AccessionNumber in line 3 .*quote it"),
        ("PatientID: 0x1F", "PatientID in line 3 .*quote it"),
        ("PatientID: 0b11", "PatientID in line 3 .*quote it"),
        ("PatientID: 1_000", "PatientID in line 3 .*quote it"),
        ("PatientID: 1:30.5", "PatientID in line 3 .*quote it"),
        ("age_at_study_years: 040", "age_at_study_years in line 3 .*without a leading zero"),
        ("PatientID: '1', PatientID: '2'", "'PatientID' stands twice"),
    ],
)
def test_a_number_that_yaml_reads_otherwise_is_refused(lake: Lake, where: str, says: str) -> None:
    with pytest.raises(BadCriteria, match=says):
        members(lake, where)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        *((f"PatientID: {value}", "PatientID holds text.*quote it")
          for value in ("123", "1.5", "1.0e+3", "NO", "off", "true", "2024-01-02",
                        "2024-01-02 10:00:00", "['1', 2]")),
        ("Modality: NO", "Modality holds text.*quote it"),
        ("modalities: [CT, NO]", "modalities holds text.*quote it"),
        *((f"age_at_study_years: {value}", "age_at_study_years holds whole numbers")
          for value in ("'40'", "true", "40.5", "1e3", "2024-01-02", "99999999999999999999")),
        *((f"StudyDate: {value}", "StudyDate holds dates")
          for value in ("20240102", "'02/01/2024'", "'20240230'", "2024", "'2024-1-2'", "yes",
                        "2024-01-02 10:00:00", "2024-01-02T00:00:00Z")),
        *((f"StudyTime: {value}", "StudyTime holds times") for value in ("1015", "'25:00'")),
        *((f"has_duplicates: {value}", "has_duplicates holds true and false")
          for value in ("0", "'true'", "2024-01-02")),
        *((f"first_created_at: {value}", "first_created_at holds instants")
          for value in ("2026", "'01/02/2026'")),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(lake: Lake, where: str, says: str) -> None:
    with pytest.raises(BadCondition, match=says) as refused:
        members(lake, where)
    for given in ("123", "99999", "02/01", "20240230"):
        assert given not in str(refused.value).replace("'0123'", "").replace("20240131", "")


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"StudyDate": pd.Timestamp("2024-01-02")}, [1]),
        ({"StudyDate": pd.to_datetime(["2024-01-02", "2024-01-04"])}, [1, 3]),
        ({"StudyDate": np.datetime64("2024-01-02")}, [1]),
        ({"StudyTime": time(10, 3)}, [3]),
        ({"age_at_study_years": range(41, 43)}, [1, 2]),
        ({"age_at_study_years": np.int64(41)}, [1]),
        ({"PatientID": pd.Series(["123", "0123"])}, [1, 2]),
        ({"modalities": {"CT", "MR"}}, list(range(9))),
        ({"first_created_at": pd.Timestamp("2026-01-01", tz="Asia/Kolkata")}, []),
        ({"first_created_at": pd.Timestamp("2026-01-01 05:30", tz="Asia/Kolkata")}, [*range(9)]),
    ],
)
def test_values_of_other_libraries_find_the_same(
    lake: Lake, values: dict[str, Any], numbers: list[int]
) -> None:
    cohort = lake.cohort("a").where(**values)
    found = cohort.to_pandas()["StudyInstanceUID"]
    assert [int(uid.split(".")[1]) for uid in found] == numbers
    again = draw(lake.opened, Criteria.from_yaml(cohort.criteria.to_yaml()))
    assert again.to_arrow() == cohort.to_arrow()
    assert len(lake.cohort("a").exclude(**values).to_arrow()) == 9 - len(numbers)


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("clock", ["00:00", "10:00"])
def test_an_instant_is_no_date_unless_it_is_a_midnight_without_zone(
    lake: Lake, zone: str | None, clock: str
) -> None:
    at = pd.Timestamp(f"2024-01-02 {clock}", tz=zone)
    if zone is None and clock == "00:00":
        assert len(lake.cohort("a").closest_study_per_patient(to=at).to_arrow()) == 9
        return
    with pytest.raises(BadCondition, match=r"StudyDate holds dates.* without a time of day"):
        lake.cohort("a").where(StudyDate=at)
    with pytest.raises(BadCriteria, match="a date without a time"):
        lake.cohort("a").closest_study_per_patient(to=at)


def test_numbers_of_other_libraries_are_seeds_and_shares(lake: Lake) -> None:
    plain = lake.cohort("a").random_study_per_patient(7).split(train=0.5, test=0.5, seed=3)
    cohort = lake.cohort("a").random_study_per_patient(np.int64(7))
    cohort = cohort.split(train=np.float32(0.5), test=np.float64(0.5), seed=np.int8(3))
    assert cohort.criteria.to_yaml() == plain.criteria.to_yaml()


def test_python_is_held_to_the_same(lake: Lake) -> None:
    for value in (123, 1.5, True, date(2024, 1, 2)):
        with pytest.raises(BadCondition, match=r"PatientID holds text.*quote it"):
            lake.cohort("a").where(PatientID=value)
        with pytest.raises(BadCondition, match=r"PatientID holds text.*quote it"):
            lake.cohort("a").with_study("any time after", PatientID=["x", value])


@pytest.mark.parametrize(
    "condition",
    [
        "PatientID = 123",
        "123 = PatientID",
        "PatientID IN ('1', 123)",
        "PatientID BETWEEN 1 AND 200",
        "NOT (PatientID <> 123)",
        "trim(PatientID) = 123",
        "PatientID = age_at_study_years",
        "PatientID < DATE '2024-01-01'",
        "PatientID = true",
        "PatientID IS NOT DISTINCT FROM 123",
        "CASE WHEN PatientID = 123 THEN true END",
        "[PatientID] = [123]",
        "[PatientID][1] = 123",
    ],
)
def test_sql_does_not_cast_text_unasked(lake: Lake, condition: str) -> None:
    with pytest.raises(BadCondition, match=r"PatientID holds text.*quote the value"):
        lake.cohort("a").where(condition)


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("PatientID = '123'", 1),
        ("TRY_CAST(PatientID AS INT) = 123", 3),
        ("length(PatientID) = 3", 4),
        ("StudyDate > '2024-01-08'", 1),
        ("PatientID IS NULL OR age_at_study_years IN (40, 41)", 2),
        ("PatientID = AccessionNumber", 9),
    ],
)
def test_sql_that_says_what_it_means_is_run(lake: Lake, condition: str, count: int) -> None:
    assert len(lake.cohort("a").where(condition).to_pandas()) == count


@pytest.mark.parametrize(
    ("type_", "value", "read"),
    [
        (pa.large_string(), "1", "1"),
        (pa.dictionary(pa.int8(), pa.string()), "1", "1"),
        (pa.list_(pa.int64()), 1, 1),
        (pa.decimal128(5, 2), 1.5, 1.5),
        (INSTANT, "2024-01-01T12:00:00+02:00", datetime(2024, 1, 1, 10, tzinfo=UTC)),
        (pa.timestamp("us"), date(2024, 1, 1), datetime(2024, 1, 1)),
        (pa.timestamp("ns", "Asia/Kolkata"), date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
        (NUMBER, -0.0, 0),
    ],
)
def test_what_a_parameter_is(type_: pa.DataType, value: Any, read: object) -> None:
    found = parameter("x", type_, value)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize("type_", [pa.binary(), pa.struct([("a", pa.int8())]), pa.null()])
def test_what_has_no_values_to_compare_with_is_refused(type_: pa.DataType) -> None:
    with pytest.raises(BadCondition, match="in SQL"):
        parameter("x", type_, "1")
