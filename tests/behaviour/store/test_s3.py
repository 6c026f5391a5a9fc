"""A lake on S3, over HTTP against moto, behaves like one on a disk."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from aws import allow
from emulated import emulated
from looks import DATASTORE, Looked, write
from privacy.people import SEEN, summaries
from truth import published, truth

import cohortlake
from cohortlake import Settings, Sync, read_table
from cohortlake.admin import erase_patient
from cohortlake.errors import NotALake, RootNotUsable
from cohortlake.healthimaging import Datastore
from cohortlake.history import coverage, image_sets, packing
from cohortlake.increments import files, older_format
from cohortlake.privacy.erasures import Patient
from cohortlake.privacy.guarded_rewrite import beside_erasures
from cohortlake.privacy.key_store import KEY_PATH
from cohortlake.publish import publisher as publishing
from cohortlake.publish.export import catalogue
from cohortlake.publish.publication import marker, snapshots
from cohortlake.publish.publication.marker import MARKER_PATH, Publication
from cohortlake.publish.publication.snapshots import Snapshot
from cohortlake.schema import PUBLISHED
from cohortlake.storage import root as roots
from cohortlake.storage.files import Draft
from cohortlake.storage.location import StorageLocation
from cohortlake.storage.root import Root
from emulator import Emulator

IMAGE_SETS = 6
"""Few, and in few months: each file costs a hundredth of a second."""


def a_hospital() -> AbstractContextManager[Emulator]:
    """Return the same hospital each time."""
    return emulated(
        first_day=date(2026, 5, 30),
        first_month=date(2026, 5, 1),
        imported_years=0.2,
        archive_years=0.05,
        synthetic=IMAGE_SETS,
        seed=7,
        now="2026-06-01T12:00:00Z",
        clock="stopped",
    )


@pytest.fixture
def hospital() -> Iterator[Emulator]:
    with a_hospital() as emulator:
        yield emulator


@pytest.fixture
def root(aws: str) -> str:
    return new_root()


def new_root() -> str:
    bucket = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/a/b"


def settings_of(hospital: Emulator, root: str) -> Settings:
    return Settings(hospital.datastores, root, tps=1000, privacy="limited")


@pytest.fixture
def settings(hospital: Emulator, root: str) -> Settings:
    return settings_of(hospital, root)


def use_moto(patch: pytest.MonkeyPatch, moto_url: str) -> None:
    """Set what all clients need, for fixtures that outlast a test."""
    patch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    patch.setenv("AWS_ALLOW_HTTP", "true")
    for name, value in (
        ("ACCESS_KEY_ID", "none"),
        ("SECRET_ACCESS_KEY", "none"),
        ("REGION", "us-east-1"),
    ):
        patch.setenv(f"AWS_{name}", value)


@pytest.fixture(scope="module")
def filled_root(moto_url: str) -> str:
    """The root of a lake after its first load, of which tests that need one get a copy."""
    with pytest.MonkeyPatch.context() as patch, a_hospital() as emulator:
        use_moto(patch, moto_url)
        root = new_root()
        Sync(settings_of(emulator, root)).run()
    return root


@pytest.fixture
def filled(filled_root: str, settings: Settings) -> Settings:
    """The settings of a lake after its first load."""
    copy_objects(filled_root, settings.root)
    return settings


def copy_objects(source: str, target: str) -> None:
    """Copy all of a bucket into another one."""
    (of, _, _), (to, _, _) = (
        root.removeprefix("s3://").partition("/") for root in (source, target)
    )
    s3 = boto3.resource("s3")
    for item in s3.Bucket(of).objects.all():
        s3.Object(to, item.key).copy_from(CopySource={"Bucket": of, "Key": item.key})


def test_it_follows_the_data_store_and_can_be_rebuilt(
    hospital: Emulator, settings: Settings
) -> None:
    with pytest.raises(NotALake):
        read_table(settings.root, "studies")
    first = Sync(settings).run()
    assert first.applied.changes == {"created": IMAGE_SETS}
    assert published(settings.root) == truth(hospital)
    cohortlake.open(settings.root).tag("first")
    ddl = Root(settings.root).read(catalogue.ATHENA_PATH).decode()
    assert f"LOCATION '{settings.root}/published/series/'" in ddl
    assert objects(settings.root, ".duckdb") == []  # DuckDB reads one from a disk only

    changed, gone, *_ = sorted(truth(hospital))
    hospital.admin.advance(seconds=3600)
    hospital.admin.update(changed, {"DICOMPatientSex": "O"})
    hospital.admin.delete(gone)
    hospital.admin.advance(seconds=1)
    assert Sync(settings).run().applied.changes == {"updated": 1}
    assert Sync(settings).reconcile().applied.changes == {"deleted": 1}
    assert published(settings.root) == truth(hospital)
    assert objects(settings.root, ".tmp") == []
    assert cohortlake.open(settings.root).diff("first", "now")["kind"].tolist() == [
        "demographic",
        "deleted",
    ]

    before = {table: tabled(settings.root, table) for table in PUBLISHED}
    assert Sync(settings).rebuild().changes == {"created": IMAGE_SETS, "updated": 1, "deleted": 1}
    for table in PUBLISHED:
        assert len(before[table]) or table in ("series_headers", "earlier_headers")
        pd.testing.assert_frame_equal(tabled(settings.root, table), before[table])


def objects(root: str, ending: str) -> list[str]:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    keys = boto3.resource("s3").Bucket(bucket).objects.filter(Prefix=prefix)
    return [item.key for item in keys if item.key.endswith(ending)]


def tabled(root: str, table: str) -> pd.DataFrame:
    frame = read_table(root, table)
    ids = ("image_set_id", "version", "SeriesInstanceUID", "StudyInstanceUID", "patient_key")
    return frame.sort_values([name for name in ids if name in frame], ignore_index=True)


def test_it_holds_what_a_lake_on_a_disk_holds(
    hospital: Emulator, filled: Settings, tmp_path: object
) -> None:
    settings, on_disk = filled, settings_of(hospital, f"{tmp_path}/lake")
    Sync(on_disk).root.write(KEY_PATH, Root(settings.root).read(KEY_PATH))
    Sync(on_disk).run()
    for table in PUBLISHED:
        pd.testing.assert_frame_equal(tabled(settings.root, table), tabled(on_disk.root, table))


def test_cohorts_are_drawn_frozen_and_verified_there(filled: Settings) -> None:
    settings = filled
    with cohortlake.open(settings.root) as lake:
        cohort = lake.cohort("all", level="series").first_study_per_patient()
        frozen = cohort.freeze()
        assert frozen.label == cohort.freeze().label == "all@1"
        assert frozen.rows == len(cohort.to_pandas()) > 0
        assert lake.verify("all").is_identical
        assert lake.describe("series")["missing"].notna().all()
    with cohortlake.open(settings.root, as_of="2100-01-01") as later:
        assert later.cohort("all", level="series").first_study_per_patient().freeze().number == 2
    assert objects(settings.root, ".tmp") == []


def test_two_writers_lose_nothing_and_write_nothing_twice(
    hospital: Emulator, settings: Settings
) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda work: at_work(settings, work), (Sync.run, Sync.reconcile)))
    assert published(settings.root) == truth(hospital)


def at_work(settings: Settings, work: Callable[[Sync], object]) -> None:
    work(Sync(settings))


# deltalake keeps Python's lock while it waits for S3 in these calls, and the tests' S3 is a thread.
_MAINTENANCE = """
import json
import sys
from datetime import timedelta
from cohortlake.history import maintenance, packing
from cohortlake.storage.root import Root

