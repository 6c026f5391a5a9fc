"""Readers of `published/` beside a publisher that adds, replaces, empties and removes files."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from changing import Hospital

import cohortlake
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.publish.publication.marker import MARKER_PATH, read_marker
from cohortlake.storage.files import Files
from cohortlake.storage.root import Root

pytestmark = pytest.mark.slow

LIMITED = built_in("limited")
MONTHS = ("20240105", "20240207", "20240311", "20240412")


def change(number: int, day: str) -> dict[str, Any]:
    return {
        "number": number,
        "isPrimary": True,
        "DICOMPatientId": f"P{number}",
        "DICOMStudyInstanceUID": f"1.{number}",
        "DICOMSeriesInstanceUID": f"2.{number}",
        "DICOMStudyDate": day,
    }


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """A hospital whose lake is published; each test works on a copy."""
    root = Root(str(tmp_path_factory.mktemp("read") / "lake"))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([change(number, day) for number, day in enumerate(MONTHS[:3])], [])
    publisher.publish(root, LIMITED)
    return hospital


@pytest.fixture
def hospital(pristine: Hospital, tmp_path: Path) -> Hospital:
    return pristine.copy_to(str(tmp_path / "lake"))


def test_rows_and_relations_outlive_the_lake_that_gave_them(hospital: Hospital) -> None:
    uri = hospital.root.uri
    assert len(cohortlake.open(uri).sql("FROM studies").to_pandas()) == 3
    relation = cohortlake.open(uri).sql("FROM studies").relation.filter("n_series = 1")
    gc.collect()
    assert len(relation.order("StudyDate").fetchall()) == 3


def test_the_folder_for_what_spills_goes_with_the_last_that_refers_to_it(
    hospital: Hospital,
) -> None:
    lake = cohortlake.open(hospital.root.uri)
    ((folder,),) = lake.sql("SELECT current_setting('temp_directory')").fetchall()
    rows = lake.sql("FROM studies")
    del lake
    gc.collect()
    assert Path(folder).is_dir()
    assert rows.columns
    del rows
    gc.collect()
    assert not Path(folder).exists()
    with cohortlake.open(hospital.root.uri) as lake:
        ((folder,),) = lake.sql("SELECT current_setting('temp_directory')").fetchall()
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


@contextmanager
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Give what is written and deleted in published/, in its order."""
    done: list[tuple[str, str]] = []
    with monkeypatch.context() as patched:
        for name in ("writing", "delete"):
            method: Callable[..., Any] = getattr(Files, name)

            def note(
                self: Files,
                path: str,
                name: str = name,
                method: Callable[..., Any] = method,
            ) -> Any:
                done.append((name, path))
                return method(self, path)

            patched.setattr(Files, name, note)
        yield done


def test_new_files_come_first_then_the_marker_then_removals(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_marker(hospital.root)
    assert before is not None
    with noted(monkeypatch) as done:
        publisher.publish(hospital.root, built_in("safe"))
    after = read_marker(hospital.root)
    assert after is not None
    at = done.index(("writing", MARKER_PATH))
    removed = set(before.files) - set(after.files)
    assert {path for name, path in done[:at] if path in after.files} == set(after.files)
    assert {path for name, path in done[at:] if name == "delete"} >= removed
    assert not {path for name, path in done[:at] if name == "delete"} & set(before.files)
    assert {*hospital.root.files("published", ".parquet")} == set(after.files)


def test_what_a_run_that_died_did_not_remove_the_next_one_does(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = built_in("safe")
    with monkeypatch.context() as patched:
        patched.setattr(publisher, "_remove", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publisher.publish(hospital.root, safe)
    marker = read_marker(hospital.root)
    assert marker is not None
    assert {*hospital.root.files("published", ".parquet")} > set(marker.files)
    publisher.publish(hospital.root, safe)
    assert {*hospital.root.files("published", ".parquet")} == set(marker.files)


def test_a_month_without_image_sets_keeps_a_file_as_long_as_the_history_knows_it(
    hospital: Hospital,
) -> None:
    path = "published/studies/study_month=2024-02/studies.parquet"
    hospital.step([], [1])
    emptied = publisher.publish(hospital.root, LIMITED)
    assert emptied is not None
    assert emptied.files[path].rows == 0
    assert hospital.root.exists(path)
    publisher.request_full_publish(hospital.root)
    whole = publisher.publish(hospital.root, LIMITED)
    assert whole is not None
    assert whole.files[path].rows == 0
    assert by_pandas(hospital.root.uri) == by_glob(hospital.root.uri)


def test_a_reader_that_meets_a_removed_file_reads_the_marker_again(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = read_marker(hospital.root)
    publisher.publish(hospital.root, built_in("safe"))
    new = read_marker(hospital.root)
    for read in (
        lambda: cohortlake.open(hospital.root.uri).sql("FROM studies").to_pandas(),
        lambda: cohortlake.read_table(hospital.root.uri, "studies"),
    ):
        markers = iter((old, new, new))
        with monkeypatch.context() as patched:
            patched.setattr("cohortlake.published.read.read_marker", lambda _, m=markers: next(m))
            assert len(read()) == 3


def by_glob(root: str) -> list[str]:
    files = f"{root}/published/studies/**/*.parquet"
    return [uid for (uid,) in duckdb.sql(f"SELECT StudyInstanceUID FROM '{files}'").fetchall()]


def by_pandas(root: str) -> list[str]:
    return list(pd.read_parquet(f"{root}/published/studies")["StudyInstanceUID"])


def by_opening(root: str) -> list[str]:
    with cohortlake.open(root) as lake:
        return [uid for (uid,) in lake.sql("SELECT StudyInstanceUID FROM studies").fetchall()]


def by_table(root: str) -> list[str]:
    return list(cohortlake.read_table(root, "studies", ["StudyInstanceUID"])["StudyInstanceUID"])


def test_no_reader_fails_or_sees_a_study_twice(hospital: Hospital) -> None:
    uri = hospital.root.uri
    whole, failures, reads = {"1.0", "1.2"}, [], Counter[str]()
    is_over = threading.Event()

    def keep_reading(read: Callable[[str], list[str]]) -> None:
        while not is_over.is_set():
            try:
                found = read(uri)
                assert len(found) == len({*found}), "twice"
                assert {*found} >= whole, "missing"
            except Exception as error:
                failures.append((read.__name__, repr(error)))
            reads[read.__name__] += 1
            is_over.wait(0.2)

    readers = (by_glob, by_pandas, by_opening, by_table)
    threads = [threading.Thread(target=keep_reading, args=(read,)) for read in readers]
    for thread in threads:
        thread.start()
    try:
        # Of two studies that stay one is amended; two come and go, each in its own month.
        for comes in (True, False, True, False):
            others = [change(1, MONTHS[1]), change(3, MONTHS[3])] if comes else []
            hospital.step([change(0, MONTHS[0]), *others], [] if comes else [1, 3])
            publisher.publish(hospital.root, LIMITED)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(reads[read.__name__] for read in readers) > 2
