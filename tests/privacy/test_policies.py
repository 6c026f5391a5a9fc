"""What each policy shows, against the truth, by means that share nothing with publishing."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset as pads
import pytest
from changing import STEPS, Hospital, published_rows
from hypothesis import HealthCheck, given, settings
from laws import examples
from privacy.people import DATASTORE, SEEN, copy_of, lake_of, summaries
from privacy.reidentify import truth_of, unique_shares

import cohortlake
from cohortlake import schema
from cohortlake.admin import review as reviews
from cohortlake.errors import ColumnNotShown, NotShown, PolicyError, SettingError, UnknownValue
from cohortlake.privacy import Policy, built_in, key_store, policy_of
from cohortlake.publish.publication.marker import MARKER_PATH, read_marker
from cohortlake.publish.publisher import publish
from cohortlake.settings import POLICIES, Settings
from cohortlake.storage.root import Root

FOUND = summaries(150, days=420)
"""Studies of two years: of fewer months, because each is a file of each table."""
FEW = {"patients": 12, "days": 60}
SAFE = [built_in("safe", "shift"), built_in("safe", "year")]
LIMITED = built_in("limited")


class Lakes:
    """The lake of FOUND, published once under each policy that a test asks for.

    All have the same key, and no test changes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limited = lake_of(f"{folder}/limited", FOUND)
        publish(self._limited, LIMITED)
        self._published = {LIMITED.digest: self._limited}

    def under(self, policy: Policy) -> Root:
        if policy.digest not in self._published:
            root = copy_of(self._limited, self.folder / policy.digest)
            publish(root, policy)
            self._published[policy.digest] = root
        return self._published[policy.digest]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Lakes:
    return Lakes(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A small lake that no test changes, published under `limited`."""
    root = lake_of(str(tmp_path_factory.mktemp("few") / "lake"), summaries(**FEW))
    publish(root, LIMITED)
    return root


@pytest.fixture
def root(few: Root, tmp_path: Path) -> Root:
    return copy_of(few, tmp_path)


def _digest(root: Root, *parts: str) -> str:
    key = root.read(key_store.KEY_PATH)
    return hmac.new(key, "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()


def _frame(root: Root, table: str) -> pd.DataFrame:
    return cohortlake.read_table(root.uri, table)


def _every_text(root: Root) -> str:
    """All that a reader of published/ can see: paths, and every value of every file."""
    told = []
    for path in sorted(Path(root.path("published")).rglob("*")):
        told.append(str(path.relative_to(root.path())))
        if path.suffix == ".parquet":
            rows = duckdb.read_parquet(str(path), hive_partitioning=False).fetchall()
            told += [str(value) for row in rows for value in row]
            footer = f"SELECT stats_min_value, stats_max_value FROM parquet_metadata('{path}')"
            told += [str(value) for row in duckdb.sql(footer).fetchall() for value in row]
        elif path.is_file():
            told.append(path.read_text("utf-8", "replace"))
    return "\n".join(told)


@pytest.mark.parametrize("policy", SAFE, ids=["shift", "year"])
def test_safe_shows_no_identifier_and_no_date_as_it_was(lakes: Lakes, policy: Policy) -> None:
    root = lakes.under(policy)
    text = _every_text(root)
    tags = [found["DICOMTags"] for found in FOUND]
    hidden = ("PatientId", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyId",
              "StudyInstanceUID", "SeriesInstanceUID")  # fmt: skip
    words = set(re.findall(r"[^\s,;\"'\[\](){}]+", text))
    for member in hidden:
        assert words.isdisjoint({tag[f"DICOM{member}"] for tag in tags}), member
    days = {tag[f"DICOM{member}"] for tag in tags for member in ("PatientBirthDate", "StudyDate")}
    iso = {f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days}
    told = words & iso
    assert policy is SAFE[0] or not told, "shifted dates fall on others' true ones, cut ones cannot"
    for typed in ("Smith", "JONES", "Miller", "Brown", "CT CHEST"):
        assert typed not in text
    columns = {name for names in read_marker(root).columns.values() for name in names}  # type: ignore[union-attr]
    assert not columns & {"StudyDate", "StudyTime", "created_at", "valid_from", "observed_from"}


def test_shifted_dates_are_the_true_ones_moved_by_the_patients_own_days(lakes: Lakes) -> None:
    root = lakes.under(SAFE[0])
    frame = _frame(root, "image_sets").set_index("image_set_id")
    for found in FOUND:
        tags, row = found["DICOMTags"], frame.loc[found["imageSetId"]]
        patient = (DATASTORE, tags["DICOMPatientId"])
        days = 1 + int(_digest(root, "shift", *patient)[:15], 16) % 365
        true = date.fromisoformat(tags["DICOMStudyDate"])
        assert row["study_date_shifted"].date() == true - timedelta(days=days)
        assert row["study_year_shifted"] == f"{true - timedelta(days=days):%Y}-XX"
        assert row["patient_key"] == _digest(root, "PatientID", *patient)[:32]
        uid = tags["DICOMStudyInstanceUID"]
        assert row["StudyInstanceUID"] == f"2.25.{int(_digest(root, 'UID', uid)[:30], 16)}"
        born = date.fromisoformat(tags["DICOMPatientBirthDate"])
        age = true.year - born.year - ((true.month, true.day) < (born.month, born.day))
        shown = row["age_at_study_years"]
        assert pd.isna(shown) if age < 0 else shown == min(age, 90)


def _lake_with(tmp_path: Path, name: str, *values: str) -> tuple[Root, list[str]]:
    """A lake in which an image set has each of these values, and their ids."""
    found = summaries(**FEW)
    patients = {one["DICOMTags"]["DICOMPatientId"]: one for one in found}
    odd = list(patients.values())[: len(values)]
    for one, value in zip(odd, values, strict=True):
        one["DICOMTags"][f"DICOM{name}"] = value
    return lake_of(str(tmp_path / "lake"), found), [one["imageSetId"] for one in odd]


def test_a_date_that_cannot_be_shifted_is_none(tmp_path: Path) -> None:
    root, odd = _lake_with(tmp_path, "StudyDate", "00010101", "00020101")
    publish(root, SAFE[0])
    for table in ("image_sets", "series", "studies", "patients", "history"):
        rows = _frame(root, table)
        assert repr(rows)
        assert rows.to_dict("records")
    rows = _frame(root, "image_sets").set_index("image_set_id").loc[odd]
    assert rows["study_date_shifted"].isna().all()
    assert rows["study_year_shifted"].isna().all()


def test_a_reviewed_value_is_shown_and_none_that_only_looks_like_it(tmp_path: Path) -> None:
    root, (odd,) = _lake_with(tmp_path, "StudyDescription", "Fuß links ")
    for allowed, is_shown in (("fuß links", True), ("Fuss links", False)):
        file = tmp_path / "policy.yaml"
        allow = f"allow: {{StudyDescription: [{allowed}]}}"
        file.write_text(f"policy: ours\nextends: safe\n{allow}\n")
        policy = policy_of(Settings(privacy="ours", privacy_file=str(file)))
        publish(root, policy)
        shown = _frame(root, "image_sets").set_index("image_set_id").loc[odd, "StudyDescription"]
        assert (not pd.isna(shown)) == is_shown
        review = {one.column: one.values for one in reviews.review(root, policy, 1, 100)}
        assert ("Fuß links" in review["StudyDescription"]) != is_shown


def test_the_year_is_all_that_is_shown_where_dates_are_cut(lakes: Lakes) -> None:
    root = lakes.under(SAFE[1])
    frame = _frame(root, "image_sets").set_index("image_set_id")
    for found in FOUND:
        year = int(found["DICOMTags"]["DICOMStudyDate"][:4])
        assert frame.loc[found["imageSetId"]]["study_year"] == year
    patients = _frame(root, "patients")
    assert str(patients["first_study_year"].dtype) == "Int16"
    folders = {path.name for path in Path(root.path("published/studies")).iterdir()}
    assert all(re.fullmatch(r"study_year_or_undated=(\d{4}-XX|undated)", name) for name in folders)


def test_no_order_of_rows_tells_what_the_years_hide(lakes: Lakes) -> None:
    root = lakes.under(SAFE[1])
    truth = truth_of(FOUND)
    for path in Path(root.path("published/image_sets")).rglob("*.parquet"):
        rows = duckdb.read_parquet(str(path)).fetchdf()
        keys = list(zip(rows["Modality"].fillna("~"), rows["image_set_id"], strict=True))
        assert keys == sorted(keys)
        days = truth.loc[rows["image_set_id"], "StudyDate"].tolist()
        assert len(days) < 8 or days != sorted(days)


@settings(
    max_examples=examples(6, quick=2), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_publishing_what_changed_gives_what_publishing_all_gives_of_years(
    tmp_path_factory: Any, steps: Any
) -> None:
    """As `unit/publish/test_publish.py` has it of the other policies."""
    root = Root(str(tmp_path_factory.mktemp("lake")))
    root.prepare()
    hospital = Hospital(root)
    for changes, gone in steps:
        hospital.step(changes, gone)
        publish(root, SAFE[1])
    little_by_little = published_rows(root)
    root.write("published/full_publish_requested", b"")
    root.delete("published/_published.json")
    publish(root, SAFE[1])
    assert little_by_little == published_rows(root)


def test_another_policy_leaves_no_file_of_the_old_one(root: Root) -> None:
    for policy in (SAFE[0], built_in("identified"), SAFE[1], SAFE[0]):
        published = publish(root, policy)
        assert published is not None
        lying = set(root.files("published", ".parquet"))
        assert lying == set(published.files) == set(published.written)
        for path in lying:
            names = set(duckdb.read_parquet(root.path(path), hive_partitioning=False).columns)
            table = path.split("/")[1]
            assert names == set(published.columns[table]) - {policy.partition.name}


def test_the_same_policy_by_another_name_of_its_file_is_told(root: Root, tmp_path: Path) -> None:
    ours = _policy(tmp_path, "policy: ours\nextends: limited\n", "ours")
    published = publish(root, ours)
    assert published is not None
    assert published.policy == "ours"


def test_what_a_person_allowed_is_shown_and_nothing_else(lakes: Lakes, tmp_path: Path) -> None:
    text = """
    policy: ours
    extends: safe
    allow:
      StudyDescription: [CT CHEST]
      Modality: [JONES]
    """
    frame = _frame(lakes.under(_policy(tmp_path, text, "safe")), "image_sets")
    assert set(frame["StudyDescription"].dropna()) == {"CT CHEST"}
    assert set(frame["Modality"].dropna()) == {"CT", "MR", "DX", "JONES"}
    assert set(frame["PatientSex"].dropna()) == {"F", "M", "O"}
    assert set(frame["BodyPartExamined"].dropna()) == {"CHEST", "HEAD", "KNEE"}


def test_safe_tells_nothing_of_the_past_and_limited_does(lakes: Lakes) -> None:
    root = lakes.under(SAFE[0])
    lake = cohortlake.open(root.uri)
    for ask in (
        lambda: lake.table("image_sets", as_of=SEEN),
        lambda: lake.table("image_sets", known_at=SEEN),
        lambda: lake.changes(SEEN),
        lambda: cohortlake.open(root.uri, as_of=SEEN),
    ):
        with pytest.raises(NotShown, match="'safe' does not show"):
            ask()
    with pytest.raises(ColumnNotShown, match="StudyDate"):
        lake.table("studies", ["StudyDate"])
    uri = lakes.under(LIMITED).uri
    assert len(cohortlake.open(uri).table("image_sets", as_of=SEEN)) == len(FOUND)


def test_a_cohort_is_the_same_under_every_policy_that_tells_days(
    lakes: Lakes, tmp_path: Path
) -> None:
    drawn = []
    for policy in (built_in("identified"), LIMITED, SAFE[0]):
        root = copy_of(lakes.under(policy), tmp_path / policy.name)
        with cohortlake.open(root.uri) as lake:
            cohort = (
                lake.cohort("cts")
                .where(Modality="CT")
                .with_study("any time after", Modality="MR")
                .first_study_per_patient()
            )
            counts = cohort.attrition().to_pandas()[["patients", "studies", "series"]]
            drawn.append((set(cohort.to_pandas()["patient_key"]), counts.to_numpy().tolist()))
            frozen = cohort.freeze()
            assert frozen.policy == policy.name
            assert (frozen.seen_until is None) == (policy.name == "safe")
            assert lake.verify("cts").is_identical
            for name in ("studies_over_time", "age_sex_pyramid"):
                getattr(cohort.plot, name)()
    assert drawn[0] == drawn[1] == drawn[2]
    with (
        cohortlake.open(lakes.under(SAFE[1]).uri) as lake,
        pytest.raises(NotShown, match="by their dates"),
    ):
        lake.cohort("cts").first_study_per_patient().count()


# Re-identification


def test_no_pair_of_columns_leads_back_to_an_identifier_or_a_date(lakes: Lakes) -> None:
    truth = truth_of(FOUND)
    for policy in SAFE:
        frame = _frame(lakes.under(policy), "image_sets").set_index("image_set_id")
        hidden = {"PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID",
                  "StudyTime", "created_at", "StudyDate"}  # fmt: skip
        assert hidden.isdisjoint(frame.columns)
        shares = unique_shares(frame, truth)
        for pair, share in shares.items():
            if {"StudyInstanceUID", "SeriesInstanceUID", "study_date_shifted"} & {*pair}:
                assert share == 0, pair


def test_the_same_attack_succeeds_where_dates_and_uids_are_shown(lakes: Lakes) -> None:
    frame = _frame(lakes.under(LIMITED), "image_sets").set_index("image_set_id")
    shares = unique_shares(frame, truth_of(FOUND))
    assert shares["SeriesInstanceUID", "StudyDate"] == 1
    assert shares["StudyDate", "age_at_study_years"] > 0.2


def test_days_between_dates_are_all_that_shifting_tells(lakes: Lakes) -> None:
    root = lakes.under(SAFE[0])
    frame, truth = _frame(root, "image_sets").set_index("image_set_id"), truth_of(FOUND)
    by_patient: dict[str, set[int]] = defaultdict(set)
    for image_set_id, row in frame.iterrows():
        true = date.fromisoformat(truth.loc[image_set_id, "StudyDate"])
        moved = (true - row["study_date_shifted"].date()).days
        by_patient[row["patient_key"]].add(moved)
    assert all(len(days) == 1 for days in by_patient.values())
    assert len({days for own in by_patient.values() for days in own}) > 80, "each their own"


# Policy files


def _policy(folder: Path, text: str, name: str, dates: str = "shift") -> Policy:
    path = folder / "policy.yaml"
    path.write_text("\n".join(line.removeprefix("    ") for line in text.splitlines()))
    return policy_of(Settings(privacy=name, privacy_file=str(path), safe_dates=dates))


def test_a_file_narrows_under_the_name_of_what_it_extends(tmp_path: Path) -> None:
    text = "policy: ours\nextends: safe\ncolumns: {BodyPartExamined: withhold}\n"
    policy = _policy(tmp_path, text, "safe")
    assert "BodyPartExamined" not in policy.tables["series"]
    assert policy.widened == ()


@pytest.mark.parametrize(
    ("text", "widened"),
    [
        ("columns: {StudyDescription: keep}", ("StudyDescription",)),
        ("columns: {StudyInstanceUID: keep, valid_from: keep}", ("StudyInstanceUID", "valid_from")),
        ("dates: keep", ("dates",)),
    ],
)
def test_what_widens_takes_effect_under_its_own_name_only_and_is_recorded(
    root: Root, tmp_path: Path, text: str, widened: tuple[str, ...]
) -> None:
    said = f"policy: ours\nextends: safe\n{text}\n"
    with pytest.raises(PolicyError, match="COHORTLAKE_PRIVACY=ours") as caught:
        _policy(tmp_path, said, "safe")
    assert all(name in str(caught.value) for name in widened)
    published = publish(root, _policy(tmp_path, said, "ours"))
    assert published is not None
    assert (published.policy, published.widened) == ("ours", widened)
    assert read_marker(root).widened == widened  # type: ignore[union-attr]
    with cohortlake.open(root.uri) as lake:
        assert lake.cohort("all").freeze().widened == list(widened)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a list", "no entries"),
        ("policy: [", "not YAML"),
        ("policy: safe\nextends: safe", "not one of"),
        ("policy: 'a b'\nextends: safe", "letters, digits"),
        ("policy: ours\nextends: saef", "safe, limited, identified"),
        ("policy: ours\ncolums: {}", "did you mean 'columns'"),
        ("policy: ours\ncolumns: {StudyDescripton: keep}", "did you mean 'StudyDescription'"),
        ("policy: ours\ncolumns: {StudyDate: keep}", "all dates are treated alike"),
        ("policy: ours\ncolumns: {Modality: hide}", "keep, terms, reviewed, withhold"),
        ("policy: ours\ncolumns: {patient_key: withhold}", "can be keep"),
        ("policy: ours\ncolumns: {SeriesInstanceUID: withhold}", "can be keep, replace$"),
        ("policy: ours\ncolumns: [Modality]", "a line for each column"),
        ("policy: ours\ndates: guess", "keep, shift, year"),
        ("policy: ours\nallow: {PatientName: [Smith]}", "no values of PatientName"),
        ("policy: ours\nallow: {Modality: [1]}", "quote numbers"),
    ],
)
def test_a_file_that_cannot_be_used_says_the_fix(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        _policy(tmp_path, text, "ours")
    assert "Smith" not in str(caught.value)


def test_an_unknown_policy_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="did you mean 'safe'"):
        policy_of(Settings(privacy="save"))
    with pytest.raises(SettingError, match="did you mean 'ours'"):
        _policy(tmp_path, "policy: ours\n", "our")
    with pytest.raises(PolicyError, match="cannot be read"):
        policy_of(Settings(privacy_file=f"{tmp_path}/nowhere.yaml"))


def test_the_built_in_policies_only_ever_widen() -> None:
    shown = [set(built_in(name).tables["image_sets"]) for name in POLICIES]
    # What is not shown of a row is named where something is not shown.
    assert shown[1] - {schema.WITHHELD_FIELDS.name} < shown[2]
    kept = {c.name for c in schema.published("image_sets")}
    assert shown[0] & kept < shown[1]


def _types(folder: str, column: str) -> set[str]:
    """What readers make of a partition's column by their own defaults, and of one folder alone."""
    types = {
        str(pd.read_parquet(folder)[column].astype("object").map(type).iloc[0]),
        str(pads.dataset(folder, partitioning="hive").schema.field(column).type),
    }
    for pattern in (folder, *(str(path) for path in Path(folder).iterdir())):
        files = duckdb.sql(f"FROM '{pattern}/**/*.parquet'")
        types.add(str(files.types[files.columns.index(column)]))
    return types


def test_a_folders_value_has_one_type_with_and_without_undated_rows(
    lakes: Lakes, tmp_path: Path
) -> None:
    partly, _ = _lake_with(tmp_path, "StudyDate", "none")
    for policy in (*SAFE, LIMITED):
        publish(partly, policy)
        for root in (lakes.under(policy), partly):
            folder = root.path("published/series")
            is_undated = Path(folder, f"{policy.partition.name}={schema.UNDATED}").exists()
            assert is_undated == (root is partly)
            types = _types(folder, policy.partition.name)
            assert types == {"<class 'str'>", "string", "VARCHAR"}, policy.partition.name


def test_a_lake_with_folders_of_plain_years_is_published_anew(lakes: Lakes, tmp_path: Path) -> None:
    root = copy_of(lakes.under(SAFE[0]), tmp_path)
    before = published_rows(root)
    marker = Path(root.path(MARKER_PATH))
    for path in sorted(Path(root.path("published")).rglob("*-XX")):
        path.rename(path.with_name(path.name.removesuffix("-XX")))
    marker.write_text(re.sub(r"=(\d{4})-XX/", r"=\1/", marker.read_text("utf-8")), "utf-8")
    with cohortlake.open(root.uri) as lake:  # as the earlier release published it
        assert set(lake.table("series")["study_year_shifted"].str.len()) == {4}
        lake.cohort("all").freeze()
    publish(root, SAFE[0])
    assert published_rows(root) == before
    left = [str(path) for path in Path(root.path("published")).rglob("*=*/*")]
    assert left
    assert not [path for path in left if re.search(r"=\d{4}/", path)]
    with cohortlake.open(root.uri) as lake:
        assert lake.verify("all").is_identical
        with pytest.raises(UnknownValue, match="study_year_shifted"):
            lake.cohort("a").where(study_year_shifted="2024")