maintenance._FEWEST_SMALL_FILES = packing._FEWEST_SMALL_FILES = 2
for days in map(int, sys.argv[2:]):
    done = maintenance.maintain(Root(sys.argv[1]), timedelta(days=days))
    print(json.dumps([[table.files for table in done], Root(sys.argv[1]).files("", "")]))
"""


def maintained(root: str, *days: int) -> Iterator[tuple[list[int], list[str]]]:
    """Maintain a lake with each retention, and yield the files of its tables and all its files."""
    command = (sys.executable, "-c", _MAINTENANCE, root, *map(str, days))
    for line in subprocess.check_output(command, timeout=120).splitlines():
        tables, files = json.loads(line)
        yield tables, files


def test_maintenance_leaves_few_files_and_the_same_rows(
    hospital: Emulator, filled: Settings
) -> None:
    settings = filled
    hospital.admin.advance(seconds=3600)
    hospital.admin.update(min(truth(hospital)), {"DICOMPatientSex": "O"})
    hospital.admin.advance(seconds=1)
    Sync(settings).run()
    before = {table: tabled(settings.root, table) for table in PUBLISHED}
    first, again, at_once = maintained(settings.root, 30, 30, 0)
    assert first[0][:2] == again[0][:2] == [2, 1]
    assert again[1] == first[1]
    assert at_once[0][2] == 1, "packed, and the copied ones are deleted"
    parquet = [sum(path.endswith(".parquet") for path in files) for _, files in (again, at_once)]
    assert parquet[1] < parquet[0]
    Sync(settings).publish()
    for table in PUBLISHED:
        pd.testing.assert_frame_equal(tabled(settings.root, table), before[table])
    assert Sync(settings).reconcile().applied.changes == {}
    assert published(settings.root) == truth(hospital)


_ERASURE = """
import sys
from cohortlake import Settings, Sync

