"""What a new user tries without the docs works, or is answered with the line to write instead."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import Cohort, guesses
from cohortlake.errors import BadOutsideTable, LakeClosed
from cohortlake.privacy import built_in

WOMEN, MEN = 12, 3
ROWS = [
    image_set(n, f"p{n:02}", f"1.{n:02}", Modality="CT" if n < WOMEN else "MR",
              PatientSex="F" if n < WOMEN else "M", StudyDate=date(2025, 1, 1 + n),
              age_at_study_years=50 + n, BodyPartExamined="CHEST")
    for n in range(WOMEN + MEN)
]  # fmt: skip
KEYS = pd.DataFrame({"patient_key": ["p00", "p01"], "outcome": [1, 2]})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("guesses") / "lake")
    publish(root, ROWS)
    return root


@pytest.fixture(scope="module")
def lake(root: str) -> Iterator[Lake]:
    with cohortlake.open(root) as opened:
        yield opened


@pytest.fixture
def cohort(lake: Lake) -> Cohort:
    return lake.cohort("tried")


Try = Callable[[Any], Any]
WORK: dict[str, tuple[Try, Any]] = {
    "a Timestamp": (lambda c: len(c.where(StudyDate=pd.Timestamp("2025-01-01"))), 1),
    "a datetime": (lambda c: len(c.where(StudyDate=datetime(2025, 1, 1))), 1),
    "dates of pandas": (lambda c: len(c.where(StudyDate=pd.date_range("2025-01-01", "2025-01-03"))),
                        3),
    "dates of a frame": (lambda c: len(c.where(StudyDate=c.head(2)["StudyDate"])), 2),
    "a NumPy number": (lambda c: len(c.where(age_at_study_years=np.int64(50))), 1),
    "a NumPy array": (lambda c: len(c.where(age_at_study_years=np.array([50, 51]))), 2),
    "a range": (lambda c: len(c.where(age_at_study_years=range(50, 60))), 10),
    "a set": (lambda c: len(c.where(Modality={"CT", "MR"})), WOMEN + MEN),
    "a Series": (lambda c: len(c.where(patient_key=KEYS["patient_key"])), 2),
    "an Index": (lambda c: len(c.where(PatientSex=pd.Index(["M"]))), MEN),
    "an Arrow array": (lambda c: len(c.where(patient_key=pa.array(["p00"]))), 1),
    "pandas.NA": (lambda c: len(c.where(PatientSex=pd.NA)), 0),
    "pandas.NaT": (lambda c: len(c.exclude(StudyDate=pd.NaT)), WOMEN + MEN),
    "len": (len, WOMEN + MEN),
    "bool": (bool, True),
    "bool of nobody": (lambda c: bool(c.where("age_at_study_years > 150")), False),
    "head": (lambda c: len(c.head(3)), 3),
    "columns": (lambda c: "age_at_study_years" in c.columns, True),
    "an attribute that is not there": (lambda c: hasattr(c, "to_csv"), False),
    "join a frame": (lambda c: c.join(KEYS).to_pandas()["outcome"].tolist(), [1, 2]),
    "join a frame by its index": (
        lambda c: c.join(KEYS.set_index("patient_key")).to_pandas()["outcome"].tolist(), [1, 2]),
    "count what was joined": (lambda c: len(c.join(KEYS).where(outcome=2)), 1),
    "an Arrow table": (lambda c: len(pa.table(c)), WOMEN + MEN),
    "an f-string": (lambda c: f"{c}".splitlines()[0], "cohort: tried"),
    "pickle": (lambda c: len(pickle.loads(pickle.dumps(c))), WOMEN + MEN),  # noqa: S301
    "the last data": (lambda c: len(c.where(study_date_in="last 1 month of data")), WOMEN + MEN),
    "the rows of a table": (lambda c: len(c.selected.tables.sql("FROM series")), WOMEN + MEN),
}  # fmt: skip


@pytest.mark.parametrize("guess", WORK)
def test_a_natural_guess_works(cohort: Cohort, guess: str) -> None:
    attempt, result = WORK[guess]
    assert attempt(cohort) == result


ANSWERED: dict[str, tuple[Try, str]] = {
    "a lambda": (lambda c: c.where(lambda d: d.x > 1), 'where("age_at_study_years >= 50")'),
    "a function as value": (lambda c: c.where(PatientSex=lambda d: d), "write a value"),
    "a mask": (lambda c: c.where(c.head()["sex"] == "F"), 'where("age_at_study_years >= 50")'),
    "a dict": (lambda c: c.where({"Modality": "CT"}), "where(Modality='CT')"),
    "a slice": (lambda c: c.where(age_at_study_years=slice(50, 69)),
                '"age_at_study_years between ... and ..."'),
    "an instant for a date": (lambda c: c.where(StudyDate=pd.Timestamp("2025-01-01 10:00")),
                              "write a date as 2024-01-31"),
    "current_date": (lambda c: c.where("StudyDate >= current_date - interval 2 year"),
                     "where(study_date_in='last 24 months of data')"),
    "now": (lambda c: c.where("StudyDate >= now()"), "\"StudyDate >= '2024-01-31'\""),
    "random": (lambda c: c.where("random() < 0.1"), "random_study_per_patient(seed=1)"),
    "PatientAge": (lambda c: c.where("PatientAge > 50"), "'age_at_study_years'"),
    "age": (lambda c: c.where(age=50), "'age_at_study_years'"),
    "Sex": (lambda c: c.where(Sex="F"), "'PatientSex'"),
    "female": (lambda c: c.where(PatientSex="female"), "did you mean 'F'?"),
    "a column of another level": (lambda c: c.count("Modality"), "'modalities'"),
    "women": (lambda c: c.where(PatientSex="women"), "did you mean 'F'?"),
    "a text in double quotes": (lambda c: c.where('PatientSex = "F"'), "in single quotes"),
    "None in SQL": (lambda c: c.where("PatientSex != None"), "write IS NULL or IS NOT NULL"),
    "= NULL": (lambda c: c.where("PatientSex = NULL"), "write IS NULL or IS NOT NULL"),
    "NOT IN a null": (lambda c: c.where("PatientSex NOT IN ('F', NULL)"), "write IS NULL"),
    "&": (lambda c: c.where("(n_series > 1) & (n_series < 3)"), "'&' may not stand in a condition; "
          "write AND"),
    "&&": (lambda c: c.where("sex = 'F' && n_series > 1"), "age_at_study_years >= 50 AND"),
    "contains": (lambda c: c.where("modalities contains 'CT'"), "list_contains(modalities, 'CT')"),
    "a keyword of Django": (lambda c: c.where(age_at_study_years__gte=50),
                            'where("age_at_study_years >= 50")'),
    "a comparison as value": (lambda c: c.where(age_at_study_years=">= 50"),
                              'where("age_at_study_years >= 50")'),
    "a year as date": (lambda c: c.where(StudyDate="2025"), "study_date_in='2024'"),
    "a period": (lambda c: c.with_study("12 months before", Modality="CT"),
                 "'within 12 months before'"),
    "filter": (lambda c: c.filter(PatientSex="F"), 'cohort.where(PatientSex="F")'),
    "query": (lambda c: c.query("n_series > 1"), 'cohort.where("n_series > 1")'),
    "to_csv": (lambda c: c.to_csv("x.csv"), 'cohort.export("members.csv")'),
    "to_excel": (lambda c: c.to_excel("x.xlsx"), 'cohort.export("members.xlsx")'),
    "save": (lambda c: c.save("x.csv"), 'cohort.export("members.csv")'),
    "df": (lambda c: c.df, "cohort.to_pandas()"),
    "shape": (lambda c: c.shape, "len(cohort)"),
    "describe": (lambda c: c.describe(), "cohort.table_one()"),
    "count_patients": (lambda c: c.count_patients(), "cohort.count()"),
    "groupby": (lambda c: c.groupby("sex"), 'cohort.count("PatientSex")'),
    "sort_values": (lambda c: c.sort_values("sex"), "cohort.to_pandas().sort_values"),
    "a column as attribute": (lambda c: c.PatientSex, "cohort.to_pandas()['PatientSex']"),
    "an item": (lambda c: c["PatientSex"], "cohort.to_pandas()['PatientSex']"),
    "a slip of the pen": (lambda c: c.frezee(), "did you mean 'freeze'?"),
    "iteration": (list, "cohort.to_pandas()"),
    "a PatientID": (lambda c: c.join(pd.DataFrame({"PatientID": ["1"]})),
                    "`cohortlake key lookup --ids ids.csv`"),
    "a list of keys": (lambda c: c.join(["p00"]), "where(patient_key=keys)"),
    "a Series of keys": (lambda c: c.join(KEYS["patient_key"]), "where(patient_key=keys)"),
    "a list of columns": (lambda c: c.count(["sex", "study_year"]), 'count("sex", "study_year")'),
    "a number of days": (lambda c: c.with_study(30, Modality="CT"), "'within 30 days'"),
    "an attrition as CSV": (lambda c: c.attrition().to_csv("x"), "attrition.to_pandas().to_csv"),
    "another word for open": (lambda _: cohortlake.connect("x"), "cohortlake.open(root)"),
    "a table of rows": (lambda c: c.members.groupby("sex"), "rows.to_pandas().groupby"),
    "a row": (lambda c: c.members[0], "rows.to_pandas()[0]"),
    "iteration over rows": (lambda c: list(c.members), "rows.fetchall()"),
    "pickled rows": (lambda c: pickle.dumps(c.members), "rows.to_arrow()"),
}  # fmt: skip


@pytest.mark.parametrize("guess", ANSWERED)
def test_a_natural_guess_is_answered_with_the_line_to_write(cohort: Cohort, guess: str) -> None:
    attempt, line = ANSWERED[guess]
    with pytest.raises(Exception, match=re.escape(line)):
        attempt(cohort)


OF_LAKE: dict[str, tuple[Callable[[Lake], Any], Any]] = {
    "a table": (lambda k: len(k.studies), WOMEN + MEN),
    "a table by name": (lambda k: k["patients"].columns[:1], ["datastore_id"]),
    "head of a table": (lambda k: len(k.series.head(2)), 2),
    "completion": (lambda k: {"studies", "series", "sql"} <= {*dir(k)}, True),
    "a number of NumPy in SQL": (
        lambda k: k.sql(
            "SELECT count(*) FROM studies WHERE age_at_study_years >= $n", {"n": np.int64(60)}
        ).fetchall(),
        [(5,)],
    ),
    "a set in SQL": (
        lambda k: k.sql(
            "SELECT count(*) FROM studies WHERE sex IN $sexes", {"sexes": {"M"}}
        ).fetchall(),
        [(MEN,)],
    ),
    "a Series in SQL": (
        lambda k: k.sql(
            "SELECT count(*) FROM studies WHERE patient_key IN $keys", {"keys": KEYS["patient_key"]}
        ).fetchall(),
        [(2,)],
    ),
    "one column by name": (lambda k: list(k.table("studies", "StudyDate")), ["StudyDate"]),
    "a path": (lambda k: len(cohortlake.open(Path(k.root.uri)).studies), WOMEN + MEN),
    "a path to read": (
        lambda k: len(cohortlake.read_table(Path(k.root.uri), "patients")),
        WOMEN + MEN,
    ),
    "an instant of NumPy": (
        lambda k: cohortlake.open(k.root.uri, as_of=np.datetime64("2026-02-01")).as_of,
        datetime(2026, 2, 1, tzinfo=UTC),
    ),
    "pickle": (lambda k: len(pickle.loads(pickle.dumps(k)).studies), WOMEN + MEN),  # noqa: S301
    "an attribute that is not there": (lambda k: hasattr(k, "query"), False),
}


@pytest.mark.parametrize("guess", OF_LAKE)
def test_a_natural_guess_on_a_lake_works(lake: Lake, guess: str) -> None:
    attempt, result = OF_LAKE[guess]
    assert attempt(lake) == result


@pytest.mark.parametrize(
    ("attempt", "line"),
    [
        (lambda k: k.sql("SELECT * FROM study"), "did you mean 'studies'?"),
        (lambda k: k.sql("SELECT age FROM studies"), "'age_at_study_years'"),
        (lambda k: k.study, "did you mean 'studies'?"),
        (lambda k: k["study"], "did you mean 'studies'?"),
        (lambda k: k.query("FROM studies"), "lake.sql("),
        (lambda k: k.sql("FROM studies WHERE sex = ?", ["F"]), "sex = $sex"),
        (lambda k: cohortlake.open(k.root.uri, as_of=pd.NaT), "give a date like 2026-06-01"),
        (lambda k: cohortlake.open(k.root.uri, as_of=pd.NA), "give a date like 2026-06-01"),
        (lambda k: k.to_pandas(), 'lake.table("studies")'),
        (lambda k: k.where(PatientSex="F"), 'lake.cohort("name").where(PatientSex="F")'),
        (list, "lake.tables"),
        (
            lambda k: k.attach("ids", pd.DataFrame({"PatientID": ["1"], "o": [1]})),
            "`cohortlake key lookup --ids ids.csv`",
        ),
    ],
)
def test_a_natural_guess_on_a_lake_is_answered(lake: Lake, attempt: Try, line: str) -> None:
    with pytest.raises(Exception, match=re.escape(line)):
        attempt(lake)


def test_a_policy_that_shows_ids_says_how_to_add_the_keys(tmp_path: Path) -> None:
    rows = [image_set(n, f"p{n}", f"1.{n}", PatientID=str(n)) for n in range(2)]
    publish(str(tmp_path), rows, policy=built_in("identified"))
    with cohortlake.open(str(tmp_path)) as lake:
        ids = pd.DataFrame({"PatientID": ["1"], "outcome": [3]})
        line = "lake.sql('SELECT PatientID, patient_key FROM patients').to_pandas()"
        with pytest.raises(BadOutsideTable, match=re.escape(line)):
            lake.attach("ids", ids)
        keys = lake.sql("SELECT PatientID, patient_key FROM patients").to_pandas()
        joined = lake.cohort("a").join(ids.merge(keys).drop(columns="PatientID"))
        assert joined.to_pandas()["StudyInstanceUID"].tolist() == ["1.1"]


def test_what_is_published_shows_without_its_files(lake: Lake) -> None:
    assert len(repr(lake.publication())) < 500


@pytest.mark.parametrize(
    ("thing", "lines"),
    [
        ("lake", guesses.LAKES),
        ("cohort", guesses.COHORTS),
        ("rows", guesses.ROWS),
        ("attrition", guesses.ATTRITIONS),
    ],
)
def test_each_guess_is_no_name_of_ours_and_leads_to_one(
    lake: Lake, thing: str, lines: dict[str, str]
) -> None:
    cohort = lake.cohort("a")
    things = {
        "lake": lake, "cohort": cohort, "rows": lake.studies, "attrition": cohort.attrition()
    }  # fmt: skip
    there = {*dir(things[thing])}
    frame = dir(pd.DataFrame) + dir(pd.Series)
    for guess, line in lines.items():
        assert guess not in there, guess
        written = line.format(thing=thing, name=guess)
        methods = re.findall(rf"\b{thing}\.(\w+)", written)
        assert {*methods} <= there and (methods or "len(" in written or "open(" in written), line
        assert {*re.findall(r"to_pandas\(\)\.(\w+)", written)} <= {*frame}, line


def test_a_lake_shows_its_tables_and_its_policy(root: str) -> None:
    with cohortlake.open(root) as lake:
        lake.attach("registry", KEYS)
        shown = dict(re.findall(r"^  (\w+(?: \w+)*) {2,}(.+)$", repr(lake), re.MULTILINE))
        for page in (repr(lake), lake._repr_html_()):
            assert "limited" in page and "15 rows" in page
        assert shown == {
            "image_sets": "15 rows", "series": "15 rows", "studies": "15 rows",
            "patients": "15 rows", "history": "15 rows", "series_headers": "0 rows",
            "earlier_headers": "0 rows",
            "registry": "2 rows, attached",
            "policy": "limited", "published": "2026-01-01 00:00 UTC", "as of": "now",
            "complete until": "not known; the next publication by this release says it",
        }  # fmt: skip
        assert len(lake.registry) == 2
    assert repr(lake)  # closed, too
    with cohortlake.open(root, as_of="2026-02-01") as past:
        assert "2026-02-01 00:00 UTC" in repr(past)
        assert "studies" not in repr(past)


def test_a_cohort_shows_its_criteria_and_how_many_it_has(root: str) -> None:
    with cohortlake.open(root) as lake:
        cohort = lake.cohort("women", about="<b>").where(PatientSex="F").split(a=0.5, b=0.5)
        assert repr(cohort) == f"{cohort.criteria.to_yaml()}# 12 studies of 12 patients"
        page = cohort._repr_html_()
        assert "PatientSex: F" in page
        assert "12 studies of 12 patients" in page
        assert "&lt;b&gt;" in page and "<b>" not in page
        patients = lake.cohort("all", level="patient")
        assert repr(patients).endswith("# 15 patients")
    assert "# not counted: the lake was closed" in repr(cohort)
    assert not hasattr(cohort, "filter")
    with pytest.raises(LakeClosed):
        len(cohort)


def test_what_was_frozen_shows_as_a_short_table(root: str) -> None:
    with cohortlake.open(root) as lake:
        women = lake.cohort("shown").where(PatientSex="F")
        first, attrition = women.freeze(), women.attrition()
        second = lake.cohort("shown").freeze()
        verified, compared = lake.verify("shown"), lake.compare(first, second)
        assert lake.verify(first).manifest == first
        assert lake.frozen(women) == second
        # Each line fits a screen, and SQL is left out.
        for thing in (first, second, verified, compared, attrition):
            for page in (repr(thing), thing._repr_html_()):
                assert "shown" in page or thing is attrition
                assert "SELECT" not in page
        assert re.search(r"^  members +12$", repr(first), re.MULTILINE)
        assert re.search(r"^  identical +yes$", repr(verified), re.MULTILINE)
        assert re.search(r"^  joined +3$", repr(compared), re.MULTILINE)
        assert repr(attrition).splitlines()[-1].split()[-6:] == ["12", "12", "12", "0", "0", "0"]


def test_a_pickled_cohort_opens_the_lake_again_with_what_was_attached(root: str) -> None:
    with cohortlake.open(root, as_of="2026-02-01") as lake:
        lake.attach("registry", KEYS)
        cohort = lake.cohort("joined").join("registry").where(outcome=[1, 2]).where(PatientSex="F")
        both = pickle.dumps((lake, cohort))
        members = cohort.to_arrow()
    again_lake, again = pickle.loads(both)  # noqa: S301 - made above
    assert again.to_arrow() == members
    assert again.criteria == cohort.criteria
    assert again.selected.tables is again_lake.opened
    assert (again_lake.as_of, again_lake.root.uri) == (lake.as_of, lake.root.uri)
    assert again_lake.tables == lake.tables
    assert again_lake.attached == lake.attached
    again_lake.close()


def test_a_frame_that_is_joined_gets_a_name_and_keeps_it(root: str, tmp_path: Path) -> None:
    with cohortlake.open(root) as lake:
        cohort = lake.cohort("a")
        first = cohort.join(KEYS)
        assert cohort.join(KEYS).criteria == first.criteria  # a cell that runs twice
        other = pd.DataFrame({"patient_key": ["p03"], "grade": [3]})
        both = cohort.join(KEYS).join(other)
        assert [join.table for join in both.criteria.joins] == ["joined", "joined_2"]
        assert len(cohort.join(other)) == 1
        assert len(first) == 2  # as it was
        with pytest.raises(Exception, match=r"'outcome' is a column of another .*name="):
            cohort.join(KEYS.head(1))
        assert len(cohort.join(KEYS.head(1), name="joined")) == 1
        path = tmp_path / "registry.csv"
        pd.DataFrame({"patient_key": ["p04"], "arm": ["x"]}).to_csv(path, index=False)
        for given in (path, str(path)):
            joined = cohort.join(given)
            assert joined.criteria.joins[0].file == str(path)
            assert joined.criteria.joins[0].table == "registry"
        with pytest.warns(UserWarning, match="0 of 1 keys"):
            cohort.join(pd.DataFrame({"patient_key": ["stranger"]}), name="nobody")
        assert lake.attached["nobody"].matched == 0
