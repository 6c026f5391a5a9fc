"""What the policy withholds is an error that names the policy, and no missing value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake import Lake, read_table
from cohortlake.errors import ColumnNotShown, NotShown, UnknownColumn
from cohortlake.privacy import Policy, built_in
from cohortlake.privacy.policy import Treatment

ROWS = [
    image_set(0, "p", "1.0", Modality="CT", StudyDate=date(2024, 1, 1),
              StudyDescription="CT CHEST"),
    image_set(1, "q", "1.1", Modality="MR", StudyDate=date(2024, 6, 30)),
]  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    root = str(tmp_path_factory.mktemp("withheld") / "lake")
    publish(root, ROWS)
    with cohortlake.open(root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("conditions", "values"),
    [
        ((), {"StudyDescription": "CT CHEST"}),
        ((), {"StudyDescription": None}),
        (("StudyDescription = 'CT CHEST'",), {}),
        (("StudyDescription is null",), {}),
        (("StudyDescription is not null or Modality = 'CT'",), {}),
        (("regexp_matches(StudyDescription, 'CHEST')",), {}),
        (("PatientID = '1'",), {}),
        (("extra ilike '%x%'",), {"Modality": "CT"}),
    ],
)
@pytest.mark.parametrize("step", ["where", "exclude", "with_study", "without_study"])
def test_a_condition_over_it_names_the_policy(
    lake: Lake, step: str, conditions: tuple[str, ...], values: dict[str, Any]
) -> None:
    when = ("any time before",) if step.startswith("with") else ()
    with pytest.raises(ColumnNotShown, match="the privacy policy 'limited' does not show") as told:
        getattr(lake.cohort("a"), step)(*when, *conditions, **values)
    assert "docs/how-to/privacy.md" in str(told.value)
    assert "CHEST" not in str(told.value)


def test_every_other_question_names_the_policy(lake: Lake) -> None:
    cohort = lake.cohort("a")
    for ask in (
        lambda: cohort.count("StudyDescription"),
        lambda: cohort.table_one(columns=["StudyDescription"]),
        lambda: cohort.table_one(by="StudyDescription"),
        lambda: lake.sql("SELECT count(StudyDescription) FROM studies"),
        lambda: lake.sql("SELECT 1 FROM series WHERE studydescription IS NULL"),
        lambda: lake.sql("FROM series a JOIN studies b USING (StudyDescription)"),
        lambda: lake.table("studies", ["StudyDescription"]),
        lambda: lake.check_value("studies", "StudyDescription", "CT CHEST"),
        lambda: read_table(lake.root.uri, "studies", ["StudyDescription"]),
    ):
        with pytest.raises(NotShown, match="'limited' does not show StudyDescription"):
            ask()
    assert "StudyDescription" not in [*lake.describe("studies")["column"], *lake.columns("series")]
    with pytest.raises(UnknownColumn):  # a column of another table is not withheld
        lake.table("patients", ["Modality"])


def test_a_date_that_is_shown_as_another_column_is_told_by_its_name(root: str) -> None:
    rows = [{k: v for k, v in row.items() if k != "StudyDate"} for row in ROWS]
    publish(root, rows, policy=built_in("limited"))
    withheld = Policy("ours", "limited", Treatment.KEEP, {"Modality": Treatment.WITHHOLD})
    publish(root, ROWS, policy=withheld)
    with cohortlake.open(root) as lake:
        with pytest.raises(NotShown, match="'ours' does not show Modality"):
            lake.cohort("a").plot.modality_by_body_part()
        with pytest.raises(NotShown, match="'ours' does not show Modality"):
            lake.cohort("a").where(Modality="CT")
    assert str(lake.opened.publication.not_shown("modality")).startswith(
        "the privacy policy 'ours'"
    )


def test_a_policy_that_shifts_dates_says_what_stands_in_their_place(lake: Lake) -> None:
    safe = built_in("safe")
    shown = lake.opened.publication.__class__(
        0, safe.name, safe.digest, (), safe.tables, 0, "2026-01-01T00:00:00+00:00", {}
    )
    told = str(shown.not_shown("StudyDate"))
    assert "'safe' does not show StudyDate but study_date_shifted in its place" in told
    assert shown.not_shown("study_date_shifted") is None
    assert shown.not_shown("StudyDat") is None


def test_free_text_is_there_once_a_value_was_reviewed() -> None:
    reviewed = Policy(
        "ours", "safe", Treatment.SHIFT, allowed={"StudyDescription": frozenset(["CT CHEST"])}
    )
    assert "StudyDescription" in reviewed.tables["studies"]
    for policy in (built_in("safe"), built_in("limited")):
        assert not {"StudyDescription", "extra"} & {*policy.tables["image_sets"]}
    assert {"StudyDescription", "extra"} < {*built_in("identified").tables["image_sets"]}
