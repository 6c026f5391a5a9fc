"""The key: where it may lie, that it is never another by accident, and what is hashed with it."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from aws import ACTIONS
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from privacy.people import DATASTORE, SEEN, lake_of, summaries

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.errors import (
    MissingKey,
    NoCredentials,
    ServiceUnavailable,
    SettingError,
    WrongKey,
)
from cohortlake.flatten import flatten_summaries
from cohortlake.privacy import Policy, Treatment, built_in, erasures, fingerprint, key_store
from cohortlake.privacy.erasures import ErasedPatients, Patient
from cohortlake.privacy.keyed_hashes import create_macros, keyed_hashes, keyed_uid, shift_days
from cohortlake.publish.publication.marker import MARKER_PATH, read_marker
from cohortlake.publish.publisher import publish
from cohortlake.storage.root import Root

IAM = Path(__file__).parents[2] / "docs/iam"
KEY = bytes(range(32))
PATIENTS = 30
IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: text.strip(" ") != ""
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        yield con


@settings(max_examples=examples(100, quick=20))
@given(key=st.binary(min_size=32, max_size=32), scope=IDS, id_=IDS)
def test_duckdb_and_python_hash_alike(
    con: duckdb.DuckDBPyConnection, key: bytes, scope: str, id_: str
) -> None:
    create_macros(con, key)
    query = "SELECT keyed_hash('PatientID', $s, $i), keyed_uid($i), shift_days($s, $i)"
    ((patient, uid, days),) = con.execute(query, {"s": scope, "i": id_}).fetchall()
    message = "\x1f".join(("PatientID", scope, id_)).encode()
    assert patient == hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
    assert [patient] == keyed_hashes(key, "PatientID", [(scope, id_)])
    assert uid == keyed_uid(key, id_)
    assert days == shift_days(key, scope, id_)
    assert 1 <= days <= 365
    assert len(uid) <= 64, "PS3.5 section 9.1"
    assert set(uid) <= set("0123456789.")


def test_no_id_has_no_hash(con: duckdb.DuckDBPyConnection) -> None:
    create_macros(con, KEY)
    query = "SELECT keyed_hash('p', 's', NULL), keyed_uid(NULL)"
    assert con.sql(query).fetchall() == [(None, None)]


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that nobody changes: each test works on a copy."""
    folder = tmp_path_factory.mktemp("keys") / "lake"
    lake_of(str(folder), summaries(8, days=60))
    return folder


