"""After an erasure no byte of the patient is left, no search brings it back, all else stays."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import documents
import pandas as pd
import pyarrow.parquet as pq
import pytest
from command import command
from endpoint import DATASTORE, Endpoint
from filled import FilledLake, filled
from small_hospital import change, fill
from typer.testing import Result
from unpublished import unpublished

import cohortlake
from cohortlake import Settings, Sync, read_table
from cohortlake.admin import erase_again
from cohortlake.admin.checks import check_published_rows
from cohortlake.admin.reconciliation_check import reconciliation_check
from cohortlake.cli.app import app
from cohortlake.errors import LakeInUse, MissingKey, NoSuchPatient, ServiceUnavailable
from cohortlake.headers.compact import Reader
from cohortlake.healthimaging import HealthImaging
from cohortlake.healthimaging.page import Page
from cohortlake.history import coverage, packing
from cohortlake.increments import files, kinds, packed
from cohortlake.increments.record import content_hash
from cohortlake.ingest import partitions
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import Erasure
from cohortlake.schema import PUBLISHED
from cohortlake.storage.root import Root

CANARY = {
    "DICOMPatientId": "CANARY-ID",
    "DICOMPatientName": "CANARY^NAME",
    "DICOMPatientBirthDate": "19121112",
    "DICOMPatientSex": "CANARY-SEX",
    "DICOMStudyInstanceUID": "1.2.77777777",
    "DICOMStudyId": "CANARY-STUDY",
    "DICOMStudyDescription": "CANARY DESCRIPTION",
    "DICOMNumberOfStudyRelatedSeries": 77777771,
    "DICOMNumberOfStudyRelatedInstances": 77777772,
    "DICOMAccessionNumber": "CANARY-ACC",
    "DICOMSeriesInstanceUID": "1.2.77777777.1",
    "DICOMSeriesModality": "CANARY-MOD",
    "DICOMSeriesBodyPart": "CANARY-BODY",
    "DICOMSeriesNumber": 77777773,
    "DICOMStudyDate": "20251103",  # a month that others have, too
    "DICOMStudyTime": "030303.030303",
    "CanaryMember": "CANARY-MEMBER",
}
FIRST_STATE = CANARY | {
    "DICOMStudyDate": "20251003",  # the first month, which nobody else has
    "DICOMSeriesNumber": "CANARY-77",  # no number: kept as text, and counted
}
FIRST_DAY, FIRST_MONTH = date(2026, 1, 25), date(2025, 10, 1)
"""Few partitions, because an erasure reads the increments of each."""
IDS = [f"{number:032x}" for number in (0xC0FFEE1, 0xC0FFEE2)]


@pytest.fixture(scope="module")
def swept_lake(tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """A lake of sixty image sets of others and two of a patient, with a history, swept."""
    return filled(tmp_path_factory.mktemp("swept"), fill_and_sweep, FIRST_DAY, FIRST_MONTH)


def fill_and_sweep(endpoint: Endpoint, sync: Sync) -> None:
    fill(endpoint, 60, months=1, first_month=11)
    at = endpoint.now.timestamp() - 86400 * 9
    for image_set_id in IDS:
        endpoint.image_sets.append(
            {"imageSetId": image_set_id, "version": 1, "createdAt": at, "updatedAt": at,
             "isPrimary": True, "DICOMTags": dict(FIRST_STATE)}
        )  # fmt: skip
    with unpublished():
        sync.run()
    endpoint.now += timedelta(hours=2)
    change(endpoint, 60, **CANARY)
    change(endpoint, 3, DICOMPatientSex="M")
    sync.run()
    endpoint.now += timedelta(hours=2)
    del endpoint.image_sets[61]
    sync.reconcile()
    endpoint.now += timedelta(hours=2)
    sync.reconcile()  # which knows all, and keeps no rows
    with cohortlake.open(sync.settings.root) as lake:
        lake.cohort("everybody", level="series").freeze()
    assert_somewhere(sync.root, traces(sync.root))


@pytest.fixture(scope="module")
def erased_lake(swept_lake: FilledLake, tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """That lake after the patient was erased."""

    def erase(endpoint: Endpoint, sync: Sync) -> None:
        swept_lake.copy_to(sync.settings.root, endpoint)
        sync.erase("CANARY-ID", DATASTORE)

    return filled(tmp_path_factory.mktemp("erased"), erase, FIRST_DAY, FIRST_MONTH)


@pytest.fixture(scope="module")
def wanted(swept_lake: FilledLake) -> set[str]:
    """All that shows the patient in the lake that was swept."""
    return traces(Root(str(swept_lake.root)))


@pytest.fixture
def few_partitions(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    """The partitions of those lakes. The fixture `endpoint` sets others."""
    monkeypatch.setattr(partitions, "FIRST_DAY", FIRST_DAY)
    monkeypatch.setattr(partitions, "FIRST_MONTH", FIRST_MONTH)


@pytest.fixture
def own_copy(
    endpoint: Endpoint, lake_settings: Settings, few_partitions: None
) -> Callable[[FilledLake], Sync]:
    """Copies a lake for the test."""

    def copy(lake: FilledLake) -> Sync:
        lake.copy_to(lake_settings.root, endpoint)
        return Sync(lake_settings)

    return copy


@pytest.fixture
def sync(own_copy: Callable[[FilledLake], Sync], swept_lake: FilledLake) -> Sync:
    """The test's own copy of the lake that was swept."""
    return own_copy(swept_lake)


