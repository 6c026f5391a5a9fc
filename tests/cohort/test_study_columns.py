"""The year and the quarter of a study, and lists as one text, under each policy."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import image_set, publish
from endpoint import DATASTORE
from privacy.people import lake_of, summaries

import cohortlake
from cohortlake import Lake, Settings, Sync, read_table
from cohortlake.errors import ColumnNotShown, UnknownValue
from cohortlake.privacy import Policy, built_in
from cohortlake.privacy.policy import Treatment
from cohortlake.publish.publisher import publish as publish_lake
from cohortlake.storage.root import Root

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROWS = [
    image_set(0, "p", "1.1", Modality="MR", StudyDate=date(2024, 9, 30), BodyPartExamined="CHEST"),
    image_set(1, "p", "1.1", Modality="CT\\MR", StudyDate=date(2024, 9, 30)),
    image_set(2, "q", "1.2", Modality="CT", StudyDate=date(2024, 10, 1)),
    image_set(3, "q", "1.3"),
]
QUERY = """
    SELECT study_year, study_quarter, modalities_text, body_parts_text, body_parts_examined_text
    FROM studies ORDER BY StudyInstanceUID
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    root = str(tmp_path_factory.mktemp("lake"))
    publish(root, ROWS)
    with cohortlake.open(root) as opened:
        yield opened


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return lake_of(str(tmp_path_factory.mktemp("people") / "lake"), summaries(60, days=600))


def test_a_study_has_its_year_and_quarter_and_its_lists_as_text(lake: Lake) -> None:
    expected = [
        (2024, "2024-Q3", "CT\\MR", "CHEST", "CHEST"),
        (2024, "2024-Q4", "CT", None, None),
        (None, None, None, None, None),
    ]
    assert lake.sql(QUERY).fetchall() == expected
    with cohortlake.open(lake.root.uri, as_of="2100-01-01") as then:
        assert then.sql(QUERY).fetchall() == expected
    series = lake.sql("SELECT study_year, study_quarter FROM series ORDER BY image_set_id")
    quarters = [(2024, "2024-Q3"), (2024, "2024-Q3"), (2024, "2024-Q4"), (None, None)]
    assert series.fetchall() == quarters
    patients = lake.sql("SELECT modalities_text FROM patients ORDER BY patient_key")
    assert patients.fetchall() == [("CT\\MR",), ("CT",)]


@pytest.mark.parametrize("as_of", [None, "2100-01-01"])
def test_a_study_says_how_many_patients_it_has(tmp_path: Path, as_of: str | None) -> None:
    of_two = [image_set(0, "p", "1.1"), image_set(1, "q", "1.1")]
    of_one = [image_set(2, "q", "1.2"), image_set(3, None, "1.2")]
    publish(str(tmp_path), [*of_two, *of_one, image_set(4, None, "1.3")])
    with cohortlake.open(str(tmp_path), as_of=as_of) as lake:
        found = lake.sql("SELECT n_patients FROM studies ORDER BY StudyInstanceUID").fetchall()
        assert found == [(2,), (1,), (0,)]
        assert lake.cohort("all").count()["members"].tolist() == [1]
        of_p = lake.cohort("p").where(image_set_id=of_two[0]["image_set_id"])
        assert of_p.count()["members"].tolist() == [0]


def test_studies_are_grouped_and_found_by_the_text_of_a_list(lake: Lake) -> None:
    studies = read_table(lake.root.uri, "studies")
    assert studies.groupby("modalities_text").size().to_dict() == {"CT": 1, "CT\\MR": 1}
    assert studies["modalities_text"].isin(["CT", "CT\\MR"]).sum() == 2
    assert len(lake.cohort("both").where(modalities_text="CT\\MR").to_pandas()) == 1
    assert len(lake.cohort("late").where(study_year=2024, study_quarter="2024-Q4").to_pandas()) == 1


@pytest.mark.parametrize(
    ("given", "near"),
    [({"study_quarter": "2024Q3"}, "2024-Q3"), ({"modalities_text": "MR\\CT"}, "CT")],
)
def test_another_spelling_is_answered_with_the_right_one(
    given: dict[str, str], near: str, root: str
) -> None:
    rows = [image_set(n, f"p{n}", f"2.{n}", Modality="CT\\MR", StudyDate=date(2024, 9, 1))
            for n in range(11)]  # fmt: skip
    publish(root, rows)
    with cohortlake.open(root) as lake, pytest.raises(UnknownValue, match=near):
        lake.cohort("a").where(**given)


