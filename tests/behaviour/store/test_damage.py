"""Damaged files, panics and closed lakes: each error says the file and what to do, and no value."""

from __future__ import annotations

import gc
import os
import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from changing import Hospital
from emulated import emulated
from truth import published, truth
from typer.testing import CliRunner
from unpublished import unpublished

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.cli.app import app
from cohortlake.errors import DamagedFile, LakeClosed, RootUnreachable, SettingError
from cohortlake.history import coverage, image_sets
from cohortlake.history.current_states import CurrentStates
from cohortlake.increments import files
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.publish.publication import snapshots
from cohortlake.publish.publication.marker import MARKER_PATH, read_marker
from cohortlake.storage import damage, delta, delta_log, engine
from cohortlake.storage.root import Root
from emulator import Emulator

LIMITED = built_in("limited")


def damaged(root: Root, path: str, how: str = "cut") -> Path:
    """Damage a file as a disk or a loss of power does."""
    file = Path(root.path(path))
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(
        {"empty": b"", "cut": content[:half], "zeros": bytes(len(content)), "text": b"garbled"}[how]
    )
    return file


def change(number: int, **tags: str) -> dict[str, Any]:
    day = f"2024010{number + 1}"
    ids = {"DICOMStudyInstanceUID": f"1.{number}", "DICOMPatientId": f"P{number}"}
    return {"number": number, "isPrimary": True, "DICOMStudyDate": day, **ids, **tags}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """A hospital of three image sets and its lake, of which each test gets a copy."""
    lake = str(tmp_path_factory.mktemp("three") / "lake")
    Root(lake).prepare()
    root = Root(lake)  # which is no run at work
    hospital = Hospital(root)
    hospital.step([change(number) for number in range(3)], [])
    coverage.record(root, files.paths(root))
    publisher.publish(root, LIMITED)
    return hospital


@pytest.fixture
def hospital(three: Hospital, tmp_path: Path) -> Hospital:
    shutil.copytree(three.root.uri, tmp_path / "lake")
    own = Hospital(Root(str(tmp_path / "lake")))
    own.versions, own.at = dict(three.versions), three.at
    return own


@pytest.mark.parametrize("how", ["empty", "cut", "zeros", "text"])
def test_a_damaged_increment_is_named_wherever_it_is_read(hospital: Hospital, how: str) -> None:
    root = hospital.root
    path, *_ = files.paths(root)
    damaged(root, path, how)
    says = f"^{re.escape(path)} is damaged, cut off or gone; .*cohortlake set-aside {path}"
    for read in (
        lambda: image_sets.apply(root, [path]),
        lambda: image_sets.rebuild(root),
        lambda: files.read_record(root, path),
        lambda: files.count_rows(root, path, lambda rows: rows["image_set_id"]),
    ):
        with pytest.raises(DamagedFile, match=says) as told:
            read()
        assert told.value.path == path
        assert told.value.__suppress_context__
        assert str(told.value.__context__) == ""
    Path(root.path(path)).unlink()
    with pytest.raises(DamagedFile, match=says):
        image_sets.apply(root, [path])


def test_a_damaged_body_below_a_whole_footer_is_named(hospital: Hospital) -> None:
    root = hospital.root
    path, *_ = files.paths(root)
    file = Path(root.path(path))
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 3] = bytes(len(content) // 3 - 4)
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=re.escape(path)):
        image_sets.rebuild(root)


@pytest.mark.parametrize("how", ["empty", "cut", "text"])
def test_a_damaged_published_file_is_named_and_written_again(hospital: Hospital, how: str) -> None:
    root = hospital.root
    path = "published/studies/study_month=2024-01/studies.parquet"
    damaged(root, path, how)
    for read in (
        lambda: cohortlake.read_table(root.uri, "studies"),
        lambda: cohortlake.open(root.uri).sql("FROM studies").to_pandas(),
        lambda: cohortlake.open(root.uri).describe("studies"),
    ):
        with pytest.raises(DamagedFile, match=rf"^{path} is damaged.*publish --verify") as told:
            read()
        assert told.value.__suppress_context__
    publisher.publish(root, LIMITED, verify=True)
    assert len(cohortlake.read_table(root.uri, "studies")) == 3


def test_a_missing_published_file_is_named_and_written_again(hospital: Hospital) -> None:
    root = hospital.root
    path = "published/studies/study_month=2024-01/studies.parquet"
    root.delete(path)
    with pytest.raises(DamagedFile, match=path):
        cohortlake.open(root.uri)
    publisher.publish(root, LIMITED)
    assert len(cohortlake.read_table(root.uri, "studies")) == 3


def test_a_query_that_fails_on_a_row_reads_no_file_again(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "first_damaged", lambda *_: 1 / 0)
    with cohortlake.open(hospital.root.uri) as lake:
        for query in (
            "SELECT patient_key::INT FROM studies",
            "SELECT error(patient_key) FROM studies",
        ):
            with pytest.raises(cohortlake.errors.BadQuery, match="fails on some row"):
                lake.sql(query).to_pandas()


