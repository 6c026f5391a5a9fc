"""Iceberg tables of what is published, read by PyIceberg: on a disk, on S3, in SQL, in Glue."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from aws import ACTIONS
from documents import read, write_headers
from looks import DATASTORE, Looked, write
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table
from pyiceberg.utils.config import Config

from cohortlake import Settings, Sync, schema
from cohortlake.errors import NotRegistered, SettingError
from cohortlake.history import image_sets
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.publish.export import tables
from cohortlake.publish.iceberg import commit, data_files, registration
from cohortlake.publish.publication.marker import Publication
from cohortlake.settings import POLICIES
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTING = "lakes.imaging"
RIGHTS = Path(__file__).parents[3] / "docs/iam/writer-iceberg.json"
FEW = ("series", "patients")
DATES = ("20240105", "20240207", "20250310", "no date")


def use_sql(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Keep the catalogue in a folder."""
    patch.setenv("PYICEBERG_CATALOG__LAKES__TYPE", "sql")
    patch.setenv("PYICEBERG_CATALOG__LAKES__URI", f"sqlite:///{folder}/catalogue.db")


def register_few(patch: pytest.MonkeyPatch) -> None:
    """Register two tables alone, which takes a third of the time."""

    def two(publication: Publication) -> tuple[tables.Table, ...]:
        return tuple(t for t in tables.tables(publication) if t.name in FEW)

    patch.setattr(registration, "tables", two)


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_sql(tmp_path, monkeypatch)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    register_few(monkeypatch)


@pytest.fixture
def root(sql: None, tmp_path: Path) -> Root:
    made = Root(str(tmp_path / "it's a lake"))
    made.prepare()
    return made