def test_shifted_dates_give_the_year_and_the_quarter_that_they_show(unpublished: Root) -> None:
    publish_lake(unpublished, built_in("safe"))
    for table in ("studies", "series"):
        rows = read_table(unpublished.uri, table)
        days = rows["study_date_shifted"]
        assert len(rows) > 60
        assert (rows["study_year"] == days.dt.year).all()
        assert (rows["study_quarter"] == days.dt.to_period("Q").astype(str).str.replace(
            "Q", "-Q")).all()  # fmt: skip
    rows = read_table(unpublished.uri, "studies")
    is_withheld = rows["withheld_fields"].map(lambda names: "modalities" in names)
    assert 0 < is_withheld.sum() < len(rows)  # JONES is no modality
    assert rows["modalities_text"].isna().equals(is_withheld.astype(bool))


def test_where_dates_are_years_the_year_is_the_date_and_there_is_no_quarter(
    unpublished: Root,
) -> None:
    publish_lake(unpublished, built_in("safe", "year"))
    with cohortlake.open(unpublished.uri) as lake:
        assert lake.study_date == "study_year"
        assert lake.columns("studies").count("study_year") == 1
        assert lake.cohort("all").count("study_year")["members"].sum() > 60
        with pytest.raises(ColumnNotShown, match="study_quarter"):
            lake.cohort("all").where(study_quarter="2020-Q1")


@pytest.mark.parametrize("given", [{}, {"modalities_text": Treatment.KEEP}])
def test_a_policy_that_withholds_a_list_withholds_its_text(
    given: dict[str, Treatment], tmp_path: Path
) -> None:
    columns = {"modalities": Treatment.WITHHOLD, **given}
    policy = Policy("ours", "limited", Treatment.KEEP, columns)
    shown = {name for names in policy.tables.values() for name in names}
    assert not {"modalities", "modalities_text"} & shown
    assert "body_parts_text" in shown


def test_plain_pandas_reads_whole_numbers_text_and_truth_from_the_files(unpublished: Root) -> None:
    publish_lake(unpublished, built_in("limited"))
    studies = pd.read_parquet(unpublished.path("published", "studies"))
    dtypes: dict[str, Any] = {name: str(dtype) for name, dtype in studies.dtypes.items()}
    assert dtypes["age_at_study_years"] == "Int16"
    assert dtypes["n_series"] == dtypes["days_since_previous"] == "Int64"
    assert dtypes["patient_key"] == dtypes["modalities_text"] == "string"
    assert dtypes["first_created_at"] == "datetime64[us, UTC]"
    assert studies["days_since_previous"].isna().any()
    since = studies["StudyDate"] >= pd.Timestamp("2013-01-01")
    assert since.sum() == (studies["StudyDate"].dt.year >= 2013).sum() > 0
    assert since.equals(pd.to_datetime(studies["StudyDate"]).ge("2013-01-01").astype(since.dtype))
    own = read_table(unpublished.uri, "studies")
    assert own["StudyDate"].tolist() == pd.to_datetime(studies["StudyDate"]).tolist()
    whole = pd.read_parquet(unpublished.path("published", "series"))
    assert str(whole["has_duplicates"].dtype) == "boolean"


def test_plain_pandas_refuses_to_mix_the_tables_of_published(unpublished: Root) -> None:
    publish_lake(unpublished, built_in("limited"))
    with pytest.raises(Exception, match="Parquet"):
        pd.read_parquet(unpublished.path("published"))


def test_a_lake_of_an_older_release_says_how_to_get_the_columns(tmp_path: Path) -> None:
    with tarfile.open(FIXTURES / "format_4_limited.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    with cohortlake.open(str(tmp_path)) as lake:
        studies = lake.cohort("all")
        assert studies.table_one() is not None
        for ask in (
            lambda: studies.table_one(by="study_year"),
            lambda: studies.where(modalities_text="CT"),
            lambda: lake.sql("SELECT study_quarter FROM series"),
        ):
            with pytest.raises(ColumnNotShown, match=r"older release .*cohortlake rebuild"):
                ask()
    settings = Settings(datastores=(DATASTORE,), root=str(tmp_path), privacy="limited")
    Sync(settings).rebuild()
    with cohortlake.open(str(tmp_path)) as lake:
        counted = lake.cohort("all").count("study_year", "modalities_text")
        assert counted["members"].sum() == 9
        assert lake.verify("every_study").is_identical
