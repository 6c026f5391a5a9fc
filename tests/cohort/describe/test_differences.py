"""Table 1 where it means something: differences, words of its own, and names of the library's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from datetime import date
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import image_set, opened

from cohortlake.cohort import Cohort
from cohortlake.cohort.describe.differences import differences
from cohortlake.errors import BadCriteria

NAMES_OF_TABLEONE = ("n", "variable", "value", "index", "level_0", "freq", "percent", "Overall",
                     "Missing", "Test")  # fmt: skip
ROWS = [
    image_set(n, f"p{n}", f"1.{n}", PatientSex="F" if n < 6 else "M", Modality="CT",
              StudyDate=date(2023 + n % 4, 1 + n, 3), age_at_study_years=40 + n)
    for n in range(10)
]  # fmt: skip
REGISTRY = pd.DataFrame({
    "patient_key": [f"p{n}" for n in range(10)],
    "arm": ["a"] * 5 + ["b"] * 5,
    "disjoint": ["x"] * 5 + ["y"] * 5,
    "three": ["u"] * 4 + ["v"] * 3 + ["w"] * 3,
    "word": ["missing", None, "blank", " ", "Overall", "n", "a", "a", "a", "withheld"],
    "constant": 5,
    "grade": range(10),
    "nothing": pd.Series([None] * 10, dtype="float"),
    **{name: range(10) for name in NAMES_OF_TABLEONE},
})  # fmt: skip


@pytest.fixture(scope="module")
def cohort() -> Iterator[Cohort]:
    with opened(ROWS) as lake:
        lake.attach("registry", REGISTRY)
        yield lake.cohort("all").join("registry")


def rows(table: Any) -> dict[str, dict[str, str]]:
    """Return the label and the value of a row -> its cells."""
    return {
        " ".join(key).strip(): {str(name): str(row[head, name]) for head, name in table.columns}
        for key, row in table.iterrows()
    }


def told(cohort: Cohort, **asked: Any) -> dict[str, dict[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = cohort.table_one(**asked)
    assert table.tabulate(tablefmt="github")
    return rows(table.tableone)


def shares(cohort: Cohort, *columns: str) -> dict[str, str]:
    """Return the label and the value of a row -> its cell, of a table without groups."""
    table = cohort.table_one(columns=list(columns)).tableone
    return {" ".join(key).strip(): str(row["Overall"]) for key, row in table.iterrows()}


def test_there_is_no_difference_where_it_is_undefined(cohort: Cohort) -> None:
    described = ["modalities", "disjoint", "grade", "constant", "nothing"]
    found = told(cohort, by="arm", columns=described)
    differing = {name: cells["SMD (a,b)"] for name, cells in found.items()}
    assert differing["modalities, n (%) CT"] == ""
    assert differing["disjoint, n (%) x"] == differing["disjoint, n (%) y"] == ""
    assert differing["constant, mean (SD)"] == differing["nothing, mean (SD)"] == ""
    assert differing["grade, mean (SD)"] == "3.162"
    assert found["nothing, mean (SD)"]["Overall"] == ""


def test_defined_differences_are_those_of_tableone(cohort: Cohort) -> None:
    import tableone  # which imports SciPy: 3 s for each worker that collects this module

    frame = cohort.to_pandas()
    given = pd.DataFrame({
        "arm": frame["arm"].astype(object),
        "sex": frame["sex"].astype(object),
        "band": [str(value % 3) for value in frame["grade"]],
        "age": frame["age_at_study_years"].astype(float),
    })  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = tableone.TableOne(
            given, columns=["age", "sex", "band"], categorical=["sex", "band"],
            continuous=["age"], groupby="arm", smd=True,
        ).smd_table  # fmt: skip
    ours = differences(given, "arm", ["a", "b"], {"age": True, "sex": False, "band": False})
    for name in ("age", "sex", "band"):
        assert ours.loc[name, "SMD (a,b)"] == pytest.approx(theirs.loc[name, "SMD (a,b)"])


def test_a_value_of_a_third_group_does_not_hinder_a_difference() -> None:
    frame = pd.DataFrame({"by": list("aabbcc"), "what": list("xyxxzz")})
    found = differences(frame, "by", ["a", "b", "c"], {"what": False}).loc["what"]
    # x: a half and all; the variance of a share p is p (1 - p)
    assert found["SMD (a,b)"] == pytest.approx(0.5 / math.sqrt((0.25 + 0) / 2))
    assert found[["SMD (a,c)", "SMD (b,c)"]].isna().all()


def test_groups_are_compared_in_pairs_if_there_are_few_of_them(cohort: Cohort) -> None:
    (first, *_) = told(cohort, by="three", columns=["grade"]).values()
    assert list(first)[-3:] == ["SMD (u,v)", "SMD (u,w)", "SMD (v,w)"]
    by_year = told(cohort, by="study_year")
    assert list(by_year["n"]) == ["Missing", "Overall", "2023", "2024", "2025", "2026"]
    assert [by_year["n"][year] for year in ("2023", "2024", "2025", "2026")] == ["3", "3", "2", "2"]
    assert shares(cohort, "study_year")["study_year, n (%) 2023"] == "3 (30.0)"


@pytest.mark.parametrize("name", NAMES_OF_TABLEONE)
def test_a_column_keeps_its_mean_whatever_its_name_is(cohort: Cohort, name: str) -> None:
    table = shares(cohort, "sex", name)
    assert table["n"] == "10"
    assert table[f"{name}, mean (SD)"] == "4.5 (3.0)"
    assert told(cohort, by=name, columns=["sex"])["n"]["Overall"] == "10"
    assert told(cohort, by="arm", columns=[name])[f"{name}, mean (SD)"]["SMD (a,b)"] == "3.162"


def test_a_value_that_is_a_word_of_the_table_stands_in_quotes(cohort: Cohort) -> None:
    table = shares(cohort, "word")
    counted = {name.removeprefix("word, n (%) "): count for name, count in table.items()}
    for value in ("'missing'", "missing", "'blank'", "blank", "withheld"):
        assert counted[value] == "1 (10.0)"
    by_word = told(cohort, by="word", columns=["grade"])["n"]
    assert (by_word["missing"], by_word["'missing'"], by_word["'Overall'"]) == ("1", "1", "1")
    assert by_word["Overall"] == "10"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"columns": ["sex", "grade", "sex"]}, "'sex' stands twice in columns"),
        ({"columns": ["arm"], "by": "arm"}, "describes other columns"),
    ],
)
def test_what_cannot_be_described_is_an_error(
    cohort: Cohort, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadCriteria, match=says):
        cohort.table_one(**asked)


def test_too_many_groups_are_an_error_that_names_coarser_columns() -> None:
    with (
        opened([image_set(n, f"p{n}", f"1.{n}") for n in range(61)]) as lake,
        pytest.raises(BadCriteria, match=r"these are 61; 60 is the most.*study_year"),
    ):
        lake.cohort("all").table_one(by="StudyInstanceUID")
