"""The restricted zone and what readers get: other rights, another folder or another bucket."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from aws import allow
from command import command
from emulated import emulated, fill_lake
from endpoint import DATASTORE, Endpoint
from small_hospital import assert_equal_to_truth, change, fill
from truth import published, truth
from unpublished import unpublished

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.errors import RootNotUsable
from cohortlake.storage import engine
from cohortlake.storage.files import RESTRICTED
from emulator import Emulator

REPOSITORY = Path(__file__).parents[3]
GUIDE = (REPOSITORY / "docs/how-to/cohorts.md").read_text()

WITHOUT_HEADERS = {*RESTRICTED} - {"headers"}
"""The restricted folders of a lake that fetched no header."""


def modes(folder: Path) -> dict[str, str]:
    """Everything below a folder, itself too, that somebody else has a right on."""
    return {
        path.relative_to(folder.parent).as_posix(): stat.filemode(path.stat().st_mode)
        for path in (folder, *folder.rglob("*"))
        if path.stat().st_mode & 0o077
    }


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_no_umask")
def test_only_its_owner_has_rights_on_the_restricted_zone(
    endpoint: Endpoint, lake_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lake = Path(lake_settings.root)
    fill(endpoint, 60, months=1)
    with unpublished():
        Sync(lake_settings).run()
        change(endpoint, 1, DICOMPatientSex="O")
        endpoint.image_sets.pop()
        Sync(lake_settings).run()
    Sync(lake_settings).reconcile()
    Sync(lake_settings).maintain()
    Sync(lake_settings).rebuild()
    Sync(lake_settings).erase("P1", DATASTORE)
    for name in WITHOUT_HEADERS:
        assert (lake / name).is_dir()
        assert modes(lake / name) == {}, name
    assert {path.name: modes(path) for path in lake.glob(".*.lock")} == {
        ".runs.lock": {},
        ".publishing.lock": {},
        f".searching-{DATASTORE}.lock": {},
    }
    with engine.connection():
        (spill,) = tmp_path.glob("cohortlake-*")
        assert stat.S_IMODE(spill.stat().st_mode) == 0o700


@pytest.fixture(scope="module", params=["limited", "safe"])
def apart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake's `published/` and `cohorts/` as a reader has them, and no more."""
    folder = tmp_path_factory.mktemp("apart")
    written = folder / "published"
    with emulated(synthetic=600, seed=2, now="2026-06-01T12:00:00Z") as emulator:
        lake = folder / "lake"
        fill_lake(emulator, lake, days=2, published=str(written), privacy=request.param)
    assert {path.name for path in written.iterdir()} == {"published"}
    assert not (folder / "lake" / "published").exists()
    shutil.copytree(written, folder / "reader/var/demo/lake")
    for name in ("lake", "published"):
        shutil.rmtree(folder / name)
    return folder / "reader"


def test_a_reader_of_the_published_root_alone_can_follow_the_whole_guide_to_cohorts(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(apart)
    snippets = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(snippets) >= 5
    is_safe = "safe" in Path("var/demo/lake/published/_published.json").read_text()
    for code in snippets:
        if is_safe:  # as the guide says
            code = re.sub("StudyDate|first_study_date", _shifted, code)
        exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - our own page
        assert capsys.readouterr().out.strip()
    Path("cohorts").mkdir()
    Path("cohorts/ct.yaml").write_text("cohort: ct\nsteps:\n  - where: {Modality: CT}\n")
    monkeypatch.setenv("COHORTLAKE_ROOT", "/nowhere/at/all")
    monkeypatch.setenv("COHORTLAKE_PUBLISHED", str(apart / "var/demo/lake"))
    for shown in re.findall(r"\$ cohortlake (cohort \w+)", GUIDE):
        own = {"list": [], "diff": ["ct@1", "ct@1"], "export": ["ct", "--output", "ct.csv"]}
        names = own.get(shown.split()[1], ["ct"])
        done = command(*shown.split(), *names)
        assert done.exit_code == 0, (shown, done.stderr)
    assert {path.name for path in (apart / "var/demo/lake").iterdir()} == {"published", "cohorts"}


def _shifted(name: re.Match[str]) -> str:
    return {"StudyDate": "study_date_shifted"}.get(name[0], f"{name[0]}_shifted")


def test_a_lake_whose_published_part_lies_elsewhere_is_kept_up_to_date(
    endpoint: Endpoint, lake_settings: Settings, tmp_path: Path
) -> None:
    settings = replace(lake_settings, published=str(tmp_path / "for-readers"))
    fill(endpoint, 30, months=1)
    Sync(settings).run()
    change(endpoint, 1, DICOMPatientSex="O")
    assert Sync(settings).run().applied.changes == {"updated": 1}
    assert_equal_to_truth(settings.published, endpoint)
    assert Sync(settings).status().rows["image_sets"] == 30
    with cohortlake.open(settings.published) as lake:
        lake.cohort("all", level="series").freeze()
    Sync(settings).erase("P1", DATASTORE)
    with cohortlake.open(settings.published) as lake:
        assert lake.verify("all").counts == {"erased": 3}
    assert {path.name for path in Path(settings.root).iterdir() if path.is_dir()} == WITHOUT_HEADERS
    # Another place begins anew, with the same keys of patients.
    elsewhere = replace(settings, published=str(tmp_path / "elsewhere"))
    Sync(elsewhere).publish()
    one, other = (cohortlake.read_table(s.published, "patients") for s in (settings, elsewhere))
    assert set(one["patient_key"]) == set(other["patient_key"])


@pytest.fixture
def hospital() -> Iterator[Emulator]:
    with emulated(synthetic=10, seed=7, now="2026-06-01T12:00:00Z", clock="stopped") as emulator:
        yield emulator


def bucket() -> str:
    """Make a bucket that encrypts what it is given with a key of its own."""
    name, key = uuid.uuid4().hex, "arn:aws:kms:us-east-1:111122223333:key/of-the-bucket"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=name)
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}]
        },
    )
    return name


def test_two_buckets_and_a_reader_without_a_right_on_the_restricted_one(
    hospital: Emulator, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    restricted, shown = bucket(), bucket()
    settings = Settings(
        hospital.datastores,
        f"s3://{restricted}/a",
        tps=1000,
        published=f"s3://{shown}/b",
        privacy="limited",
    )
    Sync(settings).run()
    assert published(settings.published) == truth(hospital)
    for name in (restricted, shown):
        objects = list(boto3.resource("s3").Bucket(name).objects.all())
        assert objects
        assert {item.Object().server_side_encryption for item in objects} == {"aws:kms"}
    allow(
        monkeypatch,
        aws,
        {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{shown}"},
        {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{shown}/b/*"},
        {
            "Action": ["s3:PutObject", "s3:DeleteObject"],
            "Resource": f"arn:aws:s3:::{shown}/b/cohorts/*",
        },
    )
    with cohortlake.open(settings.published) as lake:
        cohort = lake.cohort("all", level="series").first_study_per_patient()
        assert cohort.freeze().rows == len(cohort.to_pandas()) > 0
        assert lake.verify("all").is_identical
    with pytest.raises(RootNotUsable):
        Sync(settings).run()
