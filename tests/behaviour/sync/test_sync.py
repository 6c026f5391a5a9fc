"""`Sync` over HTTP, against an endpoint that is not our emulator."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from emulated import emulated
from endpoint import DATASTORE, Endpoint
from small_hospital import assert_equal_to_truth, change, fill
from unpublished import assert_history_equals_truth, unpublished

import cohortlake
from cohortlake import Settings, Sync, read_table
from cohortlake.admin import checks
from cohortlake.errors import (
    AccessDenied,
    DatastoreNotActive,
    DeletionsRefused,
    MissingKey,
    NoCredentials,
    NoSuchDatastore,
    NotALake,
    OldFormat,
    RootNotUsable,
    ServiceUnavailable,
    SettingError,
    UnknownColumn,
    UnknownTable,
)
from cohortlake.ingest.progress import describe_unconfirmed
from cohortlake.publish.publication.marker import MARKER_PATH
from cohortlake.schema import PUBLISHED
from cohortlake.storage.files import Draft
from cohortlake.storage.root import Root
from emulator import Emulator

TABLES = tuple(PUBLISHED)


def test_first_run_backfills_and_later_runs_take_what_is_new(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 300)
    first = Sync(lake_settings).run()
    assert first.applied.changes == {"created": 300}
    assert_equal_to_truth(lake_settings.root, endpoint)

    endpoint.now += timedelta(days=3)
    fill(endpoint, 0)
    change(endpoint, 5, DICOMPatientSex="F")
    change(endpoint, 6, DICOMStudyDate="20250620")
    second = Sync(lake_settings).run()
    assert second.applied.changes == {"updated": 2}
    assert second.requests < 10
    assert_equal_to_truth(lake_settings.root, endpoint)

    history = read_table(lake_settings.root, "history")
    updated = history[history["change"] == "updated"].set_index("image_set_id")
    assert set(updated.loc[f"{5:032x}"]["changed_fields"]) == {
        "version",
        "updated_at",
        "PatientSex",
    }
    ended = history[history["ended_by"].notna()]
    assert sorted(ended["image_set_id"]) == [f"{5:032x}", f"{6:032x}"]


def test_a_run_with_nothing_new_writes_no_file(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 20)
    Sync(lake_settings).run()
    before = _files(lake_settings.root)
    endpoint.now += timedelta(minutes=30)
    outcome = Sync(lake_settings).run()
    assert (outcome.requests, outcome.rows) == (1, 0)
    assert _files(lake_settings.root) == before


def test_readers_see_up_to_when_the_lake_is_complete_also_on_quiet_days(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    def shown() -> str:
        with cohortlake.open(lake_settings.root) as lake:
            (line,) = [line for line in repr(lake).splitlines() if "complete until" in line]
            assert line.split("complete until")[1].strip() in lake._repr_html_()
        return line.split("complete until")[1].strip()

    def proven() -> str:
        (store,) = Sync(lake_settings).status().datastores
        assert store.complete_until > datetime(2026, 1, 1, tzinfo=UTC)
        return f"{store.complete_until:%Y-%m-%d %H:%M} UTC"

    fill(endpoint, 20)
    Sync(lake_settings).run()
    first = shown()
    assert first == proven()

    before = _files(lake_settings.root)
    endpoint.now += timedelta(days=2)  # two days without a change
    assert Sync(lake_settings).run().publication.written == ()  # type: ignore[union-attr]
    assert shown() == proven() > first
    published = {
        path.name
        for path, stamp in _files(lake_settings.root).items()
        if "published" in path.parts and before.get(path) != stamp
    }
    assert published == {"_published.json"}
    assert len(Sync(lake_settings).publish().files) > 5  # type: ignore[union-attr]

    # A marker of an older release has no such field.
    marker = Path(lake_settings.root, MARKER_PATH)
    items = json.loads(marker.read_text())
    del items["complete_until"]
    marker.write_text(json.dumps(items))
    assert "next publication" in shown()
    Sync(lake_settings).publish()
    assert shown() == proven()

    # Of two data stores, the one that is behind counts; one with a gap at its beginning is not.
    for others, expected in (
        ({"other": "2025-03-04T05:06:07+00:00"}, "2025-03-04 05:06 UTC"),
        ({"other": None}, "not complete yet"),
    ):
        items["complete_until"] = {DATASTORE: "2026-01-01T00:00:00+00:00", **others}
        marker.write_text(json.dumps(items))
        assert shown() == expected


def _files(root: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}


def test_a_run_with_nothing_new_imports_what_it_needs(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 1)
    Sync(lake_settings).run()
    endpoint.now += timedelta(minutes=30)
    code = (
        "import sys; from cohortlake.cli.app import app; "
        "app(['sync', '--json'], standalone_mode=False); "
        "print(*{'pandas', 'yaml', 'pyarrow.dataset', 'cohortlake.cohort'} & {*sys.modules})"
    )
    settings = {
        "COHORTLAKE_ROOT": lake_settings.root,
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_PRIVACY": lake_settings.privacy,
    }
    done = subprocess.run(
        (sys.executable, "-c", code),
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, outcome, imported = done.stdout.splitlines()
    assert json.loads(outcome)["applied"]["rows"] == 0
    assert imported == ""


def test_reconcile_closes_what_is_gone_and_nothing_else(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 120)
    with unpublished():
        Sync(lake_settings).run()
    del endpoint.image_sets[40], endpoint.image_sets[0]  # 0 has no usable study date
    # Moved to another month since the last tick: absent from its old partition, not gone.
    endpoint.now += timedelta(hours=1)
    change(endpoint, 20, DICOMStudyDate="20250401")
    outcome = Sync(lake_settings).reconcile()
    assert outcome.applied.changes == {"deleted": 2, "updated": 1}
    assert_equal_to_truth(lake_settings.root, endpoint)


def test_a_sweep_says_nothing_of_what_is_newer_than_it(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 30)
    with unpublished():
        Sync(lake_settings).run()
    endpoint.now += timedelta(hours=1)
    search = endpoint.search

    def searched(*request: Any) -> dict[str, Any]:
        endpoint.image_sets[7] |= {"version": 2, "updatedAt": endpoint.now.timestamp() + 5}
        return search(*request)

    endpoint.search = searched  # type: ignore[method-assign]
    with unpublished():
        assert Sync(lake_settings).reconcile().applied.changes == {}
    endpoint.search = search  # type: ignore[method-assign]
    endpoint.now += timedelta(hours=1)
    assert Sync(lake_settings).run().applied.changes == {"updated": 1}
    assert_equal_to_truth(lake_settings.root, endpoint)
    history = read_table(lake_settings.root, "history")
    assert (history["observed_from"] >= history["valid_from"]).all()


def test_much_gone_at_once_is_closed_only_when_it_is_accepted(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 200, months=6)
    with unpublished():
        Sync(lake_settings).run()
    before = list(endpoint.image_sets)
    months = {row["imageSetId"]: row["DICOMTags"]["DICOMStudyDate"][:6] for row in before}
    march = [row for row in before if months[row["imageSetId"]] == "202503"]
    may = [row for row in before if months[row["imageSetId"]] == "202505"]
    gone = [*march[:20], *may[:2]]  # most of March, little of May
    seen_at = endpoint.now + timedelta(minutes=30)
    endpoint.now = seen_at
    with unpublished():
        Sync(lake_settings).reconcile()
    endpoint.image_sets = [row for row in before if row not in gone]
    endpoint.now += timedelta(hours=1)
    with pytest.raises(
        DeletionsRefused, match=r"^20 image sets are gone from 2025-03 of data store "
    ):
        Sync(lake_settings).reconcile()
    assert len(read_table(lake_settings.root, "image_sets")) == 198, "what is little was closed"

    endpoint.now += timedelta(hours=1)
    outcome = Sync(lake_settings).reconcile(accept_deletions=True)
    assert outcome.applied.changes == {"deleted": 20}
    assert_equal_to_truth(lake_settings.root, endpoint)
    history = read_table(lake_settings.root, "history")
    deleted = history[history["ended_by"] == "deleted"]
    # The sweep that missed them and was refused did not see them.
    assert set(deleted["last_seen_at"]) == {seen_at.replace(microsecond=0)}
    assert (deleted["valid_to"] > deleted["last_seen_at"]).all()
    assert history.loc[history["ended_by"].isna(), "last_seen_at"].isna().all()


def test_a_data_store_with_too_much_gone_holds_up_no_other(tmp_path: Path) -> None:
    month, now = date(2026, 1, 1), "2026-03-01T12:00:00Z"
    with emulated(first_month=month, datastores=3, now=now, clock="stopped") as emulator:
        first, second, third = emulator.datastores
        sync = Sync(
            Settings((first, second, third), f"{tmp_path}/lake", tps=1000, privacy="limited")
        )
        ids = {store: _import(emulator, store) for store in sync.settings.datastores}
        with unpublished():
            sync.run()
        for store, count in ((first, 30), (second, 2), (third, 20)):
            for image_set_id in ids[store][:count]:
                emulator.admin.delete(image_set_id, datastore_id=store)
        emulator.admin.advance(days=1)

        gone = f"^50 image sets are gone from 2026-01 of data store {first}; 2026-01 of .* {third}:"
        with pytest.raises(DeletionsRefused, match=gone):
            sync.reconcile()
        held = read_table(sync.settings.root, "image_sets").groupby("datastore_id").size()
        assert dict(held) == {first: 40, second: 38, third: 40}

        emulator.admin.advance(days=1)
        only_the_first = Sync(replace(sync.settings, datastores=(first,)))
        accepted = only_the_first.reconcile(accept_deletions=True)
        assert accepted.applied.changes == {"deleted": 30}
        with pytest.raises(DeletionsRefused, match=rf"^20 .* from 2026-01 of data store {third}:"):
            sync.reconcile()


def _import(emulator: Emulator, datastore_id: str) -> list[str]:
    """Import forty image sets of one study month."""
    summaries = [{"DICOMTags": {"DICOMStudyDate": "20260115"}} for _ in range(40)]
    ids = emulator.admin.import_summaries(summaries, datastore_id=datastore_id)
    emulator.admin.advance(days=1)
    return ids


def test_a_sweep_by_creation_finds_what_moved_between_months(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 60)
    with unpublished():
        Sync(lake_settings).run()
    endpoint.now += timedelta(hours=1)
    # Nothing says when it changed, so no tick finds it; and it left its month.
    endpoint.image_sets[8]["DICOMTags"]["DICOMStudyDate"] = "20240115"
    sync = Sync(lake_settings)
    ((store, partition, _),) = sync.sweep_undated([DATASTORE])
    assert (store, partition) == (DATASTORE, "undated")
    assert sync.apply().changes == {"updated": 1}
    sync.publish()
    found = read_table(lake_settings.root, "image_sets").set_index("image_set_id")
    assert str(found.loc[f"{8:032x}", "StudyDate"].date()) == "2024-01-15"


def test_where_get_is_denied_no_search_shows_that_an_image_set_is_gone(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    """Rights can be narrowed by study and series: then a search does not find what is there."""
    fill(endpoint, 30)
    with unpublished():
        Sync(lake_settings).run()
    endpoint.denied = {"GetImageSet"}
    hidden = endpoint.image_sets.pop(7)
    endpoint.now += timedelta(hours=1)
    # The first sweep of its month has news, the second one has none.
    change(endpoint, 8, DICOMStudyDate=hidden["DICOMTags"]["DICOMStudyDate"])
    with unpublished():
        kept = Sync(lake_settings).reconcile()
    assert kept.unconfirmed == 1
    assert "medical-imaging:GetImageSet" in describe_unconfirmed(kept.unconfirmed)
    assert "deleted" not in kept.applied.changes
    root = Root(lake_settings.root)
    assert checks.check_deletions(root).counts["left_open"] == 1
    endpoint.now += timedelta(hours=1)
    with unpublished():
        assert Sync(lake_settings).reconcile().unconfirmed == 1
    assert checks.check_deletions(root).counts["left_open"] == 1

    endpoint.image_sets.insert(7, hidden)  # the right is given
    endpoint.now += timedelta(hours=1)
    with unpublished():
        assert Sync(lake_settings).reconcile().unconfirmed == 0
    assert checks.check_deletions(root).counts["left_open"] == 0
    assert_history_equals_truth(lake_settings.root, endpoint)

    del endpoint.image_sets[7]
    endpoint.now += timedelta(hours=1)
    with pytest.raises(SettingError, match="yes or no"):
        Settings.from_env({"COHORTLAKE_TRUST_SEARCH": "1"})
    by_setting = Settings.from_env({"COHORTLAKE_TRUST_SEARCH": "yes"})
    trusting = replace(lake_settings, trust_search=by_setting.trust_search)
    outcome = Sync(trusting).reconcile()
    assert (outcome.applied.changes, outcome.unconfirmed) == ({"deleted": 1}, 0)
    assert_equal_to_truth(lake_settings.root, endpoint)


def test_rebuild_gives_the_same_rows(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 60)
    work = Sync(lake_settings)
    with unpublished():
        work.run()
        endpoint.now += timedelta(days=1)
        change(endpoint, 3, DICOMPatientSex="M")
        del endpoint.image_sets[9]
        work.run()
    work.reconcile()
    before = {table: _sorted(read_table(lake_settings.root, table)) for table in TABLES}
    work.rebuild()
    for table in TABLES:
        pd.testing.assert_frame_equal(_sorted(read_table(lake_settings.root, table)), before[table])


def test_a_version_history_of_an_older_format_asks_for_a_rebuild(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 20)
    with unpublished():
        Sync(lake_settings).run()
    memory = DeltaTable(f"{lake_settings.root}/image_sets")
    older = memory.to_pyarrow_table().drop_columns(["image_set_key", "prior_state_key"])
    write_deltalake(memory, older, mode="overwrite", schema_mode="overwrite")
    endpoint.now += timedelta(hours=1)
    change(endpoint, 5, DICOMPatientSex="F")
    for attempt in (Sync.run, Sync.publish):
        with pytest.raises(OldFormat, match=r"image_sets, .* run `cohortlake rebuild`"):
            attempt(Sync(lake_settings))

    assert Sync(lake_settings).rebuild().changes == {"created": 20}
    assert Sync(lake_settings).run().applied.changes == {"updated": 1}
    assert_equal_to_truth(lake_settings.root, endpoint)


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [c for c in ("image_set_id", "version", "StudyInstanceUID", "patient_key") if c in frame]
    return frame.sort_values(keys, ignore_index=True)


def test_plain_readers_read_each_row_once(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 90)
    Sync(lake_settings).run()
    endpoint.now += timedelta(days=1)
    change(endpoint, 3)
    Sync(lake_settings).run()
    for table in (name for name in TABLES if "_headers" not in name):
        folder = f"{lake_settings.root}/published/{table}"
        rows = len(read_table(lake_settings.root, table))
        assert rows
        query = f"SELECT count(*) FROM '{folder}/**/*.parquet'"
        assert duckdb.sql(query).fetchall() == [(rows,)]
        assert len(pd.read_parquet(folder)) == rows


def test_safe_publishes_no_identifier(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 12)
    Sync(replace(lake_settings, privacy="safe")).run()
    for path in Path(lake_settings.root, "published").rglob("*.parquet"):
        content = duckdb.sql(f"FROM '{path}'").to_arrow_table().to_pydict()
        assert "Canary" not in json.dumps(content, default=str)
        assert not {"PatientID", "PatientName", "PatientBirthDate"} & set(content)
    frame = read_table(lake_settings.root, "image_sets")
    assert frame["patient_key"].nunique() == 4
    assert set(frame["age_at_study_years"].dropna()) == {75}


def test_another_policy_publishes_everything_again(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 12)
    Sync(lake_settings).run()
    keys = set(read_table(lake_settings.root, "patients")["patient_key"])
    identified = Settings(**(lake_settings.__dict__ | {"privacy": "identified"}))
    Sync(identified).publish()
    frame = read_table(lake_settings.root, "patients")
    assert set(frame["PatientName"]) == {"Canary^Bird"}
    assert set(frame["patient_key"]) == keys


def test_what_a_killed_run_published_under_a_wider_policy_goes(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(endpoint, 60)
    Sync(lake_settings).run()
    identified = Settings(**(lake_settings.__dict__ | {"privacy": "identified"}))
    keep, kept = Draft.keep, []

    def dies_at_the_tenth(draft: Draft) -> None:
        kept.append(draft)
        if len(kept) == 10:
            raise KeyboardInterrupt
        keep(draft)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Draft, "keep", dies_at_the_tenth)
        Sync(identified).publish()
    assert _published_names(lake_settings.root) > 0
    Sync(lake_settings).publish()
    assert _published_names(lake_settings.root) == 0
    assert Sync(lake_settings).publish().written == ()  # type: ignore[union-attr]


def _published_names(root: str) -> int:
    files = Path(root, "published").rglob("*.parquet")
    return sum("PatientName" in pq.read_schema(path).names for path in files)


def test_the_restricted_zone_is_for_its_owner(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 3)
    Sync(lake_settings).run()
    root = Path(lake_settings.root)
    for folder in ("increments", "image_sets", "coverage", "keys"):
        assert (root / folder).stat().st_mode & 0o777 == 0o700
    assert (root / "keys/patient-key").stat().st_mode & 0o777 == 0o600


def test_a_root_may_have_any_name(endpoint: Endpoint, tmp_path: Path) -> None:
    fill(endpoint, 6)
    (tmp_path / "the real läke, 100%").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "the real läke, 100%")
    settings = Settings((DATASTORE,), f"{tmp_path}/link/image_sets", tps=1000, privacy="limited")
    Sync(settings).run()
    endpoint.now += timedelta(days=1)
    change(endpoint, 3)
    assert Sync(settings).run().applied.changes == {"updated": 1}
    assert_equal_to_truth(settings.root, endpoint)


def test_a_lost_key_is_an_error_and_no_new_key(endpoint: Endpoint, lake_settings: Settings) -> None:
    fill(endpoint, 3)
    Sync(lake_settings).run()
    Path(lake_settings.root, "keys/patient-key").unlink()
    endpoint.now += timedelta(days=1)
    change(endpoint, 1)
    with pytest.raises(MissingKey, match="from a backup"):
        Sync(lake_settings).run()
    assert not Path(lake_settings.root, "keys/patient-key").exists()


def test_a_run_that_fails_keeps_the_rows_it_wrote(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(endpoint, 400)
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    search, answered = endpoint.search, itertools.count()

    def failing(*request: Any) -> dict[str, Any]:
        return search(*request) if next(answered) < 5 else {"no": "page"}

    endpoint.search = failing  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable, match="broken pages"):
        Sync(lake_settings).run()
    kept = read_table(lake_settings.root, "image_sets")
    assert 0 < len(kept) < 300
    temporary = [p for p in Path(lake_settings.root).rglob("*") if p.name.endswith(".tmp")]
    assert temporary == []

    endpoint.search = search  # type: ignore[method-assign]
    with unpublished():
        outcome = Sync(lake_settings).run()
    assert_history_equals_truth(lake_settings.root, endpoint)
    again = outcome.rows - (400 - len(kept))
    assert again <= lake_settings.workers, "of each chain only its last row is read again"


@pytest.mark.parametrize("created_at", [None, datetime(2026, 2, 1, tzinfo=UTC).timestamp()])
def test_rows_older_than_the_data_store_says_it_is_are_found(
    endpoint: Endpoint, lake_settings: Settings, created_at: float | None
) -> None:
    fill(endpoint, 10)
    endpoint.created_at = created_at  # type: ignore[assignment]
    with unpublished():
        Sync(lake_settings).run()
    assert_history_equals_truth(lake_settings.root, endpoint)


def test_errors_say_the_fix(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Settings(**(lake_settings.__dict__ | {"datastores": ("f" * 32,)}))
    with pytest.raises(NoSuchDatastore, match="COHORTLAKE_DATASTORES"):
        Sync(other).run()
    with pytest.raises(SettingError, match="COHORTLAKE_DATASTORES is not set"):
        Sync(Settings(root=lake_settings.root)).run()
    endpoint.status = "DELETING"
    with pytest.raises(DatastoreNotActive, match="is DELETING"):
        Sync(lake_settings).run()
    endpoint.denied = {"GetDatastore"}
    with pytest.raises(AccessDenied, match="medical-imaging:GetDatastore"):
        Sync(lake_settings).run()
    (tmp_path / "file").write_text("")
    with pytest.raises(RootNotUsable, match="COHORTLAKE_ROOT"):
        Sync(Settings(root=f"{tmp_path}/file/lake")).publish()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NoCredentials, match="AWS_PROFILE"):
        Sync(lake_settings).run()
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(SettingError, match="AWS_REGION"):
        Sync(lake_settings).run()


def test_reading_says_what_there_is(endpoint: Endpoint, lake_settings: Settings) -> None:
    with pytest.raises(NotALake, match="cohortlake sync"):
        read_table(lake_settings.root, "series")
    fill(endpoint, 3)
    Sync(lake_settings).run()
    with pytest.raises(UnknownTable, match="did you mean 'studies'"):
        read_table(lake_settings.root, "study")
    with pytest.raises(UnknownColumn, match="did you mean 'BodyPartExamined'"):
        read_table(lake_settings.root, "series", ["BodyPartExamned"])
    assert list(read_table(lake_settings.root, "series", ["Modality"]).columns) == ["Modality"]
