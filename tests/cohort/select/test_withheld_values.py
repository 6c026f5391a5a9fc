"""Of a column that is shown by value, what is withheld is told apart from what was not sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from privacy.people import lake_of, summaries

import cohortlake
from cohortlake import Lake, schema
from cohortlake.errors import NotShown, ValuesWithheld
from cohortlake.privacy import Policy, built_in
from cohortlake.privacy.policy import Treatment
from cohortlake.publish.publisher import publish
from cohortlake.report.holdings import holdings
from cohortlake.report.members import members as members_of
from cohortlake.report.quality import quality

SENT = [
    # modality, description, series number of one series each; each patient and study has one
    ("CT", "CT CHEST", 1),
    ("CT", "of Mr Brown", 2),
    ("JONES", "CT CHEST", 123456789),
    (None, None, None),
]
REVIEWED = Policy(
    "ours", "limited", Treatment.KEEP, allowed={"StudyDescription": frozenset(["CT CHEST"])}
)
NAMES = {
    "DICOMSeriesModality": 0,
    "DICOMStudyDescription": 1,
    "DICOMSeriesNumber": 2,
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    (one, *_) = summaries(1)
    found = []
    for number, sent in enumerate(SENT):
        tags = one["DICOMTags"] | {
            "DICOMPatientId": f"P{number}",
            "DICOMStudyInstanceUID": f"1.{number}",
            "DICOMSeriesInstanceUID": f"2.{number}",
            "DICOMSeriesBodyPart": "CHEST",
            "DICOMPatientSex": "F",
        }
        tags |= {name: sent[place] for name, place in NAMES.items()}
        tags = {name: value for name, value in tags.items() if value is not None}
        found.append(one | {"imageSetId": f"{number:032x}", "DICOMTags": tags})
    root = lake_of(str(tmp_path_factory.mktemp("values") / "lake"), found)
    publish(root, REVIEWED)
    with cohortlake.open(root.uri) as opened:
        yield opened


def members(cohort: Any) -> set[int]:
    return {int(uid[2:]) for uid in cohort.to_pandas()["StudyInstanceUID"]}


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"Modality": "CT"}, {0, 1}),
        ({"Modality": None}, {3}),
        ({"Modality": ["CT", None]}, {0, 1, 3}),
        ({"withheld_fields": "Modality"}, {2}),
        ({"StudyDescription": "CT CHEST"}, {0, 2}),
        ({"StudyDescription": None}, {3}),
        ({"withheld_fields": ["StudyDescription", "SeriesNumber"]}, {1, 2}),
        ({"SeriesNumber": 1}, {0}),
        ({"SeriesNumber": None}, {3}),
        ({"modalities": "CT"}, {0, 1}),
        ({"modalities": None}, {3}),
    ],
)
def test_missing_is_what_was_not_sent(lake: Lake, values: dict[str, Any], found: set[int]) -> None:
    assert members(lake.cohort("a", level="series").where(**values)) == found
    assert members(lake.cohort("a", level="series").exclude(**values)) == {0, 1, 2, 3} - found


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("Modality = 'CT'", {0, 1}),
        ("'CT' = Modality OR SeriesNumber = 99999", {0, 1}),
        ("Modality IN ('CT', 'MR') AND SeriesNumber IN (1, 3)", {0}),
        ("StudyDescription = 'CT CHEST'", {0, 2}),
        ("list_contains(modalities, 'CT') AND n_series = 1", {0, 1}),
        ("list_has_any(modalities, ['CT', 'MR'])", {0, 1}),
        ("sex = 'F'", {0, 1, 2, 3}),
        ("NOT (PatientSex = 'F')", set()),  # of which nothing is withheld
        ("BodyPartExamined IS NULL", set()),
    ],
)
def test_a_condition_that_is_false_of_what_is_withheld_can_be_asked(
    lake: Lake, condition: str, found: set[int]
) -> None:
    assert members(lake.cohort("a", level="series").where(condition)) == found


@pytest.mark.parametrize(
    "condition",
    [
        "Modality IS NULL",
        "Modality IS NOT NULL",
        "Modality <> 'CT'",
        "NOT Modality = 'CT'",
        "Modality NOT IN ('CT')",
        "Modality = 'JONES'",
        "Modality LIKE 'J%'",
        "upper(Modality) = 'CT'",
        "coalesce(Modality, 'CT') = 'CT'",
        "CASE WHEN Modality = 'CT' THEN false ELSE true END",
        "regexp_matches(StudyDescription, 'Brown')",
        "StudyDescription = 'of Mr Brown'",
        "SeriesNumber > 3",
        "SeriesNumber = 123456789",
        "list_contains(modalities, 'JONES')",
        "len(modalities) = 1",
    ],
)
@pytest.mark.parametrize("step", ["where", "exclude"])
def test_any_other_condition_names_the_policy(lake: Lake, step: str, condition: str) -> None:
    with pytest.raises(ValuesWithheld, match="'ours' withholds values of") as told:
        getattr(lake.cohort("a", level="series"), step)(condition)
    assert isinstance(told.value, NotShown)


@pytest.mark.parametrize(
    "values",
    [
        {"Modality": "JONES"},
        {"StudyDescription": "of Mr Brown"},
        {"SeriesNumber": 123456789},
        {"modalities": "JONES"},
    ],
)
def test_a_value_that_is_not_shown_names_the_policy(lake: Lake, values: dict[str, Any]) -> None:
    with pytest.raises(ValuesWithheld, match="withheld_fields="):
        lake.cohort("a", level="series").where(**values)


def test_describe_tells_them_apart(lake: Lake) -> None:
    told = lake.describe("series").set_index("column")
    for name in ("Modality", "StudyDescription", "SeriesNumber"):
        assert (told.loc[name, "missing"], told.loc[name, "withheld"]) == (0.25, 0.25), name
    assert (told.loc["PatientSex", "missing"], told.loc["PatientSex", "withheld"]) == (0, 0)
    told = lake.describe("studies").set_index("column")
    assert (told.loc["modalities", "missing"], told.loc["modalities", "withheld"]) == (0.25, 0.25)


def test_counts_plots_and_table_1_tell_them_apart(lake: Lake) -> None:
    cohort = lake.cohort("a", level="series")
    counted = cohort.count("Modality")
    assert dict(zip(counted["Modality"].fillna("missing"), counted["members"], strict=True)) == {
        "CT": 2,
        "withheld": 1,
        "missing": 1,
    }
    studies = lake.cohort("a").count("modalities")
    lists = [list(found) for found in studies["modalities"]]
    assert sorted(lists) == [[], ["CT"], ["withheld"]]
    table = cohort.table_one(columns=["Modality", "StudyDescription"]).tabulate("github")
    assert table.count("withheld") == 2
    assert table.count("missing") == 2
    axes = cohort.plot.modality_by_body_part().axes[0]
    assert {label.get_text() for label in axes.get_xticklabels()} == {"CT", "missing", "withheld"}
    for ask in (lambda: cohort.count("SeriesNumber"), lambda: cohort.table_one("SeriesNumber")):
        with pytest.raises(ValuesWithheld, match="SeriesNumber in some rows of members of a"):
            ask()


def test_each_table_names_its_own_columns(lake: Lake) -> None:
    def fields(table: str) -> list[Any]:
        rows = lake.sql(f"SELECT list_sort(withheld_fields) FROM {table}").fetchall()
        return sorted(found for (found,) in rows)

    for table in ("image_sets", "history", "series"):
        assert fields(table) == [[], [], ["Modality", "SeriesNumber"], ["StudyDescription"]]
    both = ["modalities", "modalities_text"]
    assert fields("studies") == [[], [], ["StudyDescription"], both]
    assert fields("patients") == [[], [], [], both]
    with cohortlake.open(lake.root.uri, as_of="2100-01-01") as later:
        for table in schema.PUBLISHED:
            both = [
                one.sql(f"SELECT * FROM {table} ORDER BY ALL").to_arrow() for one in (lake, later)
            ]
            assert both[0].equals(both[1]), table


def test_a_policy_that_shows_all_has_no_such_column() -> None:
    for table in schema.PUBLISHED:
        assert "withheld_fields" not in built_in("identified").tables[table]
        assert "withheld_fields" in built_in("safe").tables[table]


def test_the_report_tells_them_apart(lake: Lake) -> None:
    told = {field.name: field for field in quality(lake.opened, 0)}
    for name in ("Modality", "StudyDescription", "SeriesNumber"):
        assert told[name].withheld is not None
        assert (told[name].missing.share, told[name].withheld.share) == (0.25, 0.25), name
    held = holdings(lake, 0)
    assert held.modalities
    assert {value.label: value.n for value in held.modalities.shown} == {
        "CT": 2,
        "withheld": 1,
        "missing": 1,
    }
    of = members_of(lake.cohort("a", level="series").selected, 0).table_one
    assert of
    assert {value.label for value in of["Modality"].shown} == {"CT", "withheld", "missing"}


def test_a_blank_is_missing(tmp_path: Path) -> None:
    """Whatever a sender writes for nothing, one condition finds it."""
    (one, *_) = summaries(1)
    found = []
    for number, sex in enumerate(["F", "", "  ", None, "\\"]):
        tags = one["DICOMTags"] | {
            "DICOMPatientId": f"P{number}",
            "DICOMStudyInstanceUID": f"1.{number}",
            "DICOMSeriesInstanceUID": f"2.{number}",
            "DICOMPatientSex": sex,
        }
        tags = {name: value for name, value in tags.items() if value is not None}
        found.append(one | {"imageSetId": f"{number:032x}", "DICOMTags": tags})
    root = lake_of(f"{tmp_path}/lake", found)
    publish(root, built_in("limited"))
    with cohortlake.open(root.uri) as lake:
        cohort = lake.cohort("a", level="series")
        assert members(cohort.where(PatientSex=None)) == {1, 2, 3, 4}
        assert members(cohort.exclude(PatientSex=None)) == {0}
        assert members(cohort.where("PatientSex IS NULL")) == {1, 2, 3, 4}
        told = lake.describe("series").set_index("column").loc["PatientSex"]
        assert (told["missing"], told["withheld"]) == (0.8, 0.0)
        assert lake.sql("SELECT count(*) FROM series WHERE sex_status = 'missing'").fetchall() == [
            (4,)
        ]