datastore_id, root = sys.argv[1:]
settings = Settings((datastore_id,), root, privacy="limited")
print(Sync(settings).erase("CANARY-ID", datastore_id).rows)
"""


def test_no_object_holds_a_patient_who_was_erased(hospital: Emulator, filled: Settings) -> None:
    settings = filled
    tags = {"DICOMPatientId": "CANARY-ID", "DICOMPatientName": "CANARY^NAME"}
    theirs = hospital.admin.import_summaries([{"DICOMTags": tags}] * 2)
    hospital.admin.advance(seconds=3600)
    Sync(settings).run()
    assert b"CANARY" in contents(settings.root)
    command = (sys.executable, "-c", _ERASURE, hospital.datastores[0], settings.root)
    assert int(subprocess.check_output(command, timeout=120)) == 2
    assert b"CANARY" not in contents(settings.root)
    hospital.admin.update(theirs[0], {"DICOMPatientSex": "O"})
    hospital.admin.advance(seconds=3600)
    assert Sync(settings).run().applied.changes == {}
    assert Sync(settings).reconcile().applied.changes == {}
    others = {i: state for i, state in truth(hospital).items() if i not in theirs}
    assert published(settings.root) == others
    assert b"CANARY" not in contents(settings.root)


class Killed(BaseException):
    """A kill: nothing handles it."""


def _at(instant: str, action: Callable[[], None]) -> Callable[[Draft], None]:
    """Give `Draft.keep` with something that happens before, in the middle of, or after it."""
    keep = Draft.keep

    def kept(draft: Draft) -> None:
        original = draft._unless

        def look() -> bool:
            if instant == "before the look":
                action()
            answer = original() if original else False
            if instant == "after the look":
                action()
            return answer

        draft._unless = look
        if instant == "before it is whole":
            action()
        keep(draft)
        if instant == "after it has its name":
            action()

    return kept


LOOKS = [
    Looked(
        SEEN + timedelta(hours=hour),
        [
            {**one, "imageSetId": f"{hour}{one['imageSetId'][1:]}"}
            for one in summaries(2, seed=hour)
        ],
    )
    for hour in range(3)
]


@pytest.fixture(scope="module")
def three_increments(moto_url: str) -> tuple[str, list[str]]:
    """The root of a lake with the increments of `LOOKS`, and their paths."""
    with pytest.MonkeyPatch.context() as patch:
        use_moto(patch, moto_url)
        root = Root(new_root())
        image_sets.apply(root, paths := write(root, LOOKS))
        coverage.record(root, paths)
    return root.uri, paths


INSTANTS = ("before it is whole", "before the look", "after the look", "after it has its name")


@pytest.mark.parametrize(
    ("work", "ends", "instant"),
    [
        *(("pack", "goes on", instant) for instant in INSTANTS if instant != "before the look"),
        ("pack", "is killed", "after the look"),
        ("upgrade", "goes on", "after the look"),
        *(
            pytest.param(work, ends, instant, marks=pytest.mark.chaos)
            for work, ends, instant in (
                ("pack", "goes on", "before the look"),
                ("pack", "is killed", "before it is whole"),
                ("pack", "is killed", "before the look"),
                ("pack", "is killed", "after it has its name"),
                ("upgrade", "goes on", "before the look"),
            )
        ),
    ],
)
def test_no_file_brings_back_who_was_erased_while_it_was_written(
    three_increments: tuple[str, list[str]],
    root: str,
    monkeypatch: pytest.MonkeyPatch,
    instant: str,
    ends: str,
    work: str,
) -> None:
    """Another machine erases a patient whose rows this one has read to write them again."""
    source, paths = three_increments
    copy_objects(source, root)
    here, other = Root(root), Root(root)

    def erase() -> None:
        monkeypatch.setattr(Draft, "keep", keep)  # only the first file that is written
        patient = Patient(DATASTORE, "MRN-00001")
        begun = erase_patient.begin(other, patient, bytes(32))
        erase_patient.remove(other, patient, begun)
        if ends == "is killed":
            raise Killed

    keep = Draft.keep
    monkeypatch.setattr(Draft, "keep", _at(instant, erase))
    with contextlib.suppress(Killed):
        if work == "pack":
            packing._copy(here, paths)
        else:
            beside_erasures(here, partial(older_format._upgrade, here, paths[0]))
    monkeypatch.setattr(Draft, "keep", keep)
    for path in files.listed(Root(root)):
        rows = pa.concat_tables(files.read_batches(Root(root), path))
        assert "MRN-00001" not in rows["PatientID"].to_pylist(), path
    fresh = Root(root)
    left = sum(r.rows for p in files.paths(fresh) for r in files.read_records(fresh, p))
    others = [
        one for look in LOOKS for one in look.found
        if one["DICOMTags"]["DICOMPatientId"] != "MRN-00001"
    ]  # fmt: skip
    assert left == len(others)
    applied, _ = image_sets.rebuild(fresh)
    assert applied.rows > 0
    assert objects(root, ".tmp") == [] or ends == "is killed"


def contents(root: str) -> bytes:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    files = pafs.FileSelector(f"{bucket}/{prefix}", recursive=True)
    found = b""
    place = StorageLocation(root)
    for info in place.filesystem.get_file_info(files):
        if info.is_file:
            with place.filesystem.open_input_file(info.path) as file:
                found += info.path.encode() + file.read()
                if info.path.endswith(".parquet"):
                    found += repr(pq.read_table(file).to_pylist()).encode()
    return found


ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject")


@pytest.mark.parametrize("missing", ["", *ACTIONS])
def test_the_rights_that_the_docs_name_are_enough_and_each_is_needed(
    settings: Settings, aws: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    bucket, _, prefix = settings.root.removeprefix("s3://").partition("/")
    arn = f"arn:aws:s3:::{bucket}"
    actions = [action for action in ACTIONS if action != missing]
    allow(
        monkeypatch,
        aws,
        {"Action": "s3:ListBucket", "Resource": arn},
        {"Action": actions, "Resource": f"{arn}/{prefix}/*"},
    )
    if missing:
        with pytest.raises(RootNotUsable, match="COHORTLAKE_ROOT"):
            Sync(settings).run()
    else:
        assert Sync(settings).run().applied.rows == IMAGE_SETS
        assert len(read_table(settings.root, "image_sets")) == IMAGE_SETS


def test_a_file_that_is_replaced_while_it_is_read_comes_whole(root: str) -> None:
    versions = [b"short", b"long" * 10_000]
    place, is_done = Root(root), Event()
    place.write("published/file", versions[0])

    def replace() -> None:
        for version in itertools.cycle(versions):
            Root(root).write("published/file", version)
            if is_done.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace)
        try:
            for _ in range(40):
                assert place.read("published/file") in versions
        finally:
            is_done.set()
        replacing.result()


def test_of_two_publishers_the_one_that_loses_the_marker_publishes_again(
    hospital: Emulator, filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one began earlier, and has put its older files over those of the faster one."""
    settings = filled
    changed = min(truth(hospital))
    write_marker, tags = marker.write_marker, list[str | None]()

    def update(sex: str) -> None:
        hospital.admin.advance(seconds=3600)
        hospital.admin.update(changed, {"DICOMPatientSex": sex})
        hospital.admin.advance(seconds=1)
        list(itertools.chain(*(Sync(settings).extract(s, Sync(settings).due(s)) for s in stores())))
        Sync(settings).apply()

    def stores() -> list[Datastore]:
        return [Sync(settings).datastore(one) for one in settings.datastores]

    def overtaken(root: Root, ours: Publication, tag: str | None) -> bool:
        monkeypatch.setattr(publishing, "write_marker", counted)
        update("M")
        older = {path: root.read(path) for path in ours.written}
        Sync(settings).publish()
        for path, content in older.items():
            root.write(path, content)
        return counted(root, ours, tag)

    def counted(root: Root, ours: Publication, tag: str | None) -> bool:
        tags.append(tag)
        return write_marker(root, ours, tag)

    monkeypatch.setattr(publishing, "write_marker", overtaken)
    update("O")
    last = Sync(settings).publish()
    assert published(settings.root) == truth(hospital)
    assert last and last.to_marker() == Root(settings.root).read(MARKER_PATH)
    first, lost, again = tags
    assert first == lost != again, "the marker that both read, and then that of the faster one"


