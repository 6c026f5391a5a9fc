"""Laws of publishing: what changed is published as if all had been, and nothing else is written."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from changing import STEPS, Hospital, image_set_id, published_rows
from deltalake import DeltaTable
from hypothesis import HealthCheck, example, given, settings
from laws import examples

from cohortlake import schema
from cohortlake.history import history_index
from cohortlake.history.change_kinds import COMPARED
from cohortlake.privacy import Policy, Treatment, built_in
from cohortlake.publish import affected, patients, plan, publisher
from cohortlake.publish.publication.marker import (
    MARKER_PATH,
    Publication,
    read_marker,
    write_marker,
)
from cohortlake.storage.root import Root

pytestmark = pytest.mark.slow


def _change(number: int, **tags: Any) -> dict[str, Any]:
    study = {"DICOMStudyInstanceUID": f"1.{number % 3}", "DICOMSeriesInstanceUID": f"2.{number}"}
    where = {"DICOMPatientId": f"P{number % 3}", "DICOMStudyDate": f"2024{number % 3 + 1:02d}05"}
    return {"number": number, "isPrimary": True, **study, **where, **tags}


# The study's row is published in January, and the patient whose it is has rows in February only.
SPEAKER_ELSEWHERE = [
    _change(0, DICOMStudyInstanceUID="1.9", isPrimary=False),
    _change(1, DICOMStudyInstanceUID="1.9"),
    _change(3, DICOMStudyInstanceUID="1.8"),
]
JANUARY_AGAIN = [_change(3, DICOMStudyInstanceUID="1.8", DICOMPatientSex="F")]


# One study is only moved behind the other, in whose month their common series is published.
SERIES_OF_TWO_STUDIES = [
    _change(0, DICOMStudyInstanceUID="1.9", DICOMSeriesInstanceUID="2.9", isPrimary=False),
    _change(1, DICOMStudyInstanceUID="1.8", DICOMSeriesInstanceUID="2.9", DICOMPatientId="P0"),
]
MOVED_BEHIND = [{**SERIES_OF_TWO_STUDIES[0], "DICOMStudyDate": "20240305"}]


_LAW = settings(
    max_examples=examples(20, quick=2),  # the first one is always two steps without a change
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
_Steps = list[tuple[list[dict[str, Any]], list[int]]]


# Old studies come late, image sets go, patients and dates are corrected, all in any order.
@example([(SPEAKER_ELSEWHERE, []), (JANUARY_AGAIN, [])])
@example([(SERIES_OF_TWO_STUDIES, []), (MOVED_BEHIND, [])])
@_LAW
@given(STEPS)
def test_publishing_what_changed_gives_what_publishing_all_gives_by_month(
    tmp_path_factory: Any, steps: _Steps
) -> None:
    root = Root(str(tmp_path_factory.mktemp("lake")))
    published = _publish_little_by_little(root, "identified", steps)
    _assert_that_changed_fields_differ(published)
    assert published == _publish_all(root, "identified")


@_LAW
@given(STEPS)
def test_publishing_what_changed_gives_what_publishing_all_gives_by_shifted_year(
    tmp_path_factory: Any, steps: _Steps
) -> None:
    root = Root(str(tmp_path_factory.mktemp("lake")))
    published = _publish_little_by_little(root, "safe", steps, has_many=True)
    assert published == _publish_all(root, "safe")


def _publish_little_by_little(
    root: Root, policy: str, steps: _Steps, *, has_many: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Publish after each step, and return the published rows.

    Args:
        root: An empty lake.
        policy: The policy.
        steps: What changes in each step.
        has_many: Whether to do what is done if much changed.
    """
    root.prepare()
    hospital = Hospital(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(history_index, "_SCAN_FACTOR", 6 if has_many else 0)
        patched.setattr(affected, "_FEW_STUDIES", 0 if has_many else 9)
        patched.setattr(patients, "_MOST_IN_ONE_FILE", 0)  # one for each year
        for changes, gone in steps:
            hospital.step(changes, gone)
            publisher.publish(root, built_in(policy))
    return _rows_of_patients_together(root)


def _publish_all(root: Root, policy: str) -> dict[str, list[dict[str, Any]]]:
    publisher.request_full_publish(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_BATCH_ROWS", 1)
        publisher.publish(root, built_in(policy))
    return _rows_of_patients_together(root)


def _rows_of_patients_together(root: Root) -> dict[str, list[dict[str, Any]]]:
    """Return the published rows, those of `patients` as if they were in one file."""
    rows = published_rows(root)
    of_patients = [rows.pop(path) for path in list(rows) if "/patients/" in path]
    together = itertools.chain.from_iterable(of_patients)
    return {**rows, "patients": sorted(together, key=lambda row: str(row["patient_key"]))}


@pytest.mark.parametrize(
    ("policy", "column"),
    [("identified", "last_study_date"), ("safe", "last_study_date_shifted")],
)
def test_many_patients_lie_in_a_file_for_each_year_of_the_last_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, column: str
) -> None:
    monkeypatch.setattr(patients, "_MOST_IN_ONE_FILE", 2)
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)

    def on(number: int, date: str) -> dict[str, Any]:
        tags = {"DICOMPatientId": f"P{number}", "DICOMStudyDate": date}
        return _change(number, DICOMStudyInstanceUID=f"1.{number}", **tags)

    hospital.step([on(number, f"{2010 + number}0605") for number in range(6)] + [on(6, "")], [])
    first = publisher.publish(root, built_in(policy))
    _assert_each_in_its_year(root, column, 7)
    hospital.step([_change(9, DICOMPatientId="P1", DICOMStudyDate="20300605")], [2])
    second = publisher.publish(root, built_in(policy))
    _assert_each_in_its_year(root, column, 6)
    assert first
    assert second
    moved = set(second.written) & set(second.paths("patients"))
    assert 2 <= len(moved) <= 3  # P1 left one file for another; P2 went
    read = pd.read_parquet(root.path("published/patients"))
    assert len(read) == 6
    assert column in read
    with duckdb.connect(root.path("published/cohortlake.duckdb"), read_only=True) as con:
        assert con.sql("SELECT count(*) FROM patients").fetchall() == [(6,)]


