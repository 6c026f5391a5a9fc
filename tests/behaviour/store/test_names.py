"""Names of folders above a lake into which libraries read a meaning: it works, or is refused."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import boto3
import duckdb
import pyarrow as pa
import pytest
from changing import Hospital

import cohortlake
from cohortlake.errors import RootNotUsable
from cohortlake.history import image_sets, maintenance
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.publish.export import catalogue
from cohortlake.storage import delta, delta_log, engine
from cohortlake.storage.location import StorageLocation
from cohortlake.storage.root import Root

ROWS = pa.table({"n": [1, 2], "row_kind": ["version", "closure"]})

USABLE = (
    *("plain", "a b", " a", "a ", "e#f", "e?f", "50%", "a%2", "%zz", "#", "?x=1"),
    *("Modality=MR", "row_kind=x", "a=b=c", "e*f", "{a,b}", "'", '"', "`", "<>", "~", "~x", "$X"),
    *("&+,;:@!()", ".a", "..a", "a..", "...", "_a", "ü", "u\N{COMBINING DIAERESIS}", "日本"),
)
USABLE_ON_S3 = ("e#f?g", "50% of=it", "[a]|b^c\\d", " *'\"`~{}<>$&+,;:@!() ", "..a", "日本ü")
UNUSABLE = ("%20", "a%41", "a%2Fb", "%00", "a\tb", "a\nb", "\r", "\x7f", "\x85", "a\x00b", "\udcff")
UNUSABLE_ON_DISK = ("[a]", "[", "]", "a|b", "a^b", "a\\b")


def round_trip(root: Root) -> None:
    """Write a file, a small one and a table, and read them again."""
    root.prepare()
    root.write("increments/a.parquet", b"content")
    root.create("keys/a", b"content")
    assert root.read("keys/a") == b"content"
    assert root.files("increments", ".parquet") == ["increments/a.parquet"]
    table = delta.make_table(root, image_sets.TABLE, ROWS.schema, partition_by=["row_kind"])
    delta.commit(root, image_sets.TABLE, table, ROWS)
    again = delta.open_table(root, image_sets.TABLE)
    assert again is not None
    files = sorted(delta_log.files(image_sets.TABLE, again))
    assert files == root.files(image_sets.TABLE, ".parquet")
    with engine.connection() as con:
        engine.register(con, "stored", root, files, ROWS.schema)
        query = "SELECT row_kind, n FROM stored WHERE row_kind = 'version'"
        assert con.sql(query).fetchall() == [("version", 1)]
    maintenance.forget_past(root, image_sets.TABLE)
    assert set(root.files(image_sets.TABLE, ".parquet")) > set(files)  # and a checkpoint


def test_it_works_on_a_disk_and_nothing_lies_outside(tmp_path: Path) -> None:
    for name in USABLE:
        for lake in (tmp_path / name / "lake", tmp_path / "lake" / name):
            lake.parent.mkdir()
            round_trip(Root(str(lake)))
            outside = [p for p in tmp_path.rglob("*") if p.is_file() and lake not in p.parents]
            assert outside == [], name
            shutil.rmtree(lake.parent)


def test_it_works_on_s3_and_nothing_lies_outside(aws: str) -> None:
    bucket = boto3.resource("s3").create_bucket(Bucket=uuid.uuid4().hex)
    for name in USABLE_ON_S3:
        prefix = f"{name}/lake/{name}"
        round_trip(Root(f"s3://{bucket.name}/{prefix}"))
        assert all(item.key.startswith(f"{prefix}/") for item in bucket.objects.all())
        bucket.objects.all().delete()


@pytest.mark.parametrize("name", [*UNUSABLE, *UNUSABLE_ON_DISK])
def test_it_is_refused_on_a_disk(name: str, tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/{name}/lake", f"{tmp_path}/{name}", f"file://{tmp_path}/{name}"):
        for arguments in ((uri,), (str(tmp_path / "lake"), uri)):
            with pytest.raises(RootNotUsable, match="rename the folder, or give another") as told:
                Root(*arguments)
            assert str(told.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*UNUSABLE, ".", ".."])
def test_it_is_refused_on_s3(name: str, tmp_path: Path) -> None:
    for uri in (f"s3://bucket/{name}/lake", f"s3://bucket/a/{name}"):
        for arguments in ((uri,), (str(tmp_path / "lake"), uri)):
            with pytest.raises(RootNotUsable, match="rename the folder, or give another"):
                Root(*arguments)


@pytest.mark.parametrize(
    "uri", ["s3://a#b/c", "s3://a?b/c", "s3://a:80/c", "s3://u@a/c", "s3://%41/c", "file://host/c"]
)
def test_what_is_no_bucket_or_no_full_path_is_refused(uri: str) -> None:
    with pytest.raises(RootNotUsable, match="a folder, file:///folder or s3://bucket/prefix"):
        StorageLocation(uri)


def test_an_unknown_user_in_a_path_is_an_error() -> None:
    with pytest.raises(RootNotUsable, match="a user who has no home folder here"):
        StorageLocation("~nobody-of-this-name/lake")


def test_two_dots_lead_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    root = Root(f"{tmp_path}/link/../lake")
    assert root.uri == f"{tmp_path}/far/lake"
    assert StorageLocation(f"/{tmp_path}//lake").uri == f"{tmp_path}/lake"
    round_trip(root)
    assert not (tmp_path / "lake").exists()


def test_folders_above_a_lake_are_no_columns_of_it(tmp_path: Path) -> None:
    root = Root(str(tmp_path / "study_month=2000-01/Modality=MR/PatientID=1/row_kind=x/lake"))
    root.prepare()
    hospital = Hospital(root)
    tags = {"DICOMSeriesModality": "CT", "DICOMPatientId": "P", "DICOMStudyInstanceUID": "1.1"}
    days = {1: "20240105", 2: "20240207"}
    hospital.step(
        [
            {"number": n, "isPrimary": True, "DICOMStudyDate": day, **tags}
            for n, day in days.items()
        ],
        [],
    )
    publisher.publish(root, built_in("limited"))
    expected = [("2024-01", "CT"), ("2024-02", "CT")]
    rows = "SELECT study_month, Modality FROM image_sets ORDER BY ALL"
    with cohortlake.open(root.uri) as lake:
        assert lake.sql(rows).fetchall() == expected
        one = "SELECT study_month, Modality FROM image_sets WHERE study_month = '2024-02'"
        assert lake.sql(one).fetchall() == expected[1:]
        assert lake.columns("image_sets") == tuple(lake.sql("FROM image_sets").columns)
    frame = cohortlake.read_table(root.uri, "image_sets", ["study_month", "Modality"])
    assert sorted(frame.itertuples(index=False, name=None)) == expected
    with duckdb.connect(root.path(catalogue.DATABASE_PATH), read_only=True) as con:
        assert con.sql(rows).fetchall() == expected
    hospital.step([{"number": 1, "isPrimary": True, "DICOMStudyDate": days[2], **tags}], [])
    publisher.publish(root, built_in("limited"))
    with cohortlake.open(root.uri) as lake:
        assert lake.sql(rows).fetchall() == [expected[1]] * 2


def test_only_the_files_of_a_month_that_is_asked_for_are_opened(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    paths = [f"published/t/study_month=2024-{month:02}/t.parquet" for month in range(1, 13)]
    columns = pa.schema([("n", pa.int64()), ("study_month", pa.string())])
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True)
        duckdb.sql("SELECT 1 AS n").write_parquet(str(tmp_path / path))
    with engine.connection() as con:
        engine.register(con, "t", root, paths, columns)
        assert con.table("t").columns == columns.names
        for path in paths[2:]:  # of the first one the columns are read
            (tmp_path / path).write_bytes(b"damaged")
        assert con.sql("SELECT n FROM t WHERE study_month = '2024-02'").fetchall() == [(1,)]