@pytest.fixture(scope="module")
def published_under_safe(unpublished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lake, published under `safe`."""
    folder = tmp_path_factory.mktemp("keys") / "published"
    shutil.copytree(unpublished, folder)
    publish(Root(str(folder)), built_in("safe"))
    return folder


@pytest.fixture
def root(unpublished: Path, tmp_path: Path) -> Root:
    shutil.copytree(unpublished, tmp_path / "lake")
    return Root(f"{tmp_path}/lake")


@pytest.fixture
def safe_root(published_under_safe: Path, tmp_path: Path) -> Root:
    shutil.copytree(published_under_safe, tmp_path / "lake")
    return Root(f"{tmp_path}/lake")


def _patients(root: Root) -> set[str]:
    return set(cohortlake.read_table(root.uri, "patients")["patient_key"])


def test_a_local_lake_makes_its_key_once_and_keeps_it_to_itself(root: Root) -> None:
    publish(root, built_in("safe"))
    path = Path(root.path(key_store.KEY_PATH))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    key = path.read_bytes()
    assert _patients(root) == {
        *keyed_hashes(key, "PatientID", [(DATASTORE, f"MRN-{n:05}") for n in range(8)])
    }
    publish(root, built_in("limited"))
    assert path.read_bytes() == key
    for file in Path(root.path("published")).rglob("*"):
        assert file.is_dir() or key not in file.read_bytes()


def test_a_key_of_one_s_own_gives_the_same_hashes_wherever_it_lies(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_KEY", KEY.hex())
    publish(root, built_in("safe"), "env:HOSPITAL_KEY")
    assert not root.exists(key_store.KEY_PATH)
    expected = _patients(root)
    (tmp_path / "key").write_text(KEY.hex() + "\n")
    publish(root, built_in("limited"), f"file:{tmp_path}/key")
    assert _patients(root) == expected
    assert KEY.hex().encode() not in b"".join(
        file.read_bytes() for file in Path(root.uri).rglob("*") if file.is_file()
    )


def _granted(statement: str) -> set[str]:
    """The rights that docs/iam gives a writer for a key that lies in AWS."""
    policy = json.loads((IAM / "writer-key.json").read_text())
    return {a for one in policy["Statement"] if one["Sid"] == statement for a in one["Action"]}


def test_a_key_can_lie_in_secrets_manager_or_be_wrapped_by_kms(
    tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("SECRETS_MANAGER", "KMS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", moto_url)
    name = f"key-{tmp_path.name}"
    region = {"region_name": "us-east-1"}  # ours is AWS_REGION, which boto3 does not read
    boto3.client("secretsmanager", **region).create_secret(Name=name, SecretString=KEY.hex())
    root = lake_of(f"{tmp_path}/one", summaries(3, days=30))
    ACTIONS.clear()
    publish(root, built_in("safe"), f"secretsmanager:{name}")
    assert set(ACTIONS) == _granted("PatientKeyInSecretsManager")
    (first, *_) = keyed_hashes(KEY, "PatientID", [(DATASTORE, "MRN-00000")])
    assert first in _patients(root)
    with pytest.raises(MissingKey, match="ResourceNotFoundException"):
        publish(root, built_in("limited"), "secretsmanager:elsewhere")

    wrapping = boto3.client("kms", **region).create_key()["KeyMetadata"]["KeyId"]
    other = lake_of(f"{tmp_path}/other", summaries(3, days=30))
    ACTIONS.clear()
    publish(other, built_in("safe"), f"kms:{wrapping}")
    assert set(ACTIONS) == _granted("PatientKeyWrappedByKms")
    expected = _patients(other)
    publish(other, built_in("limited"), f"kms:{wrapping}")
    assert _patients(other) == expected
    assert not other.exists(key_store.KEY_PATH)


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("vault:x", SettingError, "env:NAME, file:PATH"),
        ("env:", SettingError, "env:NAME"),
        ("env:NOT_SET", MissingKey, "NOT_SET is not set"),
        ("env:SHORT", SettingError, "openssl rand -hex 32"),
        ("file:/proc/nowhere", MissingKey, "cannot be read"),
    ],
)
def test_a_source_without_a_key_says_the_fix(
    root: Root, source: str, error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "secretvalue")
    with pytest.raises(error, match=says) as caught:
        publish(root, built_in("safe"), source)
    assert "secretvalue" not in str(caught.value)
    assert not list(Path(root.path("published")).rglob("*.parquet"))


def test_an_existing_lake_never_gets_another_key(
    safe_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = safe_root
    before = _patients(root)
    monkeypatch.setenv("HOSPITAL_KEY", KEY.hex())
    with pytest.raises(WrongKey, match="cohortlake key rotate"):
        publish(root, built_in("limited"), "env:HOSPITAL_KEY")
    Path(root.path(key_store.KEY_PATH)).unlink()
    for gone in ("published/_published.json", None):
        with pytest.raises(MissingKey, match="from a backup"):
            publish(root, built_in("limited"))
        if gone:
            root.delete(gone)
    assert not root.exists(key_store.KEY_PATH)
    assert before


def _older_marker(root: Root) -> None:
    """Make the marker one of a release that did not say whose key it was."""
    content = json.loads(root.read(MARKER_PATH))
    del content["key_fingerprint"]
    root.write(MARKER_PATH, json.dumps(content).encode())


@pytest.mark.parametrize("lost", ["fingerprint", "fingerprint and an older marker", "both"])
def test_another_key_is_refused_when_fingerprints_are_lost(
    safe_root: Root, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = safe_root
    before = {path: root.read(path) for path in root.files("published", ".parquet")}
    root.delete("keys/fingerprint")
    if "marker" in lost:
        _older_marker(root)
    if lost == "both":
        root.delete(MARKER_PATH)
    monkeypatch.setenv("HOSPITAL_KEY", KEY.hex())
    with pytest.raises(WrongKey, match="Give that key"):
        publish(root, built_in("limited"), "env:HOSPITAL_KEY")
    assert {path: root.read(path) for path in before} == before
    assert not root.exists("keys/fingerprint")
    publish(root, built_in("limited"))
    assert _patients(root) == {*keyed_hashes(root.read(key_store.KEY_PATH), "PatientID", _ids(8))}
    assert root.read("keys/fingerprint").decode() == fingerprint(root.read(key_store.KEY_PATH))
    with pytest.raises(WrongKey):
        publish(root, built_in("safe"), "env:HOSPITAL_KEY")


def _ids(number: int) -> list[tuple[str, str]]:
    return [(DATASTORE, f"MRN-{n:05}") for n in range(number)]


def test_another_key_is_refused_where_readers_got_a_new_place_and_the_fingerprint_is_lost(
    safe_root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = safe_root
    before = _patients(root)
    root.delete("keys/fingerprint")
    monkeypatch.setenv("HOSPITAL_KEY", KEY.hex())
    elsewhere = Root(root.uri, f"{tmp_path}/readers")
    with pytest.raises(WrongKey):
        publish(elsewhere, built_in("safe"), "env:HOSPITAL_KEY")
    publish(elsewhere, built_in("safe"))
    assert set(cohortlake.read_table(f"{tmp_path}/readers", "patients")["patient_key"]) == before


def test_published_files_that_do_not_name_their_key_are_all_written_again(safe_root: Root) -> None:
    """They may be of two keys: a release that did not look may have written them."""
    root = safe_root
    first = read_marker(root)
    assert first is not None
    assert first.key_fingerprint == fingerprint(root.read(key_store.KEY_PATH))
    _older_marker(root)
    again = publish(root, built_in("safe"))
    assert again is not None
    assert set(again.written) == set(first.files)
    assert publish(root, built_in("safe")) == read_marker(root)
    assert read_marker(root).key_fingerprint == first.key_fingerprint  # type: ignore[union-attr]


def test_a_key_that_was_restored_from_before_a_rotation_is_refused(safe_root: Root) -> None:
    root = safe_root
    sync = Sync(Settings((DATASTORE,), root.uri))
    backup = {path: root.read(path) for path in (key_store.KEY_PATH, "keys/fingerprint")}
    sync.rotate_key("lake")
    rotated = _patients(root)
    for path, content in backup.items():
        root.write(path, content)
    with pytest.raises(WrongKey, match="key rotate"):
        Sync(Settings((DATASTORE,), root.uri, privacy="limited")).publish()
    assert _patients(root) == rotated


def test_a_lake_whose_key_is_lost_for_good_is_published_under_a_new_one_when_told_so(
    safe_root: Root, tmp_path: Path
) -> None:
    root = safe_root
    before = _patients(root)
    for lost in (key_store.KEY_PATH, "keys/fingerprint"):
        Path(root.path(lost)).unlink()
    with pytest.raises(MissingKey):
        publish(root, built_in("limited"))
    Path(root.path("published")).rename(tmp_path / "away")
    publish(root, built_in("safe"))
    assert len(_patients(root)) == len(before)
    assert before.isdisjoint(_patients(root))


def test_the_erased_stay_out_whatever_becomes_of_the_other_key(safe_root: Root) -> None:
    root = safe_root
    sync = Sync(Settings((DATASTORE,), root.uri))
    sync.erase("MRN-00003", DATASTORE)
    sync.rotate_key("lake")
    patient = Patient(DATASTORE, " MRN-00003")
    assert erasures.find(root, patient) is not None
    found = flatten_summaries(summaries(8, days=200), DATASTORE)
    is_erased = ErasedPatients(root).mask(found).to_pylist()
    assert {n for n, out in zip(found["PatientID"].to_pylist(), is_erased, strict=True) if out} == {
        "MRN-00003"
    }
    Path(root.path("keys/erasure-key")).unlink()
    for ask in (lambda: erasures.find(root, patient), lambda: ErasedPatients(root).mask(found)):
        with pytest.raises(MissingKey, match="only this key recognises erased patients"):
            ask()


def _cohort(lake: cohortlake.Lake) -> cohortlake.Cohort:
    return lake.cohort("cts").where(Modality=["CT", "MR"]).first_study_per_patient()


@pytest.mark.parametrize("policy", ["safe", "limited"])
def test_rotation_keys_everything_anew_and_frozen_cohorts_hold(
    root: Root, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cohort-key").write_text("ab" * 32)
    monkeypatch.setenv("COHORTLAKE_COHORT_KEY_FILE", f"{tmp_path}/cohort-key")
    settings = Settings(
        (DATASTORE,), root.uri, privacy=policy, cohort_key_file=f"{tmp_path}/cohort-key"
    )
    Sync(settings).publish()
    with cohortlake.open(root.uri) as lake:
        frozen = _cohort(lake).freeze()
    before = _patients(root)
    with pytest.raises(SettingError, match="COHORTLAKE_COHORT_KEY_FILE"):
        Sync(Settings((DATASTORE,), root.uri, privacy=policy)).rotate_key("lake")

    assert Sync(settings).rotate_key("lake") == 1
    after = _patients(root)
    assert len(after) == len(before)
    assert after.isdisjoint(before)
    with cohortlake.open(root.uri) as lake:
        found = lake.verify("cts")
        assert found.is_identical
        assert found.signature == "valid"
        assert found.manifest.rows == frozen.rows
    outside = [p for name in ("published", "cohorts") for p in Path(root.path(name)).rglob("*")]
    for path in (p for p in outside if p.is_file()):
        content = path.read_bytes()
        assert not any(key.encode() in content for key in before), path.name
    assert list(Path(root.path("keys/links")).glob("*.parquet"))
    assert Sync(settings).publish().written == ()  # type: ignore[union-attr]


def _studies_of_one_day() -> list[dict[str, Any]]:
    """Return summaries of patients with several studies of one day, some of one time or none."""
    dice = random.Random(4)  # noqa: S311
    found = []
    for number in range(8 * PATIENTS):
        patient, study = number % PATIENTS, number % (4 * PATIENTS)  # of two series each
        day = "20240106" if study >= 3 * PATIENTS else "20240105"
        time = ("0930", "1015", None)[study % 7 % 3]
        tags = {
            "DICOMPatientId": f"P{patient}",
            "DICOMStudyInstanceUID": f"1.{study}",
            "DICOMSeriesInstanceUID": f"1.{study}.{number}",
            "DICOMStudyDate": day,
            "DICOMStudyTime": time,
            "DICOMSeriesModality": "MR" if study % 7 == 0 else "CT",
        }
        found.append({
            "imageSetId": f"{dice.getrandbits(128):032x}",
            "version": 1,
            "createdAt": SEEN - timedelta(days=1),
            "updatedAt": SEEN - timedelta(days=1),
            "isPrimary": True,
            "DICOMTags": {name: value for name, value in tags.items() if value},
        })  # fmt: skip
    return found


def _one_study_each(lake: cohortlake.Lake) -> dict[str, cohortlake.Cohort]:
    def having(name: str) -> cohortlake.Cohort:
        return lake.cohort(name, level="series").where(Modality="CT")

    return {
        "first": having("first").first_study_per_patient(),
        "last": having("last").last_study_per_patient(),
        "random_1": having("random_1").random_study_per_patient(1),
        "random_2": having("random_2").random_study_per_patient(2),
    }


_REPLACED = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID"), Treatment.REPLACE)


@pytest.fixture(scope="module")
def of_one_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of them, to copy."""
    return Path(lake_of(f"{tmp_path_factory.mktemp('days')}/lake", _studies_of_one_day()).uri)


@pytest.mark.parametrize(
    "policy",
    [
        built_in("safe"),
        Policy("by_time", "limited", Treatment.KEEP, _REPLACED),
        Policy("bare", "safe", Treatment.SHIFT, {"study_ordinal": Treatment.WITHHOLD}),
    ],
    ids=lambda policy: policy.name,
)
def test_which_study_is_taken_does_not_depend_on_the_key(
    policy: Policy, of_one_day: Path, tmp_path: Path
) -> None:
    taken, uids = [], []
    for name in ("one", "other"):  # each makes a key of its own
        shutil.copytree(of_one_day, tmp_path / name)
        publish(Root(str(tmp_path / name)), policy)
        with cohortlake.open(tmp_path / name) as lake:
            cohorts = {name: c.to_pandas() for name, c in _one_study_each(lake).items()}
            uids.append(set(lake.sql("FROM studies").to_pandas()["StudyInstanceUID"]))
        taken.append({name: set(rows["image_set_id"]) for name, rows in cohorts.items()})
        assert {rows["patient_key"].nunique() for rows in cohorts.values()} == {PATIENTS}
    assert uids[0].isdisjoint(uids[1])
    assert taken[0] == taken[1]
    assert taken[0]["random_1"] != taken[0]["random_2"]
    assert taken[0]["first"] != taken[0]["last"]


def test_cohorts_of_one_study_of_a_day_are_the_same_after_a_rotation(
    of_one_day: Path, tmp_path: Path
) -> None:
    root = Root(str(shutil.copytree(of_one_day, tmp_path / "lake")))
    sync = Sync(Settings((DATASTORE,), root.uri))
    sync.publish()
    with cohortlake.open(root.uri) as lake:
        names = [cohort.freeze().cohort for cohort in _one_study_each(lake).values()]
    sync.rotate_key("lake")
    with cohortlake.open(root.uri) as lake:
        assert [name for name in names if not lake.verify(name).is_identical] == []


def test_a_rotation_that_was_killed_is_finished_by_doing_it_again(
    safe_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = safe_root
    sync = Sync(Settings((DATASTORE,), root.uri))
    with cohortlake.open(root.uri) as lake:
        _cohort(lake).freeze()
    for step in (
        "cohortlake.privacy.key_store.activate",
        "cohortlake.admin.rotate_patient_key.publish",
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def dies(*_: object, **_options: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(step, dies)
            sync.rotate_key("lake")
    sync.rotate_key("lake")
    assert not root.exists("keys/next-key")
    with cohortlake.open(root.uri) as lake:
        found = lake.verify("cts")
        assert found.is_identical, found.differences.to_dict("records")
    assert len(_patients(root)) == 8


@pytest.mark.parametrize(
    ("to", "calls"),
    [
        *(("lake", calls) for calls in range(4)),
        ("file", 1),
        *(pytest.param("file", calls, marks=pytest.mark.chaos) for calls in (0, 2, 3)),
    ],
)
def test_a_rotation_that_was_killed_while_the_key_was_taken_up_is_finished_too(
    safe_root: Root, to: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = safe_root
    (tmp_path / "key").write_text(KEY.hex())
    source = to if to == "lake" else f"file:{tmp_path}/key"
    sync = Sync(Settings((DATASTORE,), root.uri, privacy="safe"))
    before = _patients(root)
    with monkeypatch.context() as patch:
        activate = key_store.activate

        def dies(taken: Root, *arguments: Any) -> None:
            left = iter(range(calls))
            for name in ("write", "delete"):
                patch.setattr(taken, name, _until_it_is_killed(getattr(taken, name), left))
            activate(taken, *arguments)
            raise KeyboardInterrupt

        patch.setattr(key_store, "activate", dies)
        with pytest.raises(KeyboardInterrupt):
            sync.rotate_key(source)
    with suppress(MissingKey, WrongKey):
        Sync(Settings((DATASTORE,), root.uri, privacy="limited")).publish()
        assert (_patients(root) == before) == (calls == 0), "the old key, or already the new one"
    sync.rotate_key(source)
    assert not root.exists("keys/next-key")
    after = _patients(root)
    assert after.isdisjoint(before)
    taken_up = key_store.read_key(root, source, may_create=False)
    assert set(keyed_hashes(taken_up, "PatientID", _ids(8))) == after
    Sync(Settings((DATASTORE,), root.uri, privacy="safe", patient_key=source)).publish()
    assert _patients(root) == after


def _until_it_is_killed(step: Callable[..., None], left: Iterator[int]) -> Callable[..., None]:
    def one(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        step(*arguments)

    return one


def test_dates_move_with_the_key_and_days_between_them_do_not(safe_root: Root) -> None:
    before = _days_between_dates(safe_root)
    Sync(Settings((DATASTORE,), safe_root.uri)).rotate_key("lake")
    assert _days_between_dates(safe_root) == before


def _days_between_dates(root: Root) -> list[int]:
    patients = cohortlake.read_table(root.uri, "patients")
    first, last = patients["first_study_date_shifted"], patients["last_study_date_shifted"]
    assert all(isinstance(day, date) for day in first)
    return sorted((b - a).days for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("ThrottlingException", 400, ServiceUnavailable),
        ("InternalServiceError", 500, ServiceUnavailable),
        ("ExpiredTokenException", 400, NoCredentials),
        ("AccessDeniedException", 400, MissingKey),
        ("ResourceNotFoundException", 400, MissingKey),
    ],
)
def test_only_a_refusal_of_aws_is_a_missing_key(
    code: str, status: int, error: type[Exception]
) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(error, match=code) as raised, key_store._explained("kms:alias"):
        raise ClientError(answer, "Decrypt")  # type: ignore[arg-type]
    assert raised.value.__suppress_context__