def test_files_with_the_columns_of_another_policy_are_emptied_and_then_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new policy has no row for the year, which comes first for a reader of all files."""
    monkeypatch.setattr(patients, "_MOST_IN_ONE_FILE", 2)
    root = Root(str(tmp_path))
    root.prepare()
    Hospital(root).step([_change(number) for number in range(6)], [])
    publisher.publish(root, built_in("safe"))
    others = [
        "published/patients/patients-1990.parquet",
        "published/patients/patients.parquet",
        "published/studies/study_month=1990-01/studies.parquet",
    ]
    for path in others:
        Path(root.path(path)).parent.mkdir(exist_ok=True)
        pd.DataFrame({"other": [1]}).to_parquet(root.path(path))
    seen = []

    def counted(*given_: Any) -> bool:
        with duckdb.connect(root.path("published/cohortlake.duckdb"), read_only=True) as con:
            query = "SELECT (SELECT count(*) FROM patients), count(*) FROM studies"
            seen.append(con.sql(query).fetchall())
        return write_marker(*given_)

    monkeypatch.setattr(publisher, "write_marker", counted)
    assert publisher.publish(root, built_in("limited"))
    assert seen == [[(3, 3)]]
    assert not any(map(root.exists, others))


def _assert_each_in_its_year(root: Root, column: str, count: int) -> None:
    found = {
        path: rows
        for path, rows in published_rows(root).items()
        if path.startswith("published/patients/")
    }
    assert sum(map(len, found.values())) == count
    for path, rows in found.items():
        years = {str(row[column].year) if row[column] else "undated" for row in rows}
        assert path == f"published/patients/patients-{years.pop()}.parquet"
        assert not years
        keys = [row["patient_key"] for row in pq.ParquetFile(root.path(path)).read().to_pylist()]
        assert keys == sorted(keys)


@pytest.mark.parametrize("policy", ["identified", "safe"])
def test_batches_of_one_month_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """The series and the study have rows in two months; the second commit changes both months."""
    root = Root(str(tmp_path / "lake"))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([*SPEAKER_ELSEWHERE, _change(5, DICOMStudyDate="20250311")], [])
    publisher.publish(root, built_in(policy))
    hospital.step([*JANUARY_AGAIN, *SERIES_OF_TWO_STUDIES, *MOVED_BEHIND], [])
    copy = hospital.copy_to(str(tmp_path / "copy")).root
    at_once = publisher.publish(root, built_in(policy))
    monkeypatch.setattr(plan, "_BATCH_ROWS_OF_CHANGES", 1)
    monkeypatch.setattr(affected, "_FEW_STUDIES", 0)
    in_batches = publisher.publish(copy, built_in(policy))
    assert at_once
    assert in_batches
    assert set(in_batches.written) == set(at_once.written)
    assert in_batches.files == at_once.files


def test_after_the_loss_of_a_very_large_file_everything_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    Hospital(root).step([_change(1), _change(2), _change(4)], [])
    before = publisher.publish(root, built_in("limited"))
    assert before
    (lost,) = [path for path in before.files if "/studies/study_month=2024-02" in path]
    root.delete(lost)
    some = publisher.publish(root, built_in("limited"))
    assert some
    assert set(some.written) < set(some.files)
    root.delete(lost)
    monkeypatch.setattr(publisher, "_MOST_CHANGED_ROWS", 3)  # the month has two rows
    everything = publisher.publish(root, built_in("limited"))
    assert everything
    assert set(everything.written) == set(everything.files)
    assert everything.files == before.files


def test_what_changed_is_known_though_the_state_before_lies_in_another_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image set goes to another study and series of the same month."""
    root = Root(str(tmp_path / "lake"))
    root.prepare()
    hospital = Hospital(root)

    def in_studies(number: int) -> list[dict[str, Any]]:
        uids = [(f"{number}.{n}", f"{number}.{n}.1") for n in range(8)]
        return [
            _change(3 * n, DICOMStudyInstanceUID=study, DICOMSeriesInstanceUID=series)
            for n, (study, series) in enumerate(uids)
        ]

    hospital.step(in_studies(5), [])
    publisher.publish(root, built_in("identified"))
    hospital.step(in_studies(6), [])
    copy = hospital.copy_to(str(tmp_path / "copy")).root
    at_once = publisher.publish(root, built_in("identified"))
    monkeypatch.setattr(plan, "_BATCH_ROWS_OF_CHANGES", 1)
    changes = publisher.publish(copy, built_in("identified"))
    monkeypatch.setattr(plan, "_BATCH_ROWS", 1)
    publisher.request_full_publish(copy)
    everything = publisher.publish(copy, built_in("identified"))
    assert at_once
    assert changes
    assert everything
    assert changes.files == at_once.files
    assert everything.files == at_once.files
    _assert_that_changed_fields_differ(published_rows(copy))