def test_what_killed_runs_left_goes_with_maintenance_or_an_erasure(
    root: str, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, lake = boto3.client("s3"), Root(root)
    bucket, _, prefix = root.removeprefix("s3://").partition("/")

    def leave() -> list[str]:
        """What a run leaves that is killed before it names a file, or amid a large one."""
        for path in ("increments/a/b.parquet", "published/studies/studies.parquet"):
            draft = lake.draft(path, lambda: False)  # as a rewritten increment
            draft.stream.write(b"CANARY")
            draft.stream.close()
        s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/image_sets/part")
        lake.write("increments/a/whole.parquet", b"whole")
        return left()

    def left() -> list[str]:
        uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return sorted([*objects(root, ".tmp"), *(upload["Key"] for upload in uploads)])

    assert len(leave()) == 3
    lake.delete_abandoned()  # moto says of every upload that it began in 2010
    assert len(left()) == 2, "another run may be about to name them"
    with monkeypatch.context() as patch:
        patch.setattr(roots, "_ABANDONED_FILE", timedelta(seconds=-60))
        lake.delete_abandoned()
    assert left() == []
    leave()
    lake.delete_abandoned(whatever_its_age=True)
    assert left() == []
    assert lake.read("increments/a/whole.parquet") == b"whole"

    leave()  # and where the rights on uploads are missing
    arn = f"arn:aws:s3:::{bucket}"
    allow(
        monkeypatch,
        aws,
        {"Action": "s3:ListBucket", "Resource": arn},
        {"Action": list(ACTIONS), "Resource": f"{arn}/*"},
    )
    Root(root).delete_abandoned(whatever_its_age=True)
    there = boto3.Session().client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Key"] for item in there if item["Key"].endswith(".tmp")] == []


def test_the_record_of_publications_loses_no_line_of_two_machines(root: str) -> None:
    def record(version: int) -> None:
        rows = dict.fromkeys(PUBLISHED, 0)
        one = Snapshot("2026-01-01T00:00:00+00:00", version, "safe", None, rows)
        snapshots.record(Root(root), one)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(8)))
    assert sorted(snapshots.table(Root(root))["image_sets_version"].to_pylist()) == [*range(8)]