def test_a_damaged_marker_and_a_damaged_record_are_named(hospital: Hospital) -> None:
    root = hospital.root
    cohortlake.open(root.uri).tag("first")
    for path, read in {
        "published/_snapshots.jsonl": lambda: snapshots.table(root),
        "published/_tags/first.json": lambda: snapshots.tagged(root, "first"),
        MARKER_PATH: lambda: cohortlake.open(root.uri),
    }.items():
        for how in ("cut", "text", "zeros"):
            damaged(root, path, how)
            with pytest.raises(DamagedFile, match=f"^{path} is damaged"):
                read()
        root.delete(path)
    publisher.publish(root, LIMITED)
    assert len(cohortlake.read_table(root.uri, "studies")) == 3


def test_damaged_members_and_a_damaged_manifest_are_named(hospital: Hospital) -> None:
    with cohortlake.open(hospital.root.uri) as lake:
        frozen = lake.cohort("everybody").freeze()
        for path in (frozen.members, frozen.path):
            damaged(hospital.root, path)
            with pytest.raises(DamagedFile, match=f"^{path} is damaged.*from a backup"):
                lake.verify("everybody")


@pytest.mark.parametrize(
    ("table", "how"),
    [
        ("image_sets", "cut"),
        ("coverage", "zeros"),
        ("image_sets", "text"),
        pytest.param("coverage", "cut", marks=pytest.mark.chaos),
        pytest.param("image_sets", "zeros", marks=pytest.mark.chaos),
        pytest.param("coverage", "text", marks=pytest.mark.chaos),
    ],
)
def test_a_damaged_log_is_named_and_a_rebuild_repairs_it(
    hospital: Hospital, table: str, how: str
) -> None:
    root = hospital.root
    path = f"{table}/_delta_log/{1:020}.json"
    damaged(root, path, how)
    sync = Sync(Settings(("d" * 32,), root.uri, privacy="limited"))
    with pytest.raises(DamagedFile, match=rf"^{path} is damaged.*`cohortlake rebuild`"):
        sync.apply()
    assert sync.rebuild().total_rows == 3
    assert len(cohortlake.read_table(root.uri, "studies")) == 3
    assert sync.apply().total_rows == 3
    hospital.step([change(4)], [])
    sync.publish()
    assert len(cohortlake.read_table(root.uri, "studies")) == 4


def current_states(root: Root) -> pa.Table:
    current = CurrentStates(root)
    return current.read("state_key", "true", [f.path for f in current.files("updated_at")])


def test_a_damaged_file_of_a_table_is_named_and_a_rebuild_repairs_it(hospital: Hospital) -> None:
    root = hospital.root
    sync = Sync(Settings(("d" * 32,), root.uri, privacy="limited"))
    for table in ("image_sets", "coverage"):
        opened = delta.open_table(root, table)
        assert opened is not None
        path = max(delta_log.files(table, opened))
        damaged(root, path, "empty")
        hospital.step([change(0, DICOMPatientSex="F")], []) if table == "coverage" else None
        with pytest.raises(DamagedFile, match=rf"^{re.escape(path)} is damaged.*rebuild"):
            sync.apply() if table == "coverage" else current_states(root)
        sync.rebuild()
        assert len(cohortlake.read_table(root.uri, "studies")) == 3


def test_a_closed_lake_and_one_published_again_say_so(hospital: Hospital) -> None:
    root = hospital.root
    lake = cohortlake.open(root.uri)
    rows = lake.sql("FROM studies")
    lake.close()
    for call in (rows.to_pandas, rows.fetchall, lambda: lake.sql("FROM studies")):
        with pytest.raises(LakeClosed, match="the lake was closed; open it again"):
            call()
    lake = cohortlake.open(root.uri)
    publisher.publish(root, built_in("safe"))
    with pytest.raises(LakeClosed, match=r"published again after it was opened.*open it again"):
        lake.sql("FROM studies").to_pandas()
    assert len(cohortlake.open(root.uri).sql("FROM studies").to_pandas()) == 3


class PanicException(BaseException):
    """As pyo3 raises it."""