@pytest.fixture
def erased(own_copy: Callable[[FilledLake], Sync], erased_lake: FilledLake) -> Sync:
    """The test's own copy of the lake after the patient was erased."""
    return own_copy(erased_lake)


def state_keys(root: Root) -> set[str]:
    keys: set[str] = set()
    for path in files.paths(root):
        rows = pq.read_table(root.path(path)).to_pylist()
        keys |= {str(r["state_key"]) for r in rows if r.get("PatientID") == "CANARY-ID"}
    return keys


def traces(root: Root) -> set[str]:
    typed = {
        "1912-11-12",
        "2025-11-03",
        "2025-10-03",
        "study_month=2025-10",
        "03:03:03.030303",
        "10983030303",
    }
    sent = {str(value) for tags in (CANARY, FIRST_STATE) for value in tags.values()}
    return sent | typed | set(IDS) | state_keys(root)


def texts(root: str) -> Iterator[tuple[Path, str]]:
    """All that can be read of each file: its name, its bytes, its values, its statistics."""
    for path in sorted(Path(root).rglob("*")):
        text = str(path.relative_to(root))
        if path.is_file():
            text += path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            metadata = pq.read_metadata(path)
            text += json.dumps(metadata.to_dict(), default=str) + str(metadata.metadata)
            text += json.dumps(pq.read_table(path).to_pylist(), default=str)
        yield path, text