@pytest.fixture(scope="module")
def registered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake whose two tables are registered, and with their catalogue."""
    folder = tmp_path_factory.mktemp("registered") / "now"
    with pytest.MonkeyPatch.context() as patch:
        use_sql(folder, patch)
        register_few(patch)
        root = Root(str(folder / "it's a lake"))
        root.prepare()
        see(root, DATES)
        publish(root)
    shutil.copytree(folder, folder.with_name("kept"))
    return folder


@pytest.fixture
def registered(registered_once: Path, monkeypatch: pytest.MonkeyPatch, few: None) -> Root:
    """That lake as it was, in the same place for each test: the tables have full paths."""
    use_sql(registered_once, monkeypatch)
    shutil.rmtree(registered_once)
    shutil.copytree(registered_once.with_name("kept"), registered_once)
    return Root(str(registered_once / "it's a lake"))


def see(root: Root, dates: tuple[str, ...], hour: int = 0, **tags: str) -> None:
    """Have one image set of each date seen."""
    at = START + timedelta(hours=hour)
    found = [
        {
            "imageSetId": f"{number:032x}",
            "version": 1 + hour,
            "createdAt": START,
            "updatedAt": at,
            "isPrimary": True,
            "DICOMTags": {
                "DICOMPatientId": f"P{number}",
                "DICOMStudyInstanceUID": f"1.{number}",
                "DICOMSeriesInstanceUID": f"2.{number}",
                "DICOMSeriesModality": "CT",
                "DICOMStudyDate": day,
                "DICOMStudyTime": "101500",
                **tags,
            },
        }
        for number, day in enumerate(dates)
    ]
    for number, day in enumerate(dates):
        month = f"{day[:4]}-{day[4:6]}" if day.isdigit() else schema.UNDATED
        header = read({"SliceThickness": "1.5", "Manufacturer": "GE"}, {"SliceThickness": "3"})
        write_headers(root, DATASTORE, month, {(f"{number:032x}", 1): header})
    image_sets.apply(root, write(root, [Looked(at + timedelta(minutes=1), found)]))


def publish(root: Root, policy: str = "limited", setting: str = SETTING) -> tuple[str, ...]:
    assert publisher.publish(root, built_in(policy))
    return registration.register(root, setting)


def table(name: str) -> Any:
    s3 = {"s3.endpoint": os.environ.get("AWS_ENDPOINT_URL_S3", ""), "client.region": "us-east-1"}
    properties = {**s3, **Config().get_catalog_config("lakes")}
    return load_catalog("lakes", **properties).load_table(("imaging", name))


def rows(name: str, **scan: Any) -> list[dict[str, Any]]:
    return sorted(table(name).scan(**scan).to_arrow().to_pylist(), key=str)


def paths(name: str) -> set[str]:
    return set(table(name).inspect.files()["file_path"].to_pylist())


def below(root: Root, name: str) -> set[str]:
    return {root.uri_of(path) for path in root.files(f"iceberg/{name}/data", "")}


def assert_nothing_else(root: Root, name: str) -> None:
    """Hold that a table has one snapshot, and its folder no file that this does not need."""
    (snapshot,) = table(name).snapshots()
    manifests = {each.manifest_path for each in snapshot.manifests(table(name).io)}
    metadata = {root.uri_of(path) for path in root.files(f"iceberg/{name}/metadata", ".avro")}
    assert metadata == {snapshot.manifest_list, *manifests}
    assert below(root, name) == paths(name)


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("PatientName=Canary")


@pytest.mark.parametrize(
    "policy",
    [pytest.param(name, marks=[pytest.mark.chaos] * (name == "limited")) for name in POLICIES],
)
def test_every_table_has_the_published_rows(root: Root, policy: str) -> None:
    see(root, DATES)
    registered = set(publish(root, policy))
    with_rows = {path.split("/")[1] for path in root.files("published", ".parquet")}
    assert registered == with_rows
    views = duckdb.connect(root.path("published/cohortlake.duckdb"), read_only=True)
    views.execute("SET TimeZone = 'UTC'")
    for name in schema.PUBLISHED:
        fields = [field.name for field in table(name).schema().fields]
        view = views.sql(f"SELECT {', '.join(fields)} FROM {name}").to_arrow_table()
        assert len(view) == (len(DATES) if name in with_rows else 0)
        assert rows(name) == sorted(view.to_pylist(), key=str)
        left_out = set(views.sql(f"FROM {name}").columns) - set(fields)
        assert left_out == (
            {"StudyTime"} if "StudyTime" in views.sql(f"FROM {name}").columns else set()
        )
        assert all(field.doc for field in table(name).schema().fields)


def test_a_publication_is_one_snapshot_and_leaves_other_files_alone(registered: Root) -> None:
    before, files = rows("series"), paths("series")
    see(registered, DATES[:1], hour=1, DICOMSeriesModality="MR")
    assert "series" in publish(registered)
    first, second = table("series").snapshots()
    assert second.summary["added-data-files"] == second.summary["deleted-data-files"] == "1"
    assert len(paths("series") & files) == len(DATES) - 1
    assert rows("series", snapshot_id=first.snapshot_id) == before
    assert {row["Modality"] for row in before} == {"CT"}
    assert sorted(row["Modality"] for row in rows("series")) == ["CT", "CT", "CT", "MR"]
    assert publish(registered) == ()
    assert len(table("series").snapshots()) == 2


def test_files_are_links_to_the_published_ones(root: Root, few: None) -> None:
    see(root, DATES)
    publish(root)
    published = {
        Path(root.path(p)).stat().st_ino for p in root.files("published/series", ".parquet")
    }
    assert {Path(path).stat().st_ino for path in paths("series")} == published


def test_a_filter_reads_the_files_of_its_period_alone(registered: Root) -> None:

    def planned(condition: str) -> list[str]:
        tasks = table("series").scan(row_filter=condition).plan_files()
        return sorted(task.file.file_path.split("/")[-2] for task in tasks)

    assert planned("study_month = '2024-01'") == ["study_month=2024-01"]
    assert planned("study_month >= '2024-02'") == ["study_month=2024-02", "study_month=2025-03"]
    assert planned("study_month is null") == ["study_month=undated"]
    assert planned("StudyDate > '2025-01-01'") == ["study_month=2025-03"]
    (row,) = rows("series", row_filter="study_month = '2024-02'")
    assert (row["study_month"], str(row["StudyDate"])) == ("2024-02", "2024-02-07")


def test_what_a_killed_run_left_out_is_registered_next_time(
    registered: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in (1, 2):  # published, and not registered
        see(registered, DATES[:hour], hour=hour, DICOMSeriesModality="MR")
        publisher.publish(registered, built_in("limited"))
    with monkeypatch.context() as patch:  # registered, but for the commit
        patch.setattr(Table, "_do_commit", fail)
        with pytest.raises(NotRegistered, match="RuntimeError in") as raised:
            registration.register(registered, SETTING)
        assert "Canary" not in f"{raised.value!r} {raised.value.__context__!r}"
    assert below(registered, "series") > paths("series")
    registration.register(registered, SETTING)
    assert len(table("series").snapshots()) == 2
    assert sorted(row["Modality"] for row in rows("series")) == ["CT", "CT", "MR", "MR"]


def test_of_two_runs_that_register_at_once_first_the_second_is_refused(
    root: Root, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(root, DATES)
    publisher.publish(root, built_in("limited"))
    register_twice_at_once(root, monkeypatch)
    assert len(table("series").snapshots()) == 1


def test_of_two_runs_that_register_at_once_the_second_is_refused(
    registered: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(registered, DATES[:1], hour=1, DICOMSeriesModality="MR")
    publisher.publish(registered, built_in("limited"))
    register_twice_at_once(registered, monkeypatch)
    assert len(table("series").snapshots()) == 2


def register_twice_at_once(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    add = data_files.add

    def after_another_run(*arguments: Any) -> Any:
        monkeypatch.setattr(data_files, "add", add)
        assert "series" in registration.register(root, SETTING)
        return add(*arguments)

    monkeypatch.setattr(data_files, "add", after_another_run)
    with pytest.raises(NotRegistered, match="CommitFailedException"):
        registration.register(root, SETTING)
    registration.register(root, SETTING)
    assert len(rows("series")) == len(DATES)


def test_another_policy_leaves_nothing_of_the_former_one(root: Root, few: None) -> None:
    see(root, DATES)
    publish(root, "identified")
    table("series").manage_snapshots().create_tag(
        table("series").current_snapshot().snapshot_id, "kept"
    ).commit()
    wide = table("patients").schema().column_names
    publish(root, "safe")
    for name in FEW:
        assert_nothing_else(root, name)
    assert "PatientName" in wide
    assert "PatientName" not in table("patients").schema().column_names
    content = b"".join(Path(root.path(p)).read_bytes() for p in root.files("iceberg", ""))
    assert b"PatientName" not in content


def test_an_erased_patient_is_in_no_snapshot(sql: None, tmp_path: Path, few: None) -> None:
    lake = str(tmp_path / "lake")
    settings = Settings((DATASTORE,), lake, privacy="identified", iceberg=SETTING)
    sync = Sync(settings)
    root = sync.root
    see(root, DATES)
    sync.publish()
    see(root, DATES, hour=1, DICOMSeriesModality="MR")
    sync.apply()
    sync.publish()
    assert len(table("series").snapshots()) == 2
    killed = Path(root.path("iceberg/series/data/of-a-killed-run.parquet"))
    killed.write_bytes(b"P1")
    with pytest.raises(SettingError, match=r"set COHORTLAKE_ICEBERG=lakes\.imaging"):
        Sync(replace(settings, iceberg="")).erase("P1", DATASTORE)
    assert "P1" in {row["PatientID"] for row in rows("series")}
    sync.erase("P1", DATASTORE)
    for name in FEW:
        assert_nothing_else(root, name)
        assert {row["PatientID"] for row in rows(name)} == {"P0", "P2", "P3"}


def test_a_key_that_is_rotated_leaves_nothing_of_the_former_one(
    sql: None, tmp_path: Path, few: None
) -> None:
    settings = Settings((DATASTORE,), str(tmp_path / "lake"), privacy="safe", iceberg=SETTING)
    sync = Sync(settings)
    root = sync.root
    see(root, DATES)
    sync.publish()
    before = {row["patient_key"] for row in rows("patients")}
    sync.rotate_key("lake")
    assert before.isdisjoint(row["patient_key"] for row in rows("patients"))
    assert_nothing_else(root, "patients")


def test_maintenance_expires_what_is_older_than_the_retention(registered: Root) -> None:
    for hour, modality in ((1, "MR"), (2, "PT")):
        see(registered, DATES[:1], hour=hour, DICOMSeriesModality=modality)
        publish(registered)
    tagged, _, last = table("series").snapshots()
    table("series").manage_snapshots().create_tag(tagged.snapshot_id, "paper").commit()
    registration.expire(registered, SETTING, timedelta(days=7))
    assert len(table("series").snapshots()) == 3
    for path in registered.files("iceberg/series", ""):
        os.utime(registered.path(path), (0, 0))
    Path(registered.path("iceberg/series/data/just-written.parquet")).touch()
    registration.expire(registered, SETTING, timedelta(0))
    assert [each.snapshot_id for each in table("series").snapshots()] == [
        tagged.snapshot_id,
        last.snapshot_id,
    ]
    # Those of the tagged one, the one that the last one has instead of one of them, and that.
    assert len(below(registered, "series")) == len(DATES) + 1 + 1
    before = rows("series", snapshot_id=tagged.snapshot_id)
    assert [row["Modality"] for row in before] == ["CT"] * len(DATES)
    assert sorted(row["Modality"] for row in rows("series")) == ["CT", "CT", "CT", "PT"]


def test_many_publications_leave_few_manifests(
    registered: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_MOST_MANIFESTS", 3)
    for hour in range(1, 5):
        see(registered, DATES[:1], hour=hour, DICOMSeriesModality=("CT", "MR")[hour % 2])
        publish(registered)
        assert len(table("series").current_snapshot().manifests(table("series").io)) <= 3
    for hour, snapshot in enumerate(table("series").snapshots()):
        found = rows("series", snapshot_id=snapshot.snapshot_id)
        assert sorted(row["Modality"] for row in found) == sorted(
            ["CT", "CT", "CT", ("CT", "MR")[hour % 2]]
        )


def test_a_new_column_is_added_and_old_snapshots_stay(
    root: Root, monkeypatch: pytest.MonkeyPatch, few: None
) -> None:
    see(root, DATES)
    new = ("Modality", "StudyTime")

    def older(publication: Publication) -> tuple[tables.Table, ...]:
        found = [t for t in tables.tables(publication) if t.name in FEW]
        return tuple(
            replace(each, columns=tuple(c for c in each.columns if c.name not in new))
            for each in found
        )

    with monkeypatch.context() as patch:
        patch.setattr(registration, "tables", older)
        publish(root)
    assert "Modality" not in table("series").schema().column_names
    see(root, DATES[:1], hour=1, DICOMSeriesModality="MR")
    publish(root)
    assert len(table("series").snapshots()) == 2
    assert sorted(row["Modality"] for row in rows("series")) == ["CT", "CT", "CT", "MR"]
    assert "StudyTime" not in table("series").schema().column_names


def test_a_lake_that_was_moved_is_registered_where_it_lies(
    registered: Root, tmp_path: Path
) -> None:
    moved = Root(str(tmp_path / "moved"))
    Path(registered.uri).rename(moved.uri)
    assert publish(moved) == FEW
    assert all(path.startswith(moved.uri) for path in paths("series"))
    assert below(moved, "series") == paths("series")
    assert len(rows("series")) == len(DATES)


def test_two_lakes_do_not_share_a_namespace(registered: Root, tmp_path: Path) -> None:
    shutil.copytree(registered.uri, tmp_path / "copy")
    copy = Root(str(tmp_path / "copy"))
    copy.delete("iceberg/catalogue.json")
    with pytest.raises(SettingError, match="name another namespace"):
        publish(copy)
    assert len(rows("series")) == len(DATES)


def test_files_that_are_gone_are_added_again(registered: Root) -> None:
    Path(min(paths("series"))).unlink()
    assert registration.register(registered, SETTING) == ()
    assert registration.register(registered, SETTING, verify=True) == ("series",)
    assert len(rows("series")) == len(DATES)


def test_what_another_tool_wrote_into_a_table_is_taken_out(registered: Root) -> None:
    expected = rows("patients")
    table("patients").append(table("patients").scan().to_arrow())
    assert len(rows("patients")) == 2 * len(expected)
    assert registration.register(registered, SETTING) == ("patients",)
    assert rows("patients") == expected


def test_an_altered_file_is_not_registered(root: Root, few: None) -> None:
    see(root, DATES)
    assert publisher.publish(root, built_in("limited"))
    path = Path(root.path(root.files("published/series", ".parquet")[0]))
    content = path.read_bytes()
    path.write_bytes(content[:50] + b"x" + content[51:])
    with pytest.raises(NotRegistered, match="publish --verify"):
        registration.register(root, SETTING)
    publisher.publish(root, built_in("limited"), verify=True)
    registration.register(root, SETTING)
    assert len(rows("series")) == len(DATES)


def test_settings_that_cannot_be_used(
    root: Root, monkeypatch: pytest.MonkeyPatch, few: None
) -> None:
    see(root, DATES[:1])
    publisher.publish(root, built_in("limited"))
    with pytest.raises(SettingError, match="has no catalogue 'other'"):
        registration.register(root, "other.imaging")
    registration.register(root, SETTING)
    with pytest.raises(SettingError, match=r"COHORTLAKE_ICEBERG=lakes\.imaging"):
        registration.register(root, "lakes.elsewhere")
    with pytest.raises(SettingError, match=r"COHORTLAKE_ICEBERG must be CATALOGUE\.NAMESPACE"):
        Settings.from_env({"COHORTLAKE_ICEBERG": "glue"})
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKES__URI", "postgresql://me:secret@nowhere.invalid/x")
    with pytest.raises(NotRegistered) as raised:
        registration.register(root, SETTING)
    assert "secret" not in str(raised.value)


@pytest.fixture(params=["glue", pytest.param("sql", marks=pytest.mark.chaos)])
def on_s3(
    request: pytest.FixtureRequest, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Root:
    if request.param == "sql":
        request.getfixturevalue("sql")
    else:
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKES__TYPE", "glue")
        monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", aws)
    bucket = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=bucket)
    made = Root(f"s3://{bucket}/a/b")
    made.prepare()
    return made


def test_on_s3_snapshots_are_registered_and_expire(on_s3: Root, few: None) -> None:
    ACTIONS.clear()
    see(on_s3, DATES[:2])
    assert publish(on_s3) == FEW
    see(on_s3, DATES[:1], hour=1, DICOMSeriesModality="MR")
    publish(on_s3)
    first, _ = table("series").snapshots()
    assert [row["Modality"] for row in rows("series", snapshot_id=first.snapshot_id)] == ["CT"] * 2
    assert sorted(row["Modality"] for row in rows("series")) == ["CT", "MR"]
    assert publish(on_s3) == ()
    publish(on_s3, "safe")
    assert below(on_s3, "series") == paths("series")
    assert "PatientID" not in {field.name for field in table("patients").schema().fields}
    if any(action.startswith("glue:") for action in ACTIONS):
        rights = json.loads(RIGHTS.read_text())["Statement"][0]
        assert {a for a in ACTIONS if a.startswith("glue:")} == set(rights["Action"])
