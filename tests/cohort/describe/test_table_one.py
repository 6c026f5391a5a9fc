"""Table 1 and the plots: what they say is what the members are."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import image_set, opened

from cohortlake import Lake
from cohortlake.cohort import Cohort
from cohortlake.errors import BadCriteria, MissingExtra, UnknownColumn
from cohortlake.report.members import members as reported


@pytest.fixture
def cohort(hospital: Lake) -> Cohort:
    cohort = hospital.cohort("chests").where(Modality=["CT", "DX", "MR"])
    return cohort.first_study_per_patient().split(train=0.5, test=0.5)


def cells(table: Any) -> dict[str, str]:
    flat = table.tableone.copy()
    flat.index = [" ".join(map(str, key)).strip() for key in flat.index]
    flat.columns = [c if isinstance(c, str) else c[-1] for c in flat.columns]
    return {str(name): str(row["Overall"]) for name, row in flat.iterrows()}


def test_table_one_says_what_pandas_says(cohort: Cohort) -> None:
    members = cohort.to_pandas()
    told = cells(cohort.table_one())
    ages = members["age_at_study_years"].astype("Float64").dropna().astype(float)
    women = int((members["sex"] == "F").sum())
    assert told["n"] == str(len(members))
    assert told["age_at_study_years, mean (SD)"] == f"{ages.mean():.1f} ({ages.std():.1f})"
    assert told["sex, n (%) F"] == f"{women} ({100 * women / len(members):.1f})"
    assert "modalities, n (%) CT" in told


def test_table_one_by_a_column_adds_up(cohort: Cohort) -> None:
    table = cohort.table_one(by="split", columns=["PatientSex", "n_series", "split"]).tableone
    flat = {str(column[-1]): list(table[column]) for column in table.columns}
    assert int(flat["train"][0]) + int(flat["test"][0]) == int(flat["Overall"][0])
    assert any("SMD" in name for name in flat)


def test_it_tells_what_was_joined_and_at_each_level(hospital: Lake) -> None:
    keys = hospital.sql("SELECT patient_key FROM patients ORDER BY 1").to_pandas()
    registry = keys.assign(
        grade=range(len(keys)), arm="a", seen=date(2020, 1, 1), note=keys["patient_key"]
    )
    registry.loc[0, "arm"] = " "
    hospital.attach("registry", registry)
    for level in ("patient", "study", "series"):
        told = cells(hospital.cohort("all", level=level).join("registry").table_one())
        assert {"arm, n (%) a", "arm, n (%) blank", "grade, mean (SD)"} <= set(told)
        assert not any(name.startswith(("seen", "note")) for name in told)


def test_a_column_that_is_not_there_is_told(cohort: Cohort) -> None:
    with pytest.raises(UnknownColumn, match="did you mean 'PatientSex'"):
        cohort.table_one(by="Patientsex")


def test_plots_draw_what_is_there(cohort: Cohort) -> None:
    members = cohort.to_pandas()
    (over_time,) = cohort.plot.studies_over_time().axes
    assert sum(bar.get_height() for bar in over_time.patches) == len(members)

    (pyramid,) = cohort.plot.age_sex_pyramid().axes
    women = members[members["sex"] == "F"]["age_at_study_years"].notna().sum()
    assert -sum(bar.get_width() for bar in pyramid.patches if bar.get_width() < 0) == women

    (grid,) = cohort.plot.modality_by_body_part().axes
    drawn = grid.images[0].get_array()
    series = cohort.ask(f"SELECT count(*) FROM {cohort.selected.query.last}").fetchall()
    assert [(int(drawn.sum()),)] == series
    assert cohort.plot.studies_over_time()._repr_png_().startswith(b"\x89PNG")


def test_few_months_are_drawn_by_month_and_nobody_is_drawn_too() -> None:
    rows = [image_set(n, f"p{n}", f"1.{n}", StudyDate=date(2020, 1 + n, 3)) for n in range(3)]
    with opened(rows) as lake:
        (axes,) = lake.cohort("a").plot.studies_over_time().axes
        assert [bar.get_height() for bar in axes.patches] == [1, 1, 1]
        assert "month" in axes.get_xlabel()
        (axes,) = lake.cohort("a").plot.age_sex_pyramid().axes
        assert "3 more not shown" in axes.get_xlabel()
        nobody = lake.cohort("a").where("StudyDate > '2030-01-01'").plot
        for draw in (
            nobody.studies_over_time,
            nobody.age_sex_pyramid,
            nobody.modality_by_body_part,
        ):
            assert draw()._repr_png_()


def pyramid(cohort: Cohort) -> tuple[dict[str, int], str]:
    """Draw the patients: (band, sex) -> how many, and what stands below."""
    (axes,) = cohort.plot.age_sex_pyramid().axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = {
        f"{name} {side.get_label()[0].upper()}": round(abs(bar.get_width()))
        for side in axes.containers
        for name, bar in zip(names, side, strict=True)
        if bar.get_width()
    }
    return drawn, axes.get_xlabel()


def test_ages_are_those_at_the_first_study_also_where_it_has_none() -> None:
    rows = [
        image_set(0, "p", "1.0", PatientSex="F", StudyDate=date(2000, 1, 1)),
        image_set(1, "p", "1.1", PatientSex="F", StudyDate=date(2020, 1, 1), age_at_study_years=60),
        image_set(2, "q", "1.2", PatientSex="f", StudyDate=date(2020, 1, 1), age_at_study_years=60),
        image_set(3, "q", "1.3", PatientSex="F"),
        image_set(4, "r", "1.4", PatientSex="M"),
    ]
    with opened(rows) as lake:
        drawn, below = pyramid(lake.cohort("a"))
        told = cells(lake.cohort("a").table_one())
        ages = reported(lake.cohort("a").selected, 0).ages
    assert drawn == {"60-69 F": 1}
    assert below == "patients (2 more not shown)"
    assert told["sex, n (%) F"] == "4 (80.0)"
    assert ages is not None
    assert ages.cells == {("60-69", "F"): 1}


def test_what_is_beyond_the_most_parts_and_modalities_is_counted() -> None:
    rows = [
        image_set(n, "p", f"1.{n}", Modality=f"M{n:02}", BodyPartExamined=f"P{n // 2:02}")
        for n in range(40)
    ]
    with opened(rows) as lake:
        (axes,) = lake.cohort("a").plot.modality_by_body_part().axes
    assert (len(axes.get_xticks()), len(axes.get_yticks())) == (6, 15)
    drawn = int(axes.images[0].get_array().sum())
    assert axes.get_xlabel() == f"series ({40 - drawn} more not shown)"


def test_nobody_has_no_table_one(hospital: Lake) -> None:
    for by in (None, "PatientSex"):
        with pytest.raises(BadCriteria, match="nobody has no members to describe"):
            hospital.cohort("nobody").where("age_at_study_years > 200").table_one(by=by)


def test_values_are_drawn_as_they_are(tmp_path: Path) -> None:
    values = ["$A$", r"_$\frac$", "^{$"]
    rows = [
        image_set(n, "p", f"1.{n}", Modality=value, BodyPartExamined=value,
                  StudyDate=date(2020, 1, 1))
        for n, value in enumerate(values)
    ]  # fmt: skip
    with opened(rows) as lake:
        figure = lake.cohort("a").plot.modality_by_body_part()
    assert figure._repr_png_()
    figure.savefig(tmp_path / "a.svg")
    for value in values:  # along both axes
        assert (tmp_path / "a.svg").read_text("utf-8").count(f"<!-- {value} -->") == 2


def test_without_the_extra_it_says_what_to_install(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tableone", None)
    with pytest.raises(MissingExtra, match=r"tableone is not installed.*cohortlake\[notebook\]"):
        cohort.table_one()


def test_members_stay_as_they_are(cohort: Cohort) -> None:
    before = cohort.to_pandas()
    cohort.table_one(by="split")
    pd.testing.assert_frame_equal(cohort.to_pandas(), before)
