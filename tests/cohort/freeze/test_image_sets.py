"""The image sets of a frozen cohort: each with its version, and which are not the same any more."""

from __future__ import annotations

import pytest
from cohort.freeze.test_freeze import ENDED, LATER, ROWS, changed
from cohort.tiny import image_set, publish

import cohortlake
from cohortlake.cohort.freeze.verify import Verification


def named(found: Verification) -> set[tuple[str, str, int, int | None]]:
    assert found.image_sets is not None
    rows = found.image_sets.astype(object).where(found.image_sets.notna(), None)
    return set(rows[["what", "image_set_id", "frozen_version", "version"]].itertuples(index=False))


def identifier(number: int) -> str:
    return f"{number:032x}"


@pytest.mark.parametrize("level", ["patient", "study", "series"])
def test_each_image_set_that_changed_or_is_gone_is_named_and_no_other(
    root: str, level: str
) -> None:
    publish(root, ROWS)
    with cohortlake.open(root) as lake:
        first = lake.cohort("first", level=level).where(f"image_set_id < '{identifier(6)}'")
        first.freeze()
        assert lake.verify("first").is_identical
        assert named(lake.verify("first")) == set()
    new = image_set(9, "p9", "1.9", Modality="CT", StudyDate=ROWS[0]["StudyDate"])
    after = [
        ROWS[0] | ENDED | {"ended_by": "deleted"},
        *changed(ROWS[1], NumberOfStudyRelatedSeries=7),
        *ROWS[2:6],
        *changed(ROWS[6], NumberOfStudyRelatedSeries=7),  # in no cohort
        new | LATER,
    ]
    publish(root, after, 1)
    with cohortlake.open(root) as lake:
        found = lake.verify("first")
        assert not found.is_identical
        expected = {("gone", identifier(0), 1, None), ("version changed", identifier(1), 1, 2)}
        assert named(found) == expected
        assert "image sets that changed or are gone" in repr(found)
        again = lake.cohort("first", level=level).where(f"image_set_id < '{identifier(6)}'")
        assert (again.freeze().number, lake.verify("first").is_identical) == (2, True)
        assert named(lake.verify("first@1")) == expected


def test_a_version_without_another_value_is_a_change(root: str) -> None:
    """The values of the member are the same, and its pixels may be other ones."""
    publish(root, ROWS)
    with cohortlake.open(root) as lake:
        lake.cohort("all").freeze()
    publish(root, [ROWS[0] | ENDED | {"ended_by": "superseded"}, ROWS[0] | LATER, *ROWS[1:]], 1)
    with cohortlake.open(root) as lake:
        found = lake.verify("all")
        assert (found.counts, found.is_identical) == ({}, False)
        assert named(found) == {("version changed", identifier(0), 1, 2)}
