"""A report under any policy that a file can make: what it does not show is said, and left out."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from cohort.tiny import image_set, publish
from laws import examples

import cohortlake
from cohortlake import Settings, report, schema
from cohortlake.errors import PolicyError
from cohortlake.privacy import Policy, policy_of
from cohortlake.report.gather import Report, gather

ROWS = [
    image_set(n, f"p{n}", f"1.{n}", Modality="CT", PatientSex="FM"[n % 2], kind="created",
              BodyPartExamined="CHEST", StudyDate=date(2020, 1, 1) + timedelta(days=n),
              age_at_study_years=40 + n % 10, SeriesNumber=1)
    for n in range(30)
]  # fmt: skip


def withholding(columns: list[str], folder: Path) -> Policy:
    """Return the policy of a file that extends `limited` and withholds some columns."""
    lines = "".join(f"  {column}: withhold\n" for column in columns)
    (folder / "policy.yaml").write_text(f"policy: own\nextends: limited\ncolumns:\n{lines}")
    settings = Settings((), "unused", privacy="own", privacy_file=str(folder / "policy.yaml"))
    return policy_of(settings)


def may_be_withheld(folder: Path) -> list[str]:
    """Return all columns of the published tables that a file can withhold."""
    found = []
    for name in sorted({column.name for table in schema.PUBLISHED.values() for column in table}):
        try:
            withholding([name], folder)
        except PolicyError:
            continue
        found.append(name)
    return found


def facts_without(columns: list[str], folder: Path) -> Report:
    root = str(folder / "lake")
    publish(root, ROWS, policy=withholding(columns, folder))
    with cohortlake.open(root) as lake:
        return gather(lake.opened, lake.cohort("all").selected, 11, timedelta(0))


def page_without(columns: list[str], folder: Path) -> str:
    root = str(folder / "lake")
    publish(root, ROWS, policy=withholding(columns, folder))
    with cohortlake.open(root) as lake:
        report.write(lake, folder / "a.html", lake.cohort("all"))
    return (folder / "a.html").read_text("utf-8")


@pytest.mark.hypothesis  # so that `make laws` runs it
def test_any_column_may_be_withheld(tmp_path: Path) -> None:
    """Each column alone in `make laws`; in `make test`, each with some that are unlike it."""
    columns = may_be_withheld(tmp_path)
    assert {"Modality", "BodyPartExamined", "PatientSex", "sex", "kind", "is_primary"} <= {*columns}
    n_lakes = examples(len(columns), quick=8)
    failed = {}
    for number in range(n_lakes):
        withheld = columns[number::n_lakes]
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            told = facts_without(withheld, folder)
        except Exception as error:  # all that fail are told at once
            failed[*withheld] = error
        else:
            assert told.trends.years.cells, withheld
    assert failed == {}


def test_all_of_them_may_be_withheld(tmp_path: Path) -> None:
    page = page_without(may_be_withheld(tmp_path), tmp_path)
    assert 'id="cohort"' in page
    assert "<svg" in page  # studies by year are told still


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page under a policy that withholds no more than `limited`."""
    return page_without([], tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "told",
    [
        {
            "Modality": ("The policy does not show Modality.", "Studies by year and modality"),
            "kind": ("The policy does not show kind", 'id="kinds"'),
        },
        {
            "BodyPartExamined": ("The policy does not show BodyPartExamined.", 'id="cohort-parts"'),
            "ended_by": ("The policy does not show ended_by", "that began them, and deletions"),
        },
        {
            "sex": ("Without the charts of sex", 'id="ages"'),
            "valid_to": ("The policy does not show when they changed", 'id="changed"'),
        },
        {"age_at_study_years": ("Without the charts of age_at_study_years", 'id="ages"')},
    ],
    ids=", ".join,
)
def test_the_page_says_what_the_policy_does_not_show(
    whole: str, tmp_path: Path, told: dict[str, tuple[str, str]]
) -> None:
    """Columns of different parts of the page are withheld together."""
    page = page_without([*told], tmp_path)
    for says, lacks in told.values():
        assert says not in whole
        assert lacks in whole
        assert says in page
        assert lacks not in page
    assert 'id="years"' in page
