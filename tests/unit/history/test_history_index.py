"""The index of the history gives the rows that a scan of the history gives, whatever happened."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from changing import CHANGE, GONE, Hospital
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from looks import DATASTORE

from cohortlake import Settings
from cohortlake.admin import erase_patient
from cohortlake.history import coverage, history_index, image_sets, maintenance
from cohortlake.history.history_index import HistoryIndex
from cohortlake.history.index_sections import FOLDER, PATIENTS, SCHEMAS, SECTIONS
from cohortlake.increments import files
from cohortlake.privacy.erasures import Patient
from cohortlake.publish.marts import PATIENT_SOURCE
from cohortlake.storage import engine, sorted_file
from cohortlake.storage.root import Root
from cohortlake.storage.sorted_file import SortedFile


@pytest.fixture(scope="module", autouse=True)
def never_scanned() -> Iterator[None]:
    """Let the index be read, however small it is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history_index, "_SCAN_FACTOR", 0)
        yield


def change(number: int, **tags: Any) -> dict[str, Any]:
    return {
        "number": number,
        "isPrimary": True,
        "DICOMPatientId": f"P{number % 2}",
        "DICOMStudyInstanceUID": f"1.{number}",
        "DICOMSeriesInstanceUID": f"2.{number}",
        "DICOMStudyDate": f"2024{number % 12 + 1:02d}05",
        **tags,
    }


def step(hospital: Hospital, drawn: tuple[list[dict[str, Any]], list[int]]) -> None:
    hospital.step(*drawn)


def late(hospital: Hospital, drawn: tuple[list[dict[str, Any]], list[int]]) -> None:
    """Apply what was seen before what the history holds."""
    now = hospital.at
    hospital.at -= timedelta(hours=2, minutes=30)
    hospital.step(*drawn)
    hospital.at = now


def maintain(hospital: Hospital, _: object) -> None:
    coverage.record(hospital.root, files.paths(hospital.root))
    maintenance.maintain(hospital.root, timedelta(days=30))


def rebuild(hospital: Hospital, _: object) -> None:
    image_sets.rebuild(hospital.root)


def forget(hospital: Hospital, _: object) -> None:
    """Delete the older versions of the history, with their log."""
    if image_sets.version(hospital.root) is not None:
        maintenance.forget_past(hospital.root, image_sets.TABLE)


def erase(hospital: Hospital, _: object) -> None:
    patient = Patient(DATASTORE, "P1")
    settings = Settings(root=hospital.root.uri, datastores=(DATASTORE,))
    try:
        erase_patient.erase(hospital.root, settings, patient, lambda: None)
    except erase_patient.NoSuchPatient:
        return
    assert hospital.root.files(FOLDER, "") == []


def bring_up_to_date(hospital: Hospital, _: object) -> None:
    version = image_sets.version(hospital.root)
    if version is not None:
        HistoryIndex(hospital.root, version).bring_up_to_date()


STEPS = st.tuples(st.lists(CHANGE, max_size=5), st.lists(GONE, max_size=1))
EVENTS = st.sampled_from([step, step, step, late, maintain, rebuild, forget, erase])