def left(root: str, wanted: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, text in texts(root):
        for value in wanted:
            if value in text:
                found.setdefault(value, []).append(path.name)
    return found


def assert_somewhere(root: Root, wanted: set[str]) -> None:
    """The search for traces finds them where there are some; raw dates and names not always."""
    found = left(root.uri, wanted)
    assert wanted - found.keys() <= {"19121112", "20251003", "20251103", "030303.030303"}


def tables(root: str) -> dict[str, pd.DataFrame]:
    frames = {}
    for table in PUBLISHED:
        frame = read_table(root, table)
        ids = ("image_set_id", "version", "SeriesInstanceUID", "StudyInstanceUID", "patient_key")
        frames[table] = frame.sort_values([i for i in ids if i in frame], ignore_index=True)
    return frames


def without(frames: dict[str, pd.DataFrame], patient_key: str) -> dict[str, pd.DataFrame]:
    return {
        table: frame[frame["patient_key"] != patient_key].reset_index(drop=True)
        for table, frame in frames.items()
    }


def assert_same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for table in PUBLISHED:
        pd.testing.assert_frame_equal(one[table], other[table])


def test_nothing_of_theirs_is_left_and_all_of_the_others(
    swept_lake: FilledLake, erased_lake: FilledLake, wanted: set[str]
) -> None:
    root = Root(str(erased_lake.root))
    (erasure,) = erasures.read(root)
    assert_erased(root, erasure, wanted, before=tables(str(swept_lake.root)))


def test_nothing_of_theirs_is_left_in_packed_increments(
    sync: Sync, wanted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_FEWEST_SMALL_FILES", 2)
    packing.pack(sync.root, timedelta(days=7))
    assert set(map(packed.is_packed, files.paths(sync.root))) == {True, False}
    assert len(files.paths(sync.root)) < 8 < len(files.listed(sync.root))
    before = tables(sync.root.uri)
    assert_erased(sync.root, sync.erase("CANARY-ID", DATASTORE), wanted, before)


def assert_erased(
    root: Root, erasure: Erasure, wanted: set[str], before: dict[str, pd.DataFrame]
) -> None:
    """The record says what was erased, and the lake holds what it held but for that."""
    assert left(root.uri, wanted) == {}
    assert erasure.erased_at
    assert (erasure.image_sets, erasure.rows) == (2, 4)
    assert erasure.image_set_ids is None
    (key,) = erasure.patient_keys
    after = tables(root.uri)
    assert_same(after, without(before, key))
    assert len(after["image_sets"]) == 60
    assert erasures.erased_on(root) == {key: date.fromisoformat(erasure.began_at[:10])}
    rows = check_published_rows(root)
    assert rows.passed and rows.counts == {"image_sets_rows": 60, "current_rows": 60}
    with cohortlake.open(root.uri) as lake:
        (reason,) = lake.verify("everybody").reasons.to_dict("records")
    day = erasure.began_at[:10]
    assert (reason["what"], reason["why"], reason["day"]) == ("erased", "erased by policy", day)
    assert reason["members"] == 1


def test_the_files_say_of_themselves_what_is_left(
    swept_lake: FilledLake, erased_lake: FilledLake
) -> None:
    swept, root = (Root(str(lake.root)) for lake in (swept_lake, erased_lake))
    before = {p: files.read_record(swept, p) for p in files.paths(swept)}
    assert files.paths(root) == list(before)
    ledger = {row["increment"]: row for row in coverage.read(root).to_pylist()}
    assert ledger.keys() == before.keys()
    for path, earlier in before.items():
        record = files.read_record(root, path)
        rows = pq.read_table(root.path(path))
        assert ledger[path]["content_hash"] == record.content_hash
        assert record.kept_rows == len(rows)
        if len(rows) and record.axis != kinds.ABSENCE_AXIS:
            assert record.rows == len(rows)
            assert record.content_hash == content_hash(rows["state_key"].to_numpy())
            assert record.rows + record.erased_rows == earlier.rows
    assert sum(row["erased_rows"] for row in ledger.values()) == 3
    invalid = [json.loads(row["invalid_values"]) for row in ledger.values()]
    assert not any("SeriesNumber" in counts for counts in invalid)


def test_the_axes_agree_afterwards(
    swept_lake: FilledLake, erased: Sync, endpoint: Endpoint
) -> None:
    before = reconciliation_check(Root(str(swept_lake.root)))
    assert before.differing == ()
    after = reconciliation_check(erased.root)
    # What sweeps of their months had counted is not known any more, until the next ones.
    # One month's, and those of `undated`.
    assert (after.differing, after.agreeing, after.changed) == ((), before.agreeing - 2, 2)
    endpoint.now += timedelta(hours=2)
    with unpublished():
        assert erased.reconcile().applied.changes == {}
    again = reconciliation_check(erased.root)
    assert (again.differing, again.agreeing, again.changed) == ((), before.agreeing, 0)
    ledger = coverage.read(erased.root).to_pylist()
    newest = max(row["searched_at"] for row in ledger)
    swept = [row for row in ledger if row["searched_at"] == newest]
    assert sum(row["erased_rows"] for row in swept if row["axis"] == "study_date") == 1


def test_no_search_brings_them_back(erased: Sync, endpoint: Endpoint, wanted: set[str]) -> None:
    endpoint.now += timedelta(hours=1)
    change(endpoint, 60, DICOMPatientSex="CANARY-AGAIN")
    change(endpoint, 5, DICOMPatientSex="O")
    with unpublished():
        assert erased.run().applied.changes == {"updated": 1}
        endpoint.image_sets.append(endpoint.image_sets[60] | {"imageSetId": IDS[1]})
        erased.reconcile()
    assert left(erased.settings.root, wanted | {"CANARY"}) == {}
    erased.rebuild()
    assert left(erased.settings.root, wanted | {"CANARY"}) == {}
    ids = set(read_table(erased.settings.root, "image_sets")["image_set_id"])
    assert ids == {row["imageSetId"] for row in endpoint.image_sets} - set(IDS)


RESTORED = ("increments", "headers", "cohorts")
"""The folders of an older copy. `erasures/` and `keys/` are restored from the newest one."""
DERIVED = ("image_sets", "history_index", "coverage", "published")


def write_their_headers(root: Root) -> None:
    document = documents.of_instances(documents.instance(StationName="CANARY"))
    document["Patient"]["DICOM"]["PatientID"] = "CANARY-ID"
    header = Reader.of(documents.parts(documents.packed(document)))
    documents.write_headers(
        root, DATASTORE, "2025-10", {(image_set_id, 1): header for image_set_id in IDS}
    )


def restore(copy: Path, lake: Path, derived: str = "older") -> None:
    """Replace folders of a lake by those of a copy; those that are derived may be of any age."""
    for name in (*RESTORED, *DERIVED):
        if name in DERIVED and derived == "newer":
            continue
        shutil.rmtree(lake / name, ignore_errors=True)
        if (name in RESTORED or derived == "older") and (copy / name).exists():
            shutil.copytree(copy / name, lake / name)


@pytest.fixture(scope="module")
def copied_lake(swept_lake: FilledLake, tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """The copy that is restored: the lake that was swept, with the patient's headers."""

    def add_headers(endpoint: Endpoint, sync: Sync) -> None:
        swept_lake.copy_to(sync.settings.root, endpoint)
        write_their_headers(sync.root)

    return filled(tmp_path_factory.mktemp("copied"), add_headers, FIRST_DAY, FIRST_MONTH)


@pytest.fixture(scope="module")
def newer_lake(copied_lake: FilledLake, tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    """The lake that it is restored to: the patient is erased, and others changed and went."""

    def erase_and_change(endpoint: Endpoint, sync: Sync) -> None:
        copied_lake.copy_to(sync.settings.root, endpoint)
        sync.erase("CANARY-ID", DATASTORE)
        endpoint.now += timedelta(hours=2)
        change(endpoint, 7, DICOMPatientSex="O")
        del endpoint.image_sets[8]
        sync.reconcile()

    return filled(tmp_path_factory.mktemp("newer"), erase_and_change, FIRST_DAY, FIRST_MONTH)


@pytest.fixture
def newer(own_copy: Callable[[FilledLake], Sync], newer_lake: FilledLake) -> Sync:
    """The test's own copy of that lake."""
    return own_copy(newer_lake)


@pytest.mark.parametrize("derived", ["older", "newer", "gone"])
def test_a_restored_copy_brings_nobody_back(
    newer: Sync, copied_lake: FilledLake, wanted: set[str], derived: str
) -> None:
    lake = Path(newer.settings.root)
    restore(copied_lake.root, lake, derived)
    assert left(str(lake), {"CANARY-ID"}) != {}

    (erasure,) = newer.erase_again()
    assert left(str(lake), wanted | {"CANARY"}) == {}
    assert erasure.erased_at and erasure.image_set_ids is None
    with cohortlake.open(str(lake)) as opened:
        reasons = opened.verify("everybody").reasons
    assert reasons[reasons["what"] == "erased"]["members"].sum() == 1
    assert_published_are(newer, copied_lake.image_sets)
    assert newer.erase_again() == ()


def test_no_search_after_a_restored_copy_brings_anybody_back(
    newer: Sync, copied_lake: FilledLake, endpoint: Endpoint, wanted: set[str]
) -> None:
    restore(copied_lake.root, Path(newer.settings.root))
    newer.erase_again()
    with unpublished():
        newer.run()
    newer.reconcile()
    assert left(newer.settings.root, wanted | {"CANARY"}) == {}
    assert_published_are(newer, endpoint.image_sets)
    assert newer.erase_again() == ()


def assert_published_are(sync: Sync, image_sets: list[dict[str, Any]]) -> None:
    """All image sets are published, except those of the patient."""
    published = read_table(sync.settings.root, "image_sets")
    wanted = {row["imageSetId"] for row in image_sets} - set(IDS)
    assert set(published["image_set_id"]) == wanted
    (erased_key,) = erasures.erased_on(sync.root)
    assert erased_key not in set(published["patient_key"])


@pytest.mark.parametrize("step", ["remove_rows", "rebuild_without", "erase_members"])
def test_a_restored_copy_brings_nobody_back_though_the_run_is_killed(
    newer: Sync,
    copied_lake: FilledLake,
    wanted: set[str],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    lake = Path(newer.settings.root)
    restore(copied_lake.root, lake)
    done = getattr(erase_again, step)

    def killed(*given: Any) -> None:
        done(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erase_again, step, killed)
        with pytest.raises(KeyboardInterrupt):
            newer.erase_again()
    newer.erase_again()
    assert left(str(lake), wanted | {"CANARY"}) == {}
    assert all(record.image_set_ids is None for record in erasures.read(newer.root))


def test_an_image_set_belongs_to_its_last_known_patient(
    sync: Sync, endpoint: Endpoint, lake_settings: Settings
) -> None:
    endpoint.now += timedelta(hours=2)
    change(endpoint, 10, DICOMPatientId="CANARY-ID")  # was filed under another, and is theirs
    change(endpoint, 60, DICOMPatientId="P7", DICOMPatientName="CANARY^OTHER")  # and the reverse
    with unpublished():
        sync.run()
    endpoint.now += timedelta(hours=2)
    change(endpoint, 10, DICOMPatientId="  ")  # says nothing
    with unpublished():
        sync.run()
    erasure = sync.erase("CANARY-ID", DATASTORE)
    assert erasure.image_sets == 3
    history = read_table(lake_settings.root, "history").set_index("image_set_id")
    assert f"{10:032x}" not in history.index
    assert IDS[1] not in history.index
    (state,) = history.loc[[IDS[0]]].itertuples()
    assert (state.version, state.change) == (3, "created")
    assert "CANARY-ID" not in "".join(text for _, text in texts(lake_settings.root))


def test_an_image_set_refiled_to_the_erased_patient_is_closed(
    erased: Sync, endpoint: Endpoint, lake_settings: Settings
) -> None:
    with unpublished():
        for work, number in ((Sync.run, 12), (Sync.reconcile, 13)):
            endpoint.now += timedelta(hours=2)
            change(endpoint, number, DICOMPatientId="CANARY-ID")
            assert work(Sync(lake_settings)).applied.changes == {"deleted": 1}
            assert reconciliation_check(erased.root).differing == ()
    assert {f"{number:032x}" for number in (12, 13)}.isdisjoint(held(erased))
    endpoint.now += timedelta(hours=2)
    for number in (12, 13):
        change(endpoint, number, DICOMPatientId="P5")  # it was a mistake
    with unpublished():
        assert Sync(lake_settings).run().applied.changes == {"reappeared": 2}


def refile(endpoint: Endpoint) -> str:
    """Refile one image set to the erased patient, and change all others a day later."""
    endpoint.now += timedelta(hours=2)
    change(endpoint, 12, DICOMPatientId="CANARY-ID")
    endpoint.now += timedelta(days=1)
    for number in range(60):
        if number != 12:
            change(endpoint, number, DICOMPatientSex="O")
    endpoint.now += timedelta(hours=1)
    return f"{12:032x}"


def held(sync: Sync) -> set[str]:
    Sync(sync.settings).apply()
    Sync(sync.settings).publish()
    return set(read_table(sync.settings.root, "image_sets")["image_set_id"])


def test_a_refiled_image_set_is_closed_though_the_search_fails_midway(
    erased: Sync, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiled = refile(endpoint)
    one = replace(erased.settings, workers=1)
    search_page, pages = HealthImaging.search_page, list[Page]()

    def fails(*arguments: Any, **options: Any) -> Page:
        if pages and pages[-1].next_token:
            raise ServiceUnavailable("503")
        pages.append(search_page(*arguments, **options))
        return pages[-1]

    with monkeypatch.context() as patch, unpublished():
        patch.setattr(HealthImaging, "search_page", fails)
        with pytest.raises(ServiceUnavailable):
            Sync(one).run()
    assert len(pages) == 1
    days = {
        row["partition"] for row in coverage.read(erased.root).to_pylist() if row["erased_rows"]
    }
    assert days, "the window that brought it counts as searched, and no other search finds it"
    assert refiled not in held(erased)
    with unpublished():
        assert Sync(erased.settings).run().applied.changes == {"updated": 59 - 49}
    assert len(held(erased)) == 59
    assert left(erased.settings.root, {"CANARY"}) == {}


def test_a_refiled_image_set_is_closed_though_the_run_is_killed(
    erased: Sync, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiled = refile(endpoint)
    store = erased.datastore(DATASTORE)
    days = erased.extract(store, erased.due(store))
    next(days)  # the first day has landed, and nothing comes after it
    days.close()
    assert refiled not in held(erased)

    change(endpoint, 13, DICOMPatientId="CANARY-ID")
    endpoint.now += timedelta(hours=1)
    for step in (
        "cohortlake.history.refiled.close",
        "cohortlake.increments.writer.IncrementWriter.commit",
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

            def dies(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(step, dies)
            Sync(erased.settings).run()
    with unpublished():
        Sync(erased.settings).run()
    still_held = held(erased)
    assert len(still_held) == 58
    assert f"{13:032x}" not in still_held


@pytest.mark.parametrize("is_applied", [False, True])
def test_rows_written_by_a_run_with_an_older_list_do_not_come_back(
    erased: Sync,
    endpoint: Endpoint,
    wanted: set[str],
    monkeypatch: pytest.MonkeyPatch,
    is_applied: bool,
) -> None:
    """On S3 nobody knows of a run on another machine that began before the erasure."""
    refiled = refile(endpoint)
    with run_with_older_list(erased, endpoint, monkeypatch):
        if is_applied:  # by a release that did not look
            Sync(erased.settings).apply()
    if is_applied:
        Sync(erased.settings).rebuild()
    assert refiled not in held(erased)
    assert len(held(erased)) == 59
    late = {path.name for path, text in texts(f"{erased.root.uri}/increments") if "CANARY" in text}
    assert late == set()
    if not is_applied:
        assert left(erased.settings.root, wanted | {"CANARY"}) == {}
        assert reconciliation_check(erased.root).differing == ()
    assert coverage.pending(erased.root) == []
    assert sum(coverage.read(erased.root)["erased_rows"].to_pylist()) >= 2


def test_rows_that_came_late_leave_with_the_next_erasure(
    erased: Sync, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the history from all increments, and they were not applied yet."""
    with run_with_older_list(erased, endpoint, monkeypatch):
        pass
    assert erased.erase("P5", DATASTORE).image_sets > 0
    assert left(erased.settings.root, {"CANARY"}) == {}


@contextmanager
def run_with_older_list(
    erased: Sync, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A run on another machine searches, and then does what the block does."""
    change(endpoint, 60, DICOMPatientSex="CANARY-LATE")
    endpoint.now += timedelta(hours=1)
    with monkeypatch.context() as older:
        older.setattr(erasures, "read", lambda _root: [])
        store = erased.datastore(DATASTORE)
        list(erased.extract(store, erased.due(store)))
        yield
    assert left(erased.settings.root, {"CANARY-LATE"})


def test_padding_is_no_part_of_an_id(sync: Sync, endpoint: Endpoint) -> None:
    endpoint.now += timedelta(hours=2)
    change(endpoint, 20, DICOMPatientId="CANARY-ID ")
    sync.run()
    padded = read_table(sync.settings.root, "image_sets").set_index("image_set_id")
    erasure = sync.erase(" CANARY-ID", DATASTORE)
    assert erasure.image_sets == 3
    assert len(erasure.patient_keys) == 2
    assert set(erasure.patient_keys) > {
        padded.loc[f"{20:032x}", "patient_key"],
    }
    endpoint.now += timedelta(hours=2)
    change(endpoint, 20, DICOMPatientSex="F")
    with unpublished():
        assert sync.run().applied.changes == {}


def test_other_blanks_than_dicoms_are_part_of_an_id(sync: Sync, endpoint: Endpoint) -> None:
    """PS3.5 pads with spaces; an ideographic space is as typed, and tells two ids apart."""
    theirs = {20: "CANARY-ID\u3000", 21: "CANARY-ID\xa0", 22: "CANARY-ID\t"}
    endpoint.now += timedelta(hours=2)
    for number, patient in theirs.items():
        change(endpoint, number, DICOMPatientId=patient)
    with unpublished():
        sync.run()
    assert sync.erase("CANARY-ID", DATASTORE).image_sets == 2
    held = set(read_table(sync.settings.root, "image_sets")["image_set_id"])
    assert {f"{number:032x}" for number in theirs} <= held
    for patient in theirs.values():
        with unpublished():
            assert sync.erase(patient, DATASTORE).image_sets == 1
    endpoint.now += timedelta(hours=2)
    for number in theirs:
        change(endpoint, number, DICOMPatientSex="F")
    with unpublished():
        assert sync.run().applied.changes == {}


def test_what_was_not_applied_yet_goes_too(
    sync: Sync, endpoint: Endpoint, lake_settings: Settings
) -> None:
    endpoint.now += timedelta(hours=2)
    change(endpoint, 60, DICOMPatientSex="CANARY-LATE")
    store = sync.datastore(DATASTORE)
    list(sync.extract(store, sync.due(store)))
    sync.erase("CANARY-ID", DATASTORE)
    assert left(lake_settings.root, {"CANARY"}) == {}
    assert coverage.pending(sync.root) == []


def test_a_second_time_there_is_nothing_to_do(erased: Sync, lake_settings: Settings) -> None:
    (first,) = erasures.read(erased.root)
    before = {p: p.stat().st_mtime_ns for p in Path(lake_settings.root).rglob("*")}
    assert erased.erase("CANARY-ID", DATASTORE) == first
    assert {p: p.stat().st_mtime_ns for p in Path(lake_settings.root).rglob("*")} == before
    status = erased.status()
    assert (status.erasures, status.erasures_under_way) == (1, 0)


def test_patients_of_the_same_id_elsewhere_stay(sync: Sync) -> None:
    with pytest.raises(NoSuchPatient, match="--datastore"):
        sync.erase("CANARY-ID", "f" * 32)
    with pytest.raises(NoSuchPatient, match="cohortlake sync") as raised:
        sync.erase("NOBODY-AT-ALL", DATASTORE)
    assert "NOBODY" not in str(raised.value)
    assert erasures.read(sync.root) == []


def test_without_the_patient_key_nobody_is_erased(sync: Sync) -> None:
    Path(sync.root.path("keys/patient-key")).unlink()
    with pytest.raises(MissingKey):
        sync.erase("CANARY-ID", DATASTORE)
    assert erasures.read(sync.root) == []


def test_without_the_erasure_key_nobody_is_let_in(erased: Sync, endpoint: Endpoint) -> None:
    Path(erased.root.path("keys/erasure-key")).unlink()
    endpoint.now += timedelta(hours=1)
    change(endpoint, 60)
    with pytest.raises(MissingKey):
        erased.run()
    assert left(erased.settings.root, {"CANARY"}) == {}


def test_the_only_patient_of_a_lake(
    endpoint: Endpoint, lake_settings: Settings, few_partitions: None
) -> None:
    at = endpoint.now.timestamp() - 9000
    endpoint.image_sets = [
        {"imageSetId": IDS[0], "version": 1, "createdAt": at, "updatedAt": at, "DICOMTags": CANARY}
    ]
    sync = Sync(lake_settings)
    sync.run()
    wanted = traces(sync.root)
    sync.erase("CANARY-ID", DATASTORE)
    assert left(lake_settings.root, wanted) == {}
    assert len(read_table(lake_settings.root, "history")) == 0
    fill(endpoint, 3)
    endpoint.now += timedelta(hours=3)
    for number in (1, 2, 3):
        change(endpoint, number)
    with unpublished():
        assert sync.run().applied.changes == {"created": 3}


def test_while_another_run_is_at_work_it_is_only_begun(
    sync: Sync, endpoint: Endpoint, lake_settings: Settings
) -> None:
    at_work = f"""
import sys
from cohortlake.storage.root import Root
root = Root({lake_settings.root!r})
root.prepare()
print("at work", flush=True)
sys.stdin.read()
"""
    command = (sys.executable, "-c", at_work)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        with pytest.raises(LakeInUse, match="run it again"):
            sync.erase("CANARY-ID", DATASTORE)
        other.stdin.close()
        other.wait(30)
    status = sync.status()
    assert (status.erasures, status.erasures_under_way) == (1, 1)
    endpoint.now += timedelta(hours=1)
    change(endpoint, 60, DICOMPatientSex="CANARY-NEW")
    assert sync.run().applied.changes == {}, "they are kept out already"
    assert left(lake_settings.root, {"CANARY-NEW"}) == {}
    assert sync.erase("CANARY-ID", DATASTORE).erased_at
    assert left(lake_settings.root, {"CANARY"}) == {}


@pytest.fixture
def variables(sync: Sync, lake_settings: Settings) -> dict[str, str]:
    """The settings of a command that works on the test's copy."""
    return {
        "COHORTLAKE_ROOT": lake_settings.root,
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_PRIVACY": lake_settings.privacy,
        "COLUMNS": "200",
    }


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_a_terminal_is_asked(
    variables: dict[str, str],
    lake_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    os.write(ours, f"CANARY-ID\n{answer}\n".encode())
    with os.fdopen(theirs) as terminal, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(sys, "stdin", terminal)
        app(["erase", "--patient", "-"], prog_name="cohortlake")
    os.close(ours)
    asked = capsys.readouterr().err
    assert ended.value.code == code, asked
    assert "for good? [y/N]" in asked
    assert ("CANARY-ID" in "".join(t for _, t in texts(lake_settings.root))) is (code == 1)


def test_the_command_says_what_it_did_and_not_to_whom(
    variables: dict[str, str], lake_settings: Settings
) -> None:
    def erase(*arguments: str, typed: str = "") -> Result:
        return command("erase", "--patient", *arguments, typed=typed, **variables)

    asked = erase("CANARY-ID")
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert erase("-", "--yes", typed="\n").exit_code == 2
    unknown = erase("-", "--yes", typed="NOBODY\n")
    assert (unknown.exit_code, "no such patient" in unknown.stderr) == (2, True)
    done = erase("-", "--yes", typed="CANARY-ID\n")
    assert done.exit_code == 0, done.stderr
    assert "2 image sets, 4 rows" in done.stdout
    again = erase("CANARY-ID", "--yes", "--json")
    assert json.loads(again.stdout)["rows"] == 4
    said = "".join(p.stdout + p.stderr for p in (asked, unknown, done, again))
    assert not any(name in said for name in ("CANARY", "NOBODY"))
    assert left(lake_settings.root, {"CANARY"}) == {}