def test_after_very_many_changes_everything_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_change(1), _change(2)], [])
    assert publisher.publish(root, built_in("limited"))
    hospital.step([_change(2, DICOMPatientSex="F"), _change(4)], [])
    monkeypatch.setattr(publisher, "_MOST_CHANGED_ROWS", 1)
    publication = publisher.publish(root, built_in("limited"))
    assert publication
    assert set(publication.written) == set(publication.files)
    assert publication.rows("image_sets") == 3
    publisher.request_full_publish(root)
    in_full = publisher.publish(root, built_in("limited"))
    assert in_full
    assert in_full.files == publication.files


def _assert_that_changed_fields_differ(published: dict[str, list[dict[str, Any]]]) -> None:
    """Compare each state with the one before it, in whichever month they were published."""
    history = [row for path, rows in published.items() if "/history/" in path for row in rows]
    for own_id in {row["image_set_id"] for row in history}:
        own = [row for row in history if row["image_set_id"] == own_id]
        before = None
        for row in sorted(own, key=itemgetter("valid_from", "version")):
            changed = before and [name for name in COMPARED if row[name] != before[name]]
            assert row["changed_fields"] == changed
            assert (row["kind"] == "created") == (before is None)
            before = row


def test_a_state_that_moved_is_compared_with_one_in_a_month_that_is_not_written(
    tmp_path: Path,
) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    moved = {"DICOMStudyDate": "20250311"}
    for changes in ([_change(1)], [_change(1, **moved)], [_change(2)]):
        hospital.step(changes, [])
    publisher.publish(root, built_in("identified"))
    study = {"DICOMStudyInstanceUID": "1.7", "DICOMSeriesInstanceUID": "2.7"}
    hospital.step([_change(7, **moved, **study)], [])
    last = publisher.publish(root, built_in("identified"))
    assert last is not None
    written = [path for path in last.written if "/history/" in path]
    assert written == ["published/history/study_month=2025-03/history.parquet"]
    (row,) = duckdb.sql(
        f"FROM '{root.path(written[0])}' WHERE image_set_id = '{image_set_id(1)}'"
    ).to_arrow_table().to_pylist()  # fmt: skip
    assert row["kind"] == "moved"
    assert row["changed_fields"] == ["version", "updated_at", "StudyDate"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Hospital]:
    """A hospital whose lake is published, by the name of the policy; tests work on copies."""
    hospital = Hospital(Root(str(tmp_path_factory.mktemp("limited") / "lake")))
    hospital.root.prepare()
    hospital.step([_change(number) for number in range(6)], [])
    first = publisher.publish(hospital.root, built_in("limited"))
    assert first
    assert len(first.written) == len(first.files) == 4 * 3 + 1
    safe = hospital.copy_to(str(tmp_path_factory.mktemp("safe") / "lake"))
    publisher.publish(safe.root, built_in("safe"))
    return {"limited": hospital, "safe": safe}