def test_a_panic_is_an_error_like_others_and_its_text_is_not_shown(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics(*_: object, **__: object) -> None:
        raise PanicException("canary")

    root = hospital.root
    with monkeypatch.context() as patched:
        patched.setattr(delta, "DeltaTable", panics)
        with pytest.raises(delta.DeltaError, match="deltalake panicked"):
            delta.open_table(root, "image_sets")
        with pytest.raises(delta.DeltaError, match="deltalake panicked"), delta.explained(root):
            panics()
    monkeypatch.setattr(Sync, "publish", panics)
    done = CliRunner().invoke(app, ["publish", "--root", root.uri])
    assert done.exit_code == 70
    assert "PanicException" in done.output
    assert "canary" not in done.output


S3_SAYS = (
    "When reading information for key 'l/x' in bucket 'b': AWS Error NETWORK_CONNECTION during "
    "HeadObject operation: curlCode: 7, Couldn't connect to server"
)


def test_an_error_of_s3_within_a_query_is_explained() -> None:
    reads = [(Root("s3://bucket/lake"), ["published/studies/studies.parquet"])]
    for error in (OSError(S3_SAYS), duckdb.InvalidInputException(S3_SAYS), duckdb.Error(S3_SAYS)):
        with (
            pytest.raises(RootUnreachable, match="gave no answer to HeadObject; run it again"),
            damage.explained(lambda: reads),
        ):
            raise error


def test_a_file_and_its_name_are_on_the_disk_before_what_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(opened: int) -> None:
        path = Path(f"/proc/self/fd/{opened}").readlink()
        calls.append(("sync", str(path).removeprefix(f"{tmp_path}")))
        fsync(opened)

    def noted_link(source: str, target: str) -> None:
        calls.append(("name", target.removeprefix(f"{tmp_path}")))
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    lake = Root(str(tmp_path))
    lake.make_folder("keys")
    calls.clear()
    lake.create("keys/a", b"content")
    (_, draft), *rest = calls
    assert draft.startswith("/keys/.a.")
    assert rest == [("name", "/keys/a"), ("sync", "/keys")]

    calls.clear()
    draft_of_b = lake.draft("keys/new/b")
    draft_of_b.stream.write(b"content")
    there = []
    monkeypatch.setattr(
        os, "fsync", lambda opened: (noted_fsync(opened), there.append(lake.exists("keys/new/b")))
    )
    draft_of_b.keep()
    assert [path for _, path in calls][:1] == ["/keys"], "the name of the new folder"
    assert [path for _, path in calls][-1] == "/keys/new"
    assert there == [False, True]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    month, now = date(2026, 5, 1), "2026-06-01T12:00:00Z"
    with emulated(first_month=month, synthetic=10, seed=7, now=now, clock="stopped") as emulator:
        yield emulator


def test_the_window_of_an_increment_that_was_set_aside_is_searched_again(
    emulator: Emulator, tmp_path: Path
) -> None:
    settings = Settings(emulator.datastores, str(tmp_path / "lake"), tps=1000, privacy="limited")
    sync = Sync(settings)
    with unpublished():
        sync.run()
        emulator.admin.delete(min(truth(emulator)))
        emulator.admin.advance(seconds=3600)
        sync.reconcile()
    root = Root(settings.root)
    for axis in ("updated_at", "study_date", "absence"):
        path = max(
            (p for p in files.paths(root) if files.axis_of(p) == axis),
            key=lambda path: files.read_record(root, path).kept_rows,
        )
        record = files.read_record(root, path)
        with pytest.raises(SettingError, match="can be read, so it is not set aside"):
            sync.set_aside(path)
        damaged(root, path)
        with pytest.raises(DamagedFile, match=f"set-aside {path}"):
            sync.rebuild()
        moved = sync.set_aside(path)
        assert root.exists(moved)
        assert path not in coverage.read(root)["increment"].to_pylist()
        if axis == "updated_at":
            due = sync.due(sync.datastore(emulator.datastores[0]))
            windows = [window for parts in due.values() for window in parts]
            assert any(window.start <= record.start < window.end for window in windows)
        assert sync.set_aside(path) == moved, "it may be done again"
        with unpublished():
            sync.run()
        sync.reconcile()
        assert published(settings.root) == truth(emulator)
    before = read_marker(root)
    sync.rebuild()
    after = read_marker(root)
    assert before is not None
    assert after is not None
    assert {t: after.rows(t) for t in after.columns} == {t: before.rows(t) for t in before.columns}
    assert published(settings.root) == truth(emulator)


def test_the_command_sets_an_increment_aside_and_refuses_any_other_file(
    hospital: Hospital,
) -> None:
    root = hospital.root
    known = set(files.paths(root))
    hospital.step([change(4)], [])
    path = max(set(files.paths(root)) - known, key=lambda p: Path(root.path(p)).stat().st_size)
    damaged(root, path)
    for given, code in ((path, 0), (path, 0), (min(known), 2), ("increments/x.parquet", 2)):
        done = CliRunner().invoke(app, ["set-aside", given, "--root", root.uri])
        assert done.exit_code == code, done.output
    assert files.paths_set_aside(root, "d" * 32) == [f"{path}.damaged"]
    assert path not in files.paths(root)
    with engine.connection() as con:
        image_sets.register(con, root)
        assert engine.count(con, "SELECT count(*) FROM current") == 3, "or no search would keep it"
    del done  # it holds the frames of the command, and they the lake
    gc.collect()
    Sync(Settings(("d" * 32,), root.uri, privacy="limited")).erase("P0", "d" * 32)
    assert files.paths_set_aside(root, "d" * 32) == [], "they may hold the patient"
