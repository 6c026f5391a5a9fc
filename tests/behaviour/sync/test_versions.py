"""`--fill-versions` reads the versions that no search saw and puts them into the history."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from small_hospital import fill
from unpublished import unpublished

from cohortlake import Settings, Sync, read_table
from cohortlake.errors import AccessDenied, ServiceUnavailable
from cohortlake.schema import DICOM_TAGS
from emulator import Emulator

NOW = "2026-06-01T12:00:00Z"
Row = dict[str, Any]
# What no metadata document of the service is known to hold.
COUNTS = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")


@pytest.fixture
def hospital(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    options = {"synthetic": 30, "seed": 7, "now": NOW, "clock": "stopped"}
    with emulated(**options | getattr(request, "param", {})) as emulator:
        yield emulator


@pytest.fixture
def settings(hospital: Emulator, tmp_path: Path) -> Settings:
    return Settings(hospital.datastores, f"{tmp_path}/lake", tps=1000, privacy="identified")


def _new(hospital: Emulator, count: int) -> list[Row]:
    """Return image sets that are at their first version."""
    rows = (row for row in hospital.admin.truth() if row["version"] == 1)
    return list(itertools.islice(rows, count))


def _summary(hospital: Emulator, image_set_id: str) -> Row:
    return next(row for row in hospital.admin.truth() if row["imageSetId"] == image_set_id)


def _update(hospital: Emulator, image_set_id: str, **tags: str) -> Row:
    """Change an image set a minute later, and return what a search would say of it now."""
    hospital.admin.advance(seconds=60)
    hospital.admin.update(image_set_id, tags)
    return _summary(hospital, image_set_id)


def _fill(settings: Settings) -> Row:
    with unpublished():
        filled = Sync(settings).run(fill_versions=True).filled
    assert filled is not None
    return vars(filled)


def _run(settings: Settings) -> None:
    with unpublished():
        Sync(settings).run()


def _published(settings: Settings, table: str = "history") -> pd.DataFrame:
    """Publish what the runs found, and return a table."""
    Sync(settings).publish()
    return read_table(settings.root, table)


def _history(settings: Settings, image_set_id: str) -> list[Row]:
    frame = _published(settings)
    own = frame[frame["image_set_id"] == image_set_id].sort_values("version")
    return [
        {name: None if _is_null(value) else value for name, value in row.items()}
        for row in own.to_dict("records")
    ]


def _is_null(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _assert_as_sent(row: Row, summary: Row) -> None:
    """Compare a state with the summary that a search would have found; an empty text is null."""
    assert row["version"] == summary["version"]
    assert round(row["created_at"].timestamp() * 1000) == round(summary["createdAt"] * 1000)
    assert round(row["valid_from"].timestamp() * 1000) == round(summary["updatedAt"] * 1000)
    assert row["is_primary"] == summary["isPrimary"]
    for column in DICOM_TAGS:
        sent = summary["DICOMTags"].get(column.wire)
        text, value = row.get(column.raw_name), row[column.name]
        if text is None and column.vr == "DA" and value is not None:
            text = value.strftime("%Y%m%d")
        if text is None and column.vr == "TM" and value is not None:
            text = value.strftime("%H%M%S.%f").removesuffix(".000000")
        assert (value if text is None else text) == (None if sent == "" else sent), column.name


def _assert_unbroken(rows: list[Row]) -> None:
    assert rows[0]["change"] == "created"
    for earlier, later in itertools.pairwise(rows):
        assert earlier["valid_to"] == later["valid_from"]
        assert (earlier["ended_by"], later["change"]) == ("superseded", "updated")
    known = [r for r in rows if r["observed_to"] is None or r["observed_to"] > r["observed_from"]]
    for earlier, later in itertools.pairwise(known):
        assert earlier["observed_to"] == later["observed_from"]


def test_versions_between_two_syncs_are_read_and_put_in_place(
    hospital: Emulator, settings: Settings
) -> None:
    first, other = _new(hospital, 2)
    key = first["imageSetId"]
    _fill(settings)
    sent = [first, *(_update(hospital, key, DICOMPatientSex=sex) for sex in "MFO")]
    hospital.admin.advance(seconds=60)
    _run(settings)
    before = _history(settings, key)
    assert [(row["version"], row["versions_unseen"]) for row in before] == [(1, 0), (4, 2)]

    hospital.admin.advance(seconds=600)
    filled = _fill(settings)
    assert (filled["image_sets"], filled["documents"], filled["versions"]) == (1, 2, 2)
    assert (filled["unavailable"], filled["postponed"]) == (0, 0)
    assert filled["archived"] == (first["storageTier"] == "ARCHIVE_INSTANT_ACCESS")
    rows = _history(settings, key)
    for row, summary in zip(rows, sent, strict=True):
        _assert_as_sent(row, summary)
    _assert_unbroken(rows)
    assert [set(row["changed_fields"]) for row in rows[1:]] == [
        {"version", "updated_at", "PatientSex"}
    ] * 3
    assert {row["versions_unseen"] for row in rows} == {0}
    for index, earlier in ((0, before[0]), (3, before[1])):
        seen = ("observed_from", "observed_to", "valid_from", "last_accessed_at", "storage_tier")
        assert [rows[index][name] for name in seen] == [earlier[name] for name in seen]
    for row in rows[1:3]:
        assert row["observed_to"] <= row["observed_from"], "it never was what was known"
        assert row["storage_tier"] is row["last_accessed_at"] is None
    assert len(_history(settings, other["imageSetId"])) == 1
    current = _published(settings, "image_sets").set_index("image_set_id")
    assert (len(current), current.loc[key, "version"]) == (30, 4)

    hospital.admin.clear_stats()
    assert _fill(settings) == dict.fromkeys(filled, 0)
    asked = hospital.admin.stats()["requests"]
    assert not {"ListImageSetVersions", "GetImageSetMetadata"} & asked.keys()


@pytest.mark.parametrize("hospital", [{"synthetic": 1}], indirect=True)
def test_a_first_sync_gets_all_that_came_before(hospital: Emulator, settings: Settings) -> None:
    (first,) = hospital.admin.truth()
    key, sent = first["imageSetId"], [first]
    sent += [_update(hospital, key, DICOMStudyDate=day) for day in ("20240105", "20240230", "")]
    hospital.admin.advance(seconds=60)
    filled = _fill(settings)
    assert (filled["image_sets"], filled["versions"]) == (1, 3)
    rows = _history(settings, key)
    for row, summary in zip(rows[:3], sent[:3], strict=True):
        _assert_as_sent(row, summary)
    _assert_unbroken(rows)
    assert [row["study_month"] for row in rows[1:]] == ["2024-01", None, None]

    sent.append(_update(hospital, key, DICOMPatientSex="F"))
    _update(hospital, key, DICOMPatientSex="M")
    hospital.admin.advance(seconds=60)
    assert _fill(settings)["documents"] == 1, "only what came since"
    assert [row["version"] for row in _history(settings, key)] == [1, 2, 3, 4, 5, 6]


def test_rebuild_gives_the_same_rows(hospital: Emulator, settings: Settings) -> None:
    keys = [row["imageSetId"] for row in _new(hospital, 3)]
    _fill(settings)
    states = len(_published(settings))
    for key, sex in itertools.product(keys, "MFO"):
        _update(hospital, key, DICOMPatientSex=sex)
    hospital.admin.advance(seconds=60)
    _run(settings)
    hospital.admin.delete(keys[0])
    hospital.admin.advance(seconds=60)
    _fill(settings)
    hospital.admin.advance(seconds=60)
    Sync(settings).reconcile()
    before = {table: _sorted(_published(settings, table)) for table in ("image_sets", "history")}
    assert len(before["history"]) == states + 3 + 2 * 2
    Sync(settings).rebuild()
    for table, frame in before.items():
        pd.testing.assert_frame_equal(_sorted(read_table(settings.root, table)), frame)
    hospital.admin.clear_stats()
    assert _fill(settings)["requests"] == 0, "what is not to be had is remembered too"


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["image_set_id", "version"], ignore_index=True)


@pytest.mark.parametrize("hospital", [{}, {"deleted_found": True}], indirect=True)
def test_an_image_set_that_is_gone_stays_gone(hospital: Emulator, settings: Settings) -> None:
    key = _new(hospital, 1)[0]["imageSetId"]
    _fill(settings)
    for sex in "MFO":
        _update(hospital, key, DICOMPatientSex=sex)
    hospital.admin.advance(seconds=60)
    _run(settings)
    hospital.admin.delete(key)
    hospital.admin.advance(seconds=60)
    filled = _fill(settings)
    assert (filled["documents"], filled["unavailable"]) == (0, 2)
    assert _fill(settings)["requests"] == 0
    hospital.admin.advance(seconds=60)
    assert Sync(settings).reconcile().applied.changes == {"deleted": 1}
    assert _fill(settings)["image_sets"] == 0, "what the lake knows to be gone is not asked for"
    rows = _history(settings, key)
    assert [(row["version"], row["ended_by"]) for row in rows] == [
        (1, "superseded"),
        (4, "deleted"),
    ]
    assert key not in set(_published(settings, "image_sets")["image_set_id"])


def test_archived_image_sets_that_were_moved_back_are_counted(
    hospital: Emulator, settings: Settings
) -> None:
    tags = next(hospital.admin.truth())["DICOMTags"]
    summaries = [
        {"storageTier": tier, "DICOMTags": tags}
        for tier in ("ARCHIVE_INSTANT_ACCESS", "ARCHIVE_INSTANT_ACCESS", "FREQUENT_ACCESS")
    ]
    _fill(settings)
    keys = hospital.admin.import_summaries(summaries)
    for key in keys[1:]:  # the first stays as it is
        for sex in "MF":
            _update(hospital, key, DICOMPatientSex=sex)
    hospital.admin.advance(seconds=60)
    filled = _fill(settings)
    assert (filled["image_sets"], filled["documents"], filled["archived"]) == (2, 4, 1)
    tiers = [_summary(hospital, key)["storageTier"] for key in keys]
    assert tiers == ["ARCHIVE_INSTANT_ACCESS", "FREQUENT_ACCESS", "FREQUENT_ACCESS"]


FAULTS = {"error_rate": 0.05, "reset_rate": 0.05, "cut_rate": 0.1}


@pytest.mark.parametrize("hospital", [FAULTS], indirect=True)
def test_faults_lose_no_version(
    hospital: Emulator, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.02)
    keys = [row["imageSetId"] for row in _new(hospital, 12)]
    sent = {key: [_summary(hospital, key)] for key in keys}
    for key, sex in itertools.product(keys, "MFO"):
        sent[key].append(_update(hospital, key, DICOMPatientSex=sex))
    hospital.admin.advance(seconds=60)
    filled = _fill(settings)
    assert filled["unavailable"] == 0
    while filled["postponed"]:  # by chance: eight cut documents in a row
        filled = _fill(settings)
    for key, summaries in sent.items():
        rows = _history(settings, key)
        for row, summary in zip(rows, summaries, strict=True):
            _assert_as_sent(row, summary)
        _assert_unbroken(rows)


# As the command line, with a few image sets a file, so that a kill comes between two of them.
_FEW_AT_ONCE = """
from cohortlake.cli.app import app
from cohortlake.ingest import older_versions
older_versions._IMAGE_SETS_AT_ONCE = 4
app(["sync", "--fill-versions"])
"""


def test_a_run_that_is_killed_keeps_the_rows_it_wrote(
    hospital: Emulator, settings: Settings
) -> None:
    keys = [row["imageSetId"] for row in _new(hospital, 20)]
    _fill(settings)
    states = len(_published(settings))
    sent = {key: [_summary(hospital, key)] for key in keys}
    for key, sex in itertools.product(keys, "MFO"):
        sent[key].append(_update(hospital, key, DICOMPatientSex=sex))
    hospital.admin.advance(seconds=60)
    hospital.admin.behave(latency_ms=60)
    hospital.admin.clear_stats()
    environment = os.environ | {
        "COHORTLAKE_ROOT": settings.root,
        "COHORTLAKE_DATASTORES": hospital.datastores[0],
        "COHORTLAKE_TPS": "500",
        "COHORTLAKE_PRIVACY": "identified",
    }
    landed = Path(settings.root, "increments", hospital.datastores[0], "versions/versions")
    before = len(list(landed.glob("*")))
    command = [sys.executable, "-c", _FEW_AT_ONCE]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as run:
        while len(list(landed.glob("*.parquet"))) < before + 2 and run.poll() is None:
            time.sleep(0.01)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    read = hospital.admin.stats()["requests"]["GetImageSetMetadata"]
    assert read < 40, "it was not done"

    hospital.admin.behave(latency_ms=0)
    filled = _fill(settings)
    assert 0 < filled["versions"] <= 40 - 2 * 4 * 2, "two files had landed"
    assert len(_published(settings)) == states + 60
    for key, summaries in sent.items():
        rows = _history(settings, key)
        for row, summary in zip(rows, summaries, strict=True):
            _assert_as_sent(row, summary)
        _assert_unbroken(rows)


# What an endpoint that is not our emulator answers


def _document(sex: str = "F", **series: Row) -> bytes:
    told = series or {"1.2.0.0": {"Modality": "CT", "SeriesNumber": "3 "}}
    document = {
        "SchemaVersion": "1.1",
        "Patient": {"DICOM": {"PatientID": "P0", "PatientSex": sex, "PatientName": None}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.0", "StudyDate": "20250115"},
            "Series": {
                uid: {"DICOM": dicom, "Instances": {f"{uid}.1": {"DICOM": {"Rows": 512}}}}
                for uid, dicom in told.items()
            },
        },
    }
    return gzip.compress(json.dumps(document).encode())


def _jump(endpoint: Endpoint, contents: dict[int, Any], number: int = 0, **properties: Any) -> str:
    """Give an image set five versions, of which some are listed and answered as told."""
    row = endpoint.image_sets[number]
    row |= {"version": 5, "updatedAt": row["createdAt"] + 500}
    for version, content in contents.items():
        listed = {
            "imageSetId": row["imageSetId"],
            "versionId": str(version),
            "imageSetState": "ACTIVE",
            "createdAt": row["createdAt"],
            "isPrimary": True,
        }
        if version > 1:
            listed["updatedAt"] = row["createdAt"] + 100 * version
        listed |= properties.get(f"v{version}", {})
        listed = {name: value for name, value in listed.items() if value is not None}
        endpoint.versions[row["imageSetId"], version] = listed, content
    return str(row["imageSetId"])


def _asked(endpoint: Endpoint) -> list[str]:
    return [
        path.rsplit("/", 1)[1]
        for path in endpoint.requests
        if path.endswith(("/listImageSetVersions", "/getImageSetMetadata"))
    ]


def test_what_is_not_to_be_had_is_written_down_and_not_asked_for_again(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 3)
    key = _jump(
        endpoint,
        {
            2: (404, "ResourceNotFoundException"),
            3: (400, "ValidationException"),
            4: gzip.compress(b'{"Study": {}}'),
            5: _document(),
        },
    )
    _jump(
        endpoint, {1: _document(), 3: _document(), 4: _document()}, 1,
        v3={"updatedAt": None}, v4={"imageSetState": "DELETED"},
    )  # fmt: skip
    filled = _fill(lake_settings)
    assert (filled["image_sets"], filled["documents"], filled["versions"]) == (2, 2, 1)
    assert (filled["unavailable"], filled["postponed"]) == (4 + 3, 0)
    (path,) = Path(lake_settings.root).glob("increments/*/unread/versions/*.parquet")
    told = pd.read_parquet(path).set_index("image_set_id")
    assert list(told["below_version"]) == [5, 5]
    assert json.loads(told.loc[key, "why"]) == {
        "2": "not found",
        "3": "refused",
        "4": "no metadata document",
    }
    assert json.loads(told.loc[f"{1:032x}", "why"]) == {"3": "without updatedAt", "4": "deleted"}

    endpoint.requests.clear()
    assert _fill(lake_settings) == dict.fromkeys(filled, 0)
    assert _asked(endpoint) == []
    with unpublished():
        Sync(lake_settings).rebuild()
    assert _fill(lake_settings)["requests"] == 0

    endpoint.now += timedelta(hours=1)
    endpoint.image_sets[0] |= {"version": 7, "updatedAt": endpoint.now.timestamp() - 60}
    endpoint.versions[key, 6] = (
        endpoint.versions[key, 5][0]
        | {"versionId": "6", "updatedAt": endpoint.now.timestamp() - 90},
        _document(),
    )
    filled = _fill(lake_settings)
    assert (filled["documents"], filled["unavailable"]) == (1, 0), "what came since is asked for"


def test_what_may_be_had_later_is_asked_for_again(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    fill(endpoint, 3)
    all_of_it = dict.fromkeys(range(1, 6), _document())
    _jump(endpoint, all_of_it)
    busy = _jump(endpoint, all_of_it | {2: (409, "ConflictException")}, 1)
    cut = _jump(endpoint, all_of_it | {3: _document()[:40]}, 2)
    filled = _fill(lake_settings)
    assert (filled["image_sets"], filled["postponed"], filled["unavailable"]) == (3, 2, 0)
    assert filled["versions"] == 4 + 1 + 2
    for key, version in ((busy, 2), (cut, 3)):
        endpoint.versions[key, version] = endpoint.versions[key, version][0], _document("M")
    filled = _fill(lake_settings)
    assert (filled["image_sets"], filled["documents"], filled["versions"]) == (2, 5, 5)
    assert len(_published(lake_settings)) == 15


def test_a_document_becomes_what_a_search_would_say(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 1)
    _jump(
        endpoint,
        {
            1: _document(),
            2: _document(**{"1.2.0.0": {"Modality": "CT", "SeriesNumber": "  "}}),
            3: _document(**{"1.9": {"Modality": "CT", "SeriesNumber": "1"},
                            "1.8": {"Modality": "CT", "SeriesNumber": "2"}}),
            4: gzip.compress(b'{"Patient": {"DICOM": {}}, "Study": {"DICOM": {}, "Series": {}}}'),
        },
    )  # fmt: skip
    settings = Settings(**(lake_settings.__dict__ | {"privacy": "identified"}))
    assert _fill(settings)["versions"] == 4
    rows = _history(settings, f"{0:032x}")
    shown = ("PatientSex", "Modality", "SeriesNumber", "SeriesInstanceUID", "PatientName", "extra")
    assert [tuple(row[name] for name in shown) for row in rows[:4]] == [
        ("F", "CT", 3, "1.2.0.0", None, None),
        ("F", "CT", None, "1.2.0.0", None, None),
        ("F", "CT", None, None, None, None),
        (None, None, None, None, None, None),
    ]
    assert rows[0]["valid_from"] == rows[0]["created_at"], "the first one is listed without"
    _assert_unbroken(rows)


@pytest.mark.parametrize("denied", ["ListImageSetVersions", "GetImageSetMetadata"])
def test_a_missing_right_is_named_and_what_was_found_stays(
    endpoint: Endpoint, lake_settings: Settings, denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.ingest.older_versions._IMAGE_SETS_AT_ONCE", 8)
    fill(endpoint, 30)
    for number in range(20):
        _jump(endpoint, dict.fromkeys(range(1, 6), _document()), number)
    endpoint.denied = {denied}
    with pytest.raises(AccessDenied, match=f"medical-imaging:{denied}"):
        Sync(lake_settings).run(fill_versions=True)
    assert len(read_table(lake_settings.root, "image_sets")) == 30
    asked = {path.split("/")[-2] for path in endpoint.requests if "/imageSet/" in path}
    assert 0 < len(asked) <= 8, "the others are not asked for"
    endpoint.denied = set()
    assert _fill(lake_settings)["versions"] == 80, "nothing counts as asked for"


def test_rows_written_before_a_failure_stay(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr("cohortlake.ingest.older_versions._IMAGE_SETS_AT_ONCE", 8)
    fill(endpoint, 30)
    keys = [
        _jump(endpoint, dict.fromkeys(range(1, 6), _document()), number) for number in range(20)
    ]
    listed = endpoint.versions[keys[12], 2][0]
    endpoint.versions[keys[12], 2] = listed, (500, "InternalServerException")
    with pytest.raises(ServiceUnavailable, match="GetImageSetMetadata kept failing"):
        Sync(lake_settings).run(fill_versions=True)
    gained = len(read_table(lake_settings.root, "history")) - 30
    assert 8 * 4 <= gained < 80
    endpoint.versions[keys[12], 2] = listed, _document()
    assert _fill(lake_settings)["versions"] == 80 - gained
    assert len(_published(lake_settings)) == 30 + 80


def test_older_versions_prove_no_window(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 12)
    _jump(endpoint, dict.fromkeys(range(1, 4), _document()))
    _run(lake_settings)
    sync = Sync(lake_settings)
    store = sync.datastore(DATASTORE)
    due, status = sync.due(store), sync.status()
    sync.fill_versions()
    assert sync.due(store) == due, "neither before they are applied"
    sync.apply()
    assert sync.due(store) == due, "nor after"
    after = sync.status().datastores[0]
    assert (after.complete_until, after.gaps) == (status.datastores[0].complete_until, ())
    assert after.last_search_at == status.datastores[0].last_search_at


def test_what_was_an_erased_patients_is_read_and_dropped(
    hospital: Emulator, settings: Settings
) -> None:
    theirs, moved = _new(hospital, 2)
    hospital.admin.update(theirs["imageSetId"], {"DICOMPatientId": "ERASED-1"})
    _update(hospital, moved["imageSetId"], DICOMPatientId="ERASED-1")
    _update(hospital, moved["imageSetId"], DICOMPatientId="OTHER-1")
    hospital.admin.advance(seconds=3600)
    _run(settings)
    Sync(settings).erase("ERASED-1", hospital.datastores[0])

    filled = _fill(settings)
    assert (filled["unavailable"], filled["postponed"]) == (1, 0)
    history = _published(settings)
    assert "ERASED-1" not in set(history["PatientID"])
    own = history[history["image_set_id"] == moved["imageSetId"]]
    assert sorted(own["version"]) == [1, 3], "the one between was theirs"
    assert _fill(settings)["image_sets"] == 0, "nothing is asked for twice"