@pytest.fixture
def hospital(pristine: dict[str, Hospital], tmp_path: Path) -> Hospital:
    """A hospital whose lake is published under `limited`."""
    return pristine["limited"].copy_to(str(tmp_path / "lake"))


def test_only_the_months_of_what_changed_are_written(hospital: Hospital) -> None:
    root = hospital.root
    first = read_marker(root)
    hospital.step([_change(1, DICOMPatientSex="F")], [])
    second = publisher.publish(root, built_in("limited"))
    assert first
    assert second
    assert sorted(second.written) == [
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("history", "image_sets")),
        "published/patients/patients.parquet",
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("series", "studies")),
    ]
    assert publisher.publish(root, built_in("limited")) == read_marker(root)
    untouched = [p for p in first.files if p not in second.written]
    assert all(second.files[path] == first.files[path] for path in untouched)


def test_a_file_whose_rows_stay_the_same_is_not_written(
    pristine: dict[str, Hospital], tmp_path: Path
) -> None:
    hospital = pristine["safe"].copy_to(str(tmp_path / "lake"))
    hospital.step([_change(1)], [])  # another version, in which no tag differs
    publication = publisher.publish(hospital.root, built_in("safe"))
    assert publication is not None
    assert {path.split("/")[1] for path in publication.written} == {"history", "image_sets"}


@pytest.mark.parametrize("table", ["image_sets", "patients"])
def test_rows_of_a_damaged_file_are_not_kept(hospital: Hospital, table: str) -> None:
    root = hospital.root
    first = read_marker(root)
    assert first is not None
    path = next(path for path in first.files if f"/{table}/" in path)
    original = pq.read_table(root.path(path), partitioning=None)
    hospital.step([_change(0, DICOMPatientSex="F")], [])
    # Of the same size, so that only its hash tells.
    content = root.read(path)
    Path(root.path(path)).write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    second = publisher.publish(root, built_in("limited"))
    assert second is not None
    assert path in second.written
    assert pq.read_metadata(root.path(path)).num_rows == len(original)
    little_by_little = published_rows(root)
    publisher.request_full_publish(root)
    publisher.publish(root, built_in("limited"))
    assert little_by_little == published_rows(root)