def test_a_file_is_replaced_only_if_it_is_as_it_was_read(root: str, tmp_path: Path) -> None:
    for place in (Root(root), Root(str(tmp_path))):
        assert not place.replace("published/a", b"1", "a tag of nothing")
        assert place.replace("published/a", b"1", None)
        assert not place.replace("published/a", b"2", None)
        _, tag = place.read_with_tag("published/a")
        assert place.replace("published/a", b"2", tag)
        assert not place.replace("published/a", b"3", tag)
        place.delete("published/a")
        assert not place.replace("published/a", b"3", tag)


def test_a_put_whose_answer_was_lost_is_not_taken_for_another_writers(root: str) -> None:
    place = Root(root)
    assert place.replace("a", b"1", None)
    _, tag = place.read_with_tag("a")
    assert place.replace("a", b"2", tag)
    assert place.replace("a", b"2", tag), "boto3 sends it again"
    assert not place.replace("a", b"3", tag)


def test_a_bucket_that_is_not_there_is_named(hospital: Emulator, aws: str) -> None:
    nowhere = Sync(Settings(hospital.datastores, f"s3://{uuid.uuid4().hex}/a", tps=1000))
    for work in (nowhere.run, nowhere.publish, nowhere.status):
        with pytest.raises(RootNotUsable, match=nowhere.settings.root):
            work()