def read(root: Root, version: int | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows that the index gives, by section."""
    version = image_sets.version(root) if version is None else version
    assert version is not None
    return read_by(HistoryIndex(root, version))


def read_by(index: HistoryIndex) -> dict[str, list[tuple[Any, ...]]]:
    """Return the same rows, from an index that may be open."""
    rows = {}
    with engine.connection() as con:
        history = image_sets.register(con, index.root, index.version)
        for section, (key, *_) in SECTIONS.items():
            keys = f"SELECT {key} FROM {history.versions}"
            index.read(con, history, section, keys, "found")
            rows[section] = con.sql("FROM found ORDER BY ALL").fetchall()
    return rows


def read_in_order(root: Root) -> dict[str, list[tuple[Any, ...]]]:
    """Return the same rows, read from the first key to the last one."""
    version = image_sets.version(root)
    assert version is not None
    index, rows = HistoryIndex(root, version), {}
    for section in SECTIONS:
        batches = list(index.in_order(section))
        ends = [(batch.column(0)[0].as_py(), batch.column(0)[-1].as_py()) for batch in batches]
        assert all(before < after for (_, before), (after, _) in itertools.pairwise(ends))
        with engine.connection() as con:
            schema = SCHEMAS[section]
            con.register("in_order", pa.Table.from_batches(batches, schema))
            rows[section] = con.sql("FROM in_order ORDER BY ALL").fetchall()
    return rows


def scanned(root: Root, version: int | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Return the same rows from a scan of the history."""
    with engine.connection() as con:
        versions = image_sets.register(con, root, version).versions
        return {
            section: con.sql(
                f"SELECT {', '.join(columns)} FROM {versions} WHERE {columns[0]} IS NOT NULL "
                "ORDER BY ALL"
            ).fetchall()
            for section, columns in SECTIONS.items()
        }


def keys_held(root: Root) -> dict[str, list[int]]:
    """Return the key of each row in the files of the index, by section."""
    opened = [SortedFile(path, partial(root.open, path)) for path in root.files(FOLDER, "")]
    return {
        section: sorted(
            key
            for file in opened
            for rows in file.between(section, None, None)
            for key in rows.column(0).to_pylist()
        )
        for section in SECTIONS
    }


# Image sets move between months and patients, studies lie in several months, image sets go.
@settings(max_examples=examples(60, quick=3), deadline=None)
@given(
    st.lists(st.tuples(EVENTS, STEPS, st.booleans()), min_size=2, max_size=6),
    st.sampled_from([0, 10_000]),
)
def test_the_index_gives_what_a_scan_gives(
    events: list[tuple[Callable[[Hospital, object], None], Any, bool]], merged_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(maintenance, "_FEWEST_SMALL_FILES", 2)
        patched.setattr(history_index, "_MERGED_BYTES", merged_bytes)
        patched.setattr(history_index, "_MOST_FILES", 3)
        patched.setattr(sorted_file, "_BLOCK_BYTES", 300)
        patched.setattr(sorted_file, "_BLOCKS_MERGED", 1)
        root = Root(folder)
        root.prepare()
        hospital = Hospital(root)
        for event, drawn, is_read in events:
            event(hospital, drawn)
            if is_read:
                bring_up_to_date(hospital, None)
        if image_sets.version(root) is not None:
            rows = read(root)
            assert rows == scanned(root) == read_in_order(root)
            keys = {section: sorted(key for key, *_ in rows[section]) for section in SECTIONS}
            assert keys_held(root) == keys


def test_the_index_holds_all_columns_that_the_patients_need() -> None:
    assert {*PATIENT_SOURCE, "study_hash"} <= {*SECTIONS[PATIENTS]}


@pytest.fixture(scope="module")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """A lake with an index of two files: of ten image sets, and of one that came later."""
    root = Root(str(tmp_path_factory.mktemp("lake")))
    root.prepare()
    hospital = Hospital(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history_index, "_FACTOR", 0.5)
        for changes in ([change(number) for number in range(10)], [change(11)]):
            hospital.step(changes, [])
            bring_up_to_date(hospital, None)
    assert len(root.files(FOLDER, "")) == 2
    return hospital


@pytest.fixture
def hospital(two_files: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    monkeypatch.setattr(history_index, "_FACTOR", 0.5)
    return two_files.copy_to(str(tmp_path / "lake"))


def remove(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter_rows(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, cut_off, empty, alter_rows])
@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_or_damaged_file_is_written_again(
    hospital: Hospital, damage: Callable[[Path], None], number: int
) -> None:
    root = hospital.root
    before = root.files(FOLDER, "")
    (intact,) = {*before} - {before[number]}
    damage(Path(root.path(before[number])))
    hospital.step([change(12)], [])
    assert read(root) == scanned(root)
    # What was after the first version is not known without the file of the first version.
    assert (intact in root.files(FOLDER, "")) == (number == 0)
    assert before[number] not in root.files(FOLDER, "")


def test_a_file_that_is_damaged_while_it_is_read_in_order_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_file, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(sorted_file, "_BLOCKS_MERGED", 1)
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([change(number, DICOMPatientId=f"P{number}") for number in range(30)], [])
    version = image_sets.version(root)
    assert version is not None
    index = HistoryIndex(root, version)
    batches = index.in_order(PATIENTS)
    found = [next(batches)]
    (path,) = root.files(FOLDER, "")
    file = Path(root.path(path))
    content = file.read_bytes()
    file.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    found += batches
    keys = [key for batch in found for key in batch.column(0).to_pylist()]
    assert keys == [row[0] for row in scanned(root)[PATIENTS]]
    assert root.files(FOLDER, "") != [path]


def test_a_reader_goes_on_after_another_run_merged_the_files(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, version = hospital.root, image_sets.version(hospital.root)
    assert version is not None
    index = HistoryIndex(root, version)
    index.bring_up_to_date()
    monkeypatch.setattr(history_index, "_FACTOR", 100)
    assert history_index.merge(root) == 2
    assert len(root.files(FOLDER, "")) == 1
    assert read_by(index) == scanned(root)
    assert history_index.merge(root) == 0


def test_maintenance_that_merges_during_a_publication_costs_no_file(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, write = hospital.root, history_index._write

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(history_index, "_write", write)
        monkeypatch.setattr(history_index, "_FACTOR", 100)
        assert history_index.merge(root) == 2
        monkeypatch.setattr(history_index, "_FACTOR", 0)
        (merged,) = root.files(FOLDER, "")
        files.append(merged)
        return write(*args)

    files: list[str] = []
    monkeypatch.setattr(history_index, "_write", overtaken)
    hospital.step([change(12)], [])
    assert read(root) == scanned(root)
    assert len(root.files(FOLDER, "")) == 2
    assert {*files} < {*root.files(FOLDER, "")}


def test_two_publishers_at_two_versions_read_each_their_own_rows(hospital: Hospital) -> None:
    root, earlier = hospital.root, image_sets.version(hospital.root)
    assert earlier is not None
    hospital.step([change(0, DICOMPatientId="P7"), change(20)], [])
    later = earlier + 1
    former, now = HistoryIndex(root, earlier), HistoryIndex(root, later)
    for index, version in [(now, later), (former, earlier), (now, later), (former, earlier)]:
        assert read_by(index) == scanned(root, version)
    assert read(root, earlier) == scanned(root, earlier)
    assert read(root, later) == scanned(root, later)


def test_the_index_of_another_history_with_the_same_versions_is_not_used(
    hospital: Hospital, tmp_path: Path
) -> None:
    other = hospital.copy_to(str(tmp_path / "other"))
    for each, number in ((hospital, 12), (other, 13)):
        each.step([change(number)], [])
        bring_up_to_date(each, None)
    for path in other.root.files(FOLDER, ""):
        other.root.delete(path)
    for path in hospital.root.files(FOLDER, ""):
        other.root.write(path, hospital.root.read(path))
    assert image_sets.version(hospital.root) == image_sets.version(other.root)
    assert read(other.root) == scanned(other.root) != scanned(hospital.root)


@pytest.mark.parametrize("is_scanned", [True, False])
def test_rows_of_many_keys_come_from_a_scan(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, *, is_scanned: bool
) -> None:
    monkeypatch.setattr(history_index, "_SCAN_FACTOR", 2 if is_scanned else 0.5)
    monkeypatch.setattr(SortedFile, "find", lambda *_: [])
    assert (read(hospital.root) == scanned(hospital.root)) is is_scanned


def test_where_nothing_is_new_nothing_is_written(hospital: Hospital) -> None:
    before = hospital.root.files(FOLDER, "")
    bring_up_to_date(hospital, None)
    assert hospital.root.files(FOLDER, "") == before


def test_after_many_publications_there_are_few_files(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    for number in range(9):
        hospital.step([change(number)], [])
        bring_up_to_date(hospital, None)
    assert len(root.files(FOLDER, "")) <= 3
    assert read(root) == scanned(root)


@pytest.mark.parametrize(
    ("sizes", "most_bytes", "count"),
    [
        ([100], None, 1),
        ([1000, 100, 30], 10_000, 2),
        ([500, 100, 30], 10_000, 3),
        ([500, 100, 30], 600, 2),
        ([500] * 14, 600, 3),
        ([500, 100, 30], None, 3),
        ([10_000, 100], None, 1),
    ],
)
def test_the_last_files_are_merged_with_those_that_are_not_much_larger(
    sizes: list[int], most_bytes: int | None, count: int
) -> None:
    assert history_index._count_to_merge(sizes, most_bytes) == count