def test_the_order_of_rows_shows_no_hidden_column(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    changes = [
        _change(number, DICOMSeriesModality=modality, DICOMStudyDate="20240105")
        for number, modality in enumerate(("MR", "CT", "MR", "CT"))
    ]
    Hospital(root).step(changes, [])
    orders = {}
    for policy in (
        built_in("limited"),
        Policy("narrow", "limited", Treatment.KEEP, {"Modality": Treatment.WITHHOLD}),
    ):
        publisher.publish(root, policy)
        rows = pq.read_table(root.path("published/image_sets/study_month=2024-01"))
        ids = rows["image_set_id"].to_pylist()
        orders[policy.name] = [ids.index(image_set_id(number)) for number in range(4)]
    assert orders == {"limited": [2, 0, 3, 1], "narrow": [0, 1, 2, 3]}


def test_the_marker_says_how_each_file_was_written(hospital: Hospital) -> None:
    root = hospital.root
    marker = read_marker(root)
    assert marker is not None
    for path, file in marker.files.items():
        content = root.read(path)
        assert file.size_bytes == len(content)
        assert file.sha256 == hashlib.sha256(content).hexdigest()
        assert file.rows == pq.read_metadata(root.path(path)).num_rows


_STUDIES = "published/studies/study_month=2024-02/studies.parquet"


_EACH_KIND = {
    *(("studies", damage, "limited") for damage in ("delete", "cut", "empty", "flip")),
    ("patients", "delete", "limited"),
    ("patients", "flip", "safe"),
    ("studies", "cut", "safe"),
}
"""The damages of `make test`. `make chaos` does each to each table under each policy."""


@pytest.mark.parametrize(
    ("which", "damage", "policy"),
    [
        pytest.param(*kind, marks=[] if kind in _EACH_KIND else pytest.mark.chaos)
        for kind in itertools.product(
            ("studies", "patients"), ("delete", "cut", "empty", "flip"), ("limited", "safe")
        )
    ],
)
def test_what_was_altered_is_written_again_and_nothing_else_changes(
    pristine: dict[str, Hospital], tmp_path: Path, which: str, damage: str, policy: str
) -> None:
    root = pristine[policy].copy_to(str(tmp_path / "lake")).root
    publication = publisher.publish(root, built_in(policy))  # the catalogue of the copy
    assert publication is not None
    assert publication.written == ()
    path = sorted(p for p in publication.files if f"/{which}/" in p)[-1]
    expected = published_rows(root)
    file = Path(root.path(path))
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes({"cut": content[:-9], "empty": b"", "flip": flipped}[damage])

    verify = damage == "flip"
    if verify:  # of the same size: only who reads it sees it
        untouched = publisher.publish(root, built_in(policy))
        assert untouched is not None
        assert untouched.written == ()
    mended = publisher.publish(root, built_in(policy), verify=verify)
    assert mended is not None
    assert path in mended.written
    assert published_rows(root) == expected
    assert read_marker(root) == replace(mended, written=(), removed=())
    again = publisher.publish(root, built_in(policy), verify=True)
    assert again is not None
    assert again.written == ()


def _of_same_size(content: bytes, how: str) -> bytes:
    """Return other content of the same size, as a copy that broke off or a bad disk leaves it."""
    size, footer = len(content), int.from_bytes(content[-8:-4], "little")
    return {
        "footer": content[: -8 - footer] + bytes(footer) + content[-8:],
        "footer's beginning": content[: -8 - footer] + b"\xff" * 9 + content[1 - footer :],
        "footer's length": content[:-8] + (size * 2).to_bytes(4, "little") + content[-4:],
        "middle": content[: size // 3] + bytes(size // 3) + content[size // 3 * 2 :],
        "zeros": bytes(size),
        "cut and filled with zeros": content[: size // 2] + bytes(size - size // 2),
    }[how]


@pytest.mark.parametrize(
    ("which", "how"),
    [
        ("studies", "footer"),
        pytest.param("studies", "footer's beginning", marks=pytest.mark.chaos),
        ("studies", "footer's length"),
        ("studies", "middle"),
        pytest.param("studies", "cut and filled with zeros", marks=pytest.mark.chaos),
        ("studies", "other table"),
        ("studies", "unlisted"),
        ("patients", "zeros"),
        ("patients", "missing"),
    ],
)
def test_a_copy_with_a_damaged_file_is_mended_when_its_views_are_made(
    hospital: Hospital, which: str, how: str
) -> None:
    root = hospital.root
    expected = published_rows(root)
    marker = read_marker(root)
    assert marker is not None
    path = next(p for p in marker.files if f"/{which}/" in p)  # DuckDB reads the first one
    file = Path(root.path(path))
    if how == "missing":
        file.unlink()
    elif how == "other table":
        other = next(p for p in marker.files if "/series/" in p)
        file.write_bytes(root.read(other))
        items = json.loads(marker.to_marker())
        items["files"][path]["size_bytes"] = file.stat().st_size  # as if it had the same size
        root.write(MARKER_PATH, json.dumps(items).encode())
    elif how == "unlisted":
        file = file.parent.with_name("study_month=1999-01") / f"{which}.parquet"
        file.parent.mkdir()
        file.write_bytes(b"x" * 900)
    else:
        file.write_bytes(_of_same_size(file.read_bytes(), how))
    mended = publisher.publish(root, built_in("limited"))
    assert mended is not None
    again = publisher.publish(root, built_in("limited"), verify=True)
    assert again is not None
    assert again.written == ()
    assert published_rows(root) == expected
    with duckdb.connect(root.path("published/cohortlake.duckdb"), read_only=True) as con:
        for table in schema.PUBLISHED:
            assert con.sql(f"SELECT count(*) FROM {table}").fetchall() == [(mended.rows(table),)]


def test_of_other_months_nothing_is_written_where_one_was_altered(hospital: Hospital) -> None:
    root = hospital.root
    root.delete(_STUDIES)
    mended = publisher.publish(root, built_in("limited"))
    assert mended is not None
    assert all("=2024-02/" in path for path in mended.written)


def test_a_marker_without_sizes_takes_them_at_the_next_publication(hospital: Hospital) -> None:
    root = hospital.root
    first = read_marker(root)
    assert first is not None
    old = json.loads(first.to_marker())
    old["files"] = {path: file["rows"] for path, file in old["files"].items()}
    root.write(MARKER_PATH, json.dumps(old).encode())
    same = publisher.publish(root, built_in("limited"), verify=True)
    assert same is not None
    assert (same.written, same.rows("image_sets")) == ((), 6)

    hospital.step([_change(1, DICOMPatientSex="F")], [])
    second = publisher.publish(root, built_in("limited"))
    assert second is not None
    for path, file in second.files.items():
        assert file.size_bytes == len(root.read(path))
        assert (file.sha256 is not None) == (path in second.written)

    root.write(MARKER_PATH, json.dumps(old).encode())
    root.delete(_STUDIES)
    third = publisher.publish(root, built_in("limited"))
    assert third is not None
    assert _STUDIES in third.written


def _places(root: Root) -> list[tuple[Any, ...]]:
    files = root.path("published", "studies") + "/**/*.parquet"
    places = duckdb.read_parquet(files).project(
        "StudyInstanceUID, study_ordinal, days_since_previous"
    )
    return sorted(places.fetchall())


def test_a_study_that_comes_late_moves_the_later_ones_and_no_others(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    days = ["20240105", "20240207", "20240401"]
    visits = [
        _change(n, DICOMPatientId="P1", DICOMStudyInstanceUID=f"1.{n}", DICOMStudyDate=day)
        for n, day in enumerate(days)
    ]
    others = _change(3, DICOMPatientId="P2", DICOMStudyInstanceUID="1.3", DICOMStudyDate="20240501")
    hospital.step([*visits, others], [])
    publisher.publish(root, built_in("identified"))
    assert _places(root) == [("1.0", 1, None), ("1.1", 2, 33), ("1.2", 3, 54), ("1.3", 1, None)]

    late = _change(4, DICOMPatientId="P1", DICOMStudyInstanceUID="1.4", DICOMStudyDate="20240110")
    hospital.step([late], [])
    second = publisher.publish(root, built_in("identified"))
    assert second is not None
    assert _written_months(second, "studies") == ["2024-01", "2024-02", "2024-04"]
    for table in ("image_sets", "series", "history"):
        assert _written_months(second, table) == ["2024-01"]
    assert _places(root) == [
        ("1.0", 1, None), ("1.1", 3, 28), ("1.2", 4, 54), ("1.3", 1, None), ("1.4", 2, 5),
    ]  # fmt: skip

    hospital.step([late | {"DICOMStudyDescription": "amended"}], [])
    third = publisher.publish(root, built_in("identified"))
    assert third is not None
    assert _written_months(third, "studies") == ["2024-01"], "no study has another place"

    hospital.step([], [0])
    fourth = publisher.publish(root, built_in("identified"))
    assert fourth is not None
    assert _places(root) == [("1.1", 2, 28), ("1.2", 3, 54), ("1.3", 1, None), ("1.4", 1, None)]

    hospital.step([visits[2] | {"DICOMPatientId": "P2"}], [])
    fifth = publisher.publish(root, built_in("identified"))
    assert fifth is not None
    assert _written_months(fifth, "studies") == ["2024-04", "2024-05"]
    assert _places(root) == [("1.1", 2, 28), ("1.2", 1, None), ("1.3", 2, 30), ("1.4", 1, None)]


def _written_months(publication: Publication, table: str) -> list[str]:
    folders = [path.split("/")[-2:-1] for path in publication.written if f"/{table}/" in path]
    return sorted(folder.removeprefix("study_month=") for (folder,) in folders)


def test_a_compacted_memory_is_published_in_proportion_all_the_same(hospital: Hospital) -> None:
    root = hospital.root
    hospital.step([_change(1, DICOMPatientSex="F")], [])
    memory = DeltaTable(root.uri_of("image_sets"))
    assert memory.optimize.compact()["numFilesRemoved"] > 1
    compacted = publisher.publish(root, built_in("limited"))
    assert compacted is not None
    assert len(compacted.written) == 5

    hospital.step([_change(2, DICOMPatientSex="F")], [])
    memory.update_incremental()
    memory.optimize.compact()
    memory.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    whole = publisher.publish(root, built_in("limited"))
    assert whole is not None
    assert sorted(whole.written) == sorted(whole.files), "what was appended cannot be told any more"


def test_a_file_can_be_passed_over_by_the_ids_it_does_not_hold(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    of_january = {"DICOMStudyDate": "20240105"}
    changes = [_change(n, DICOMAccessionNumber=f"A{n}", **of_january) for n in range(6)]
    Hospital(root).step(changes, [])
    publication = publisher.publish(root, built_in("identified"))
    assert publication is not None
    probed = set()
    for path in publication.files:
        file = root.path(path)
        for column in schema.IDS & {*pq.read_schema(file).names}:
            probed.add((path.split("/")[1], column))
            values = [value for (value,) in duckdb.sql(f"SELECT {column} FROM '{file}'").fetchall()]
            assert not any(_is_excluded(file, column, value) for value in values)
            assert sum(_is_excluded(file, column, f"no {n}") for n in range(25)) > 18
    assert {("image_sets", column) for column in schema.IDS} <= probed
    assert ("patients", "patient_key") in probed


def _is_excluded(file: str, column: str, value: str) -> bool:
    probe = "SELECT bool_and(bloom_filter_excludes) FROM parquet_bloom_probe(?, ?, ?)"
    ((is_excluded,),) = duckdb.execute(probe, [file, column, value]).fetchall()
    return bool(is_excluded)


def test_an_image_set_that_says_nothing_of_it_is_primary(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    for is_primary in (None, True, False, None):
        hospital.step([_change(1) | {"isPrimary": is_primary}], [])
    publisher.publish(root, built_in("limited"))
    told = {}
    for table in ("image_sets", "series", "history"):
        files = root.path("published", table) + "/**/*.parquet"
        order = "ORDER BY valid_from" if table == "history" else ""
        told[table] = duckdb.sql(f"SELECT is_primary FROM '{files}' {order}").fetchall()
    assert told == {
        "image_sets": [(True,)],
        "series": [(True,)],
        "history": [(True,), (True,), (False,), (True,)],
    }
    kinds = duckdb.sql(
        f"SELECT kind, changed_fields FROM '{root.path('published/history')}/**/*.parquet' "
        "ORDER BY valid_from"
    ).fetchall()
    assert [kind for kind, _ in kinds] == ["created", "reimported", "primary_flip", "primary_flip"]
    assert "is_primary" not in kinds[1][1]
    sent = duckdb.sql(
        f"SELECT is_primary FROM '{root.path('image_sets')}/**/*.parquet' "
        "WHERE row_kind = 'version' ORDER BY effective_at"
    ).fetchall()
    assert sent == [(None,), (True,), (False,), (None,)]
