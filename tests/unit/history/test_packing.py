"""Packed increments: the same rows and records in fewer files, whatever ends midway."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from looks import DATASTORE, Looked, write

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.history import coverage, image_sets, packing
from cohortlake.increments import files, kinds, older_format, pack_writer, packed, rewrite, writer
from cohortlake.increments.record import Record
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import Erasure
from cohortlake.publish.publication import intact
from cohortlake.storage import engine
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)

Increment = tuple[Record, pa.Table]


@contextmanager
def packing_of(fewest: int = 2, most: int = 2000, small: int = 1 << 22) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_FEWEST_SMALL_FILES", fewest)
        patch.setattr(packing, "_PACK_INCREMENTS", most)
        patch.setattr(packing, "_SMALL_BYTES", small)
        yield


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path))


def search(root: Root, *hours: int, gone: Sequence[int] = (), rows: int = 2) -> list[str]:
    """Write what a search found at each hour, apply it, and return the paths."""
    looks = [
        Looked(
            START + timedelta(hours=hour),
            [_summary(number, hour) for number in range(rows)],
            [f"{number:032x}" for number in gone],
        )
        for hour in hours
    ]
    paths = write(root, looks)
    apply(root)
    return paths


def _summary(number: int, hour: int) -> dict[str, Any]:
    return {
        "imageSetId": f"{number:032x}",
        "version": hour + 1,
        "createdAt": START,
        "updatedAt": START + timedelta(hours=hour),
        "DICOMTags": {
            "DICOMPatientId": f"P{number}",
            "DICOMStudyDate": f"2025{hour % 12 + 1:02}01",
        },
    }


def apply(root: Root) -> None:
    pending = coverage.pending(root)
    image_sets.apply(root, pending)
    coverage.record(root, pending)


def increments(root: Root) -> dict[str, Increment]:
    """Return all increments, as readers take them; each is there once, or twice and the same."""
    found: dict[str, Increment] = {}
    for path in files.paths(root):
        for record, batches in files.read_increments(root, path):
            rows = pa.concat_tables(list(batches))
            assert found.setdefault(record.path, (record, rows)) == (record, rows)
    return found


def tables(root: Root) -> tuple[list[Any], list[Any]]:
    with engine.connection() as con:
        image_sets.register(con, root)
        history = con.sql("SELECT * FROM history ORDER BY ALL").fetchall()
    return history, coverage.read(root).sort_by("increment").to_pylist()


def rebuilt(root: Root) -> tuple[list[Any], list[Any]]:
    _, paths = image_sets.rebuild(root)
    coverage.record(root, paths, rebuild=True)
    return tables(root)


def single(root: Root) -> list[str]:
    return [path for path in files.listed(root) if not packed.is_packed(path)]


def packs(root: Root) -> list[str]:
    return [path for path in files.listed(root) if packed.is_packed(path)]


def age(root: Root) -> None:
    """Make all files two weeks old."""
    at = (datetime.now(UTC) - 2 * WEEK).timestamp()
    for path in files.listed(root):
        os.utime(root.path(path), (at, at))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["search", "search", "empty", "absence", "pack", "pack", "age", "pending"]),
        st.integers(1, 4),
    ),
    max_size=10,
)


@settings(max_examples=examples(40, quick=3), deadline=None)
@given(steps=STEPS, fewest=st.integers(2, 4), most=st.integers(2, 7))
def test_the_same_increments_whatever_is_packed_when(
    tmp_path_factory: Any, steps: list[tuple[str, int]], fewest: int, most: int
) -> None:
    root, hour = Root(str(tmp_path_factory.mktemp("lake"))), 0
    written: dict[str, Increment] = {}
    with packing_of(fewest, most):
        for step, count in [*steps, ("search", 3), ("pack", 1), ("age", 1), ("pack", 1)]:
            if step == "pack":
                packing.pack(root, WEEK)
            elif step == "age":
                age(root)
            else:
                hours = range(hour, hour := hour + count)
                rows = 0 if step == "empty" else count
                gone = range(count) if step == "absence" else ()
                if step == "pending":
                    write(root, [Looked(START + timedelta(hours=h)) for h in hours])
                else:
                    search(root, *hours, rows=rows, gone=gone)
            now = increments(root)
            assert {path: now[path] for path in written} == written
            written = now
    before = tables(root)
    apply(root)
    assert coverage.pending(root) == []
    assert intact.altered_increments(root, coverage.read(root), verify=True) == {}
    assert rebuilt(root)[0] == tables(root)[0]
    assert {row["increment"] for row in before[1]} <= {r["increment"] for r in tables(root)[1]}


def test_a_rebuild_gives_the_same_tables(root: Root) -> None:
    search(root, *range(9), gone=[1])
    before, found = tables(root), increments(root)
    with packing_of():
        done = packing.pack(root, WEEK)
    assert (done.increments, done.deleted) == (18, 0), "searches and absences"
    assert len(packs(root)) == 2
    assert increments(root) == found
    assert rebuilt(root) == before
    age(root)
    with packing_of():
        done = packing.pack(root, WEEK)
    assert (done.increments, done.files, done.deleted) == (0, 2, 18)
    assert single(root) == []
    assert increments(root) == found
    assert rebuilt(root) == before


def test_packed_files_grow_until_they_are_full(root: Root) -> None:
    with packing_of(most=8):
        for hour in range(0, 21, 3):
            search(root, hour, hour + 1, hour + 2)
            age(root)
            packing.pack(root, WEEK)
        age(root)
        packing.pack(root, WEEK)
    counts = Counter(map(packed.count_in, packs(root)))
    assert sum(count * n for count, n in counts.items()) == len(increments(root)) == 21
    assert max(counts) <= 8
    assert len(packs(root)) <= 4
    assert single(root) == []


def test_few_files_and_large_ones_stay(root: Root) -> None:
    search(root, *range(5))
    with packing_of(fewest=6):
        assert packing.pack(root, WEEK).increments == 0
    with packing_of(small=10):
        assert packing.pack(root, WEEK).increments == 0
    assert len(single(root)) == 5


def test_what_is_not_applied_is_not_packed(root: Root) -> None:
    search(root, 0, 1)
    late = write(root, [Looked(START + timedelta(hours=h)) for h in (2, 3, 4)])
    with packing_of():
        assert packing.pack(root, WEEK).increments == 2
    assert coverage.pending(root) == late


def test_what_was_packed_is_read_from_there_and_deleted_after_the_retention(root: Root) -> None:
    sources = search(root, 0, 1, 2)
    reader = files.paths(root)
    with packing_of():
        packing.pack(root, WEEK)
        packing.pack(root, WEEK)
    assert all(map(root.exists, reader)), "a reader that began before goes on"
    assert files.paths(root) == packs(root)
    Path(root.path(sources[0])).write_bytes(b"nobody reads this any more")
    assert len(increments(root)) == 3
    age(root)
    with packing_of():
        packing.pack(root, WEEK)
    assert files.listed(root) == packs(root)


def _fails_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    calls, real = 0, getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (pack_writer.PackWriter, "add", 3),
        pytest.param(pack_writer.PackWriter, "commit", 1, marks=pytest.mark.chaos),
        (pack_writer.PackWriter, "commit", 2),
        (erasures, "read", 2),
        pytest.param(Root, "delete", 1, marks=pytest.mark.chaos),
        (Root, "delete", 3),
    ],
)
def test_an_end_at_any_step_leaves_the_same_increments(
    root: Root, owner: Any, name: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(root, *range(8), gone=[0])
    before, found = tables(root), increments(root)
    with packing_of(most=5), monkeypatch.context() as patch:
        if owner is Root:
            packing.pack(root, WEEK)
            age(root)
        _fails_at(patch, owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            packing.pack(root, WEEK)
    assert increments(root) == found
    assert coverage.pending(root) == []
    assert rebuilt(root) == before
    with packing_of(most=5):
        packing.pack(root, WEEK)
        age(root)
        packing.pack(root, WEEK)
    assert increments(root) == found
    assert rebuilt(root) == before
    assert intact.altered_increments(root, coverage.read(root), verify=True) == {}


def test_two_runs_pack_at_once(root: Root) -> None:
    paths = search(root, *range(8))
    before, found = tables(root), increments(root)
    packing._copy(root, paths[:5])
    packing._copy(root, paths[3:])  # it had listed the files before
    packing._copy(root, paths)
    assert increments(root) == found
    assert rebuilt(root) == before
    age(root)
    with packing_of():
        packing.pack(root, WEEK)
    assert [packed.count_in(path) for path in packs(root)] == [8]
    assert files.listed(root) == packs(root)
    assert increments(root) == found


def test_files_that_share_increments_hold_each_once_for_the_tables(root: Root) -> None:
    paths = search(root, *range(8))
    before = tables(root)
    packing._copy(root, paths[:5])
    packing._copy(root, paths[3:])
    packing.delete_copied(root)
    assert len(packs(root)) == 2
    assert single(root) == []
    assert rebuilt(root) == before
    columns = ("state_key", "image_set_id")
    assert len(files.read_rows(root, DATASTORE, paths, columns)) == 16


def test_a_tick_opens_no_packed_file(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    search(root, *range(8))
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    late = write(root, [Looked(START + timedelta(hours=9))])
    opened: list[str] = []
    real: Callable[..., Any] = Root.open

    def spy(root: Root, path: str) -> Any:
        opened.append(path)
        return real(root, path)

    monkeypatch.setattr(Root, "open", spy)
    other = Root(root.uri)  # a run that wrote none of them
    assert coverage.pending(other) == late
    assert len(coverage.searched(other)) == 9
    assert [path for path in opened if path.startswith("increments/")] == late


def test_without_coverage_the_packed_increments_are_applied_again(root: Root) -> None:
    search(root, *range(4))
    before = tables(root)
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    for path in root.files("coverage", ""):
        root.delete(path)
    root.delete("coverage/_delta_log/_last_checkpoint")
    assert coverage.pending(root) == packs(root)
    assert len(coverage.searched(root)) == 4
    apply(root)
    assert tables(root) == before


def _is_of(patient: str) -> files.RowFilter:
    return lambda rows: pc.fill_null(pc.equal(rows["PatientID"], patient), fill_value=False)


def test_rows_are_removed_from_a_packed_file_as_from_a_single_one(tmp_path: Path) -> None:
    roots = [Root(str(tmp_path / name)) for name in ("single", "packed")]
    for root in roots:
        search(root, *range(4), rows=3)
        write(root, [Looked(START + timedelta(hours=9))])
    with packing_of():
        packing.pack(roots[1], WEEK)
    packing.delete_copied(roots[1])
    for root in roots:
        for path in files.paths(root):
            assert files.count_rows(root, path, _is_of("P1")) in (0, 1, 4)
            if files.count_rows(root, path, _is_of("P1")):
                rewrite.remove_rows(root, path, _is_of("P1"))
    assert increments(roots[0]) == increments(roots[1])
    (pack,) = packs(roots[1])
    assert files.count_rows(roots[1], pack, _is_of("P1")) == 0
    assert [r.rows for r in files.read_records(roots[1], pack)] == [2] * 4
    assert b"P1" not in Path(roots[1].path(pack)).read_bytes()


def test_counts_are_cleared_in_a_packed_file(root: Root) -> None:
    paths = []
    for hour in range(3):
        at = START + timedelta(hours=hour)
        record = Record(DATASTORE, "updated_at", "2026-01-01", START, at, at, f"run-{hour}", rows=5)
        writer.write_empty(root, record)
        paths.append(record.path)
    apply(root)
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    ((pack, inside),) = files.locate(root, DATASTORE, paths[1:2]).items()
    assert inside == {paths[1]}
    rewrite.clear_counts(root, pack, inside)
    assert [(r.rows, r.counted) for r in files.read_records(root, pack)] == [
        (5, True), (0, False), (5, True),
    ]  # fmt: skip


def test_nothing_is_packed_while_an_erasure_is_under_way(root: Root) -> None:
    search(root, *range(4))
    erasures.write(root, Erasure(DATASTORE, "hash", (), "2026-01-01"))
    with packing_of():
        assert packing.pack(root, WEEK).increments == 0
    erasures.write(root, Erasure(DATASTORE, "hash", (), "2026-01-01", "2026-01-02"))
    with packing_of():
        assert packing.pack(root, WEEK).increments == 4


def test_an_erasure_that_begins_meanwhile_discards_the_packed_file(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = search(root, *range(4))
    ended = Erasure(DATASTORE, "hash", (), "2026-01-01", "2026-01-02")
    known = iter([[ended], [ended, replace(ended, erased_at=None)]])
    monkeypatch.setattr(erasures, "read", lambda _: next(known))
    with packing_of():
        assert packing.pack(root, WEEK).increments == 0
    assert files.listed(root) == paths


def test_a_damaged_increment_is_not_packed(root: Root) -> None:
    paths = search(root, *range(5))
    whole = Path(root.path(paths[2])).read_bytes()
    Path(root.path(paths[2])).write_bytes(whole[: len(whole) // 2])
    middle = Path(root.path(paths[3])).read_bytes()
    begin = middle.find(b"PAR1") + 4
    Path(root.path(paths[3])).write_bytes(middle[:begin] + b"\xff" * 400 + middle[begin + 400 :])
    with packing_of():
        assert packing.pack(root, WEEK).increments == 3
    packing.delete_copied(root)
    assert single(root) == paths[2:4]


def test_a_damaged_packed_file_is_found_and_set_aside(root: Root) -> None:
    search(root, *range(5))
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    searched = coverage.read(root)
    (pack,) = packs(root)
    assert intact.altered_increments(root, searched) == {}
    assert not files.is_damaged(root, pack)
    content = Path(root.path(pack)).read_bytes()
    for damaged, is_seen in ((b"", True), (content[:-9], False), (content[:99], False)):
        Path(root.path(pack)).write_bytes(damaged)
        assert list(intact.altered_increments(root, searched)) == [pack] * is_seen
        assert list(intact.altered_increments(root, searched, verify=True)) == [pack]
        assert files.is_damaged(root, pack)
        with pytest.raises(DamagedFile, match="set-aside"):
            files.paths(root)
    files.set_aside(root, pack)
    assert files.paths(root) == []
    assert files.paths_set_aside(root, DATASTORE) == [f"{pack}.damaged"]
    assert len(intact.altered_increments(root, searched)) == 5, "all are missing"
    assert set(intact.altered_increments(root, searched).values()) == {intact.IS_MISSING}


def test_a_packed_file_of_another_name_is_damaged(root: Root) -> None:
    search(root, *range(3))
    with packing_of():
        packing.pack(root, WEEK)
    (pack,) = packs(root)
    for other in (pack.replace("~3.", "~4."), pack.replace("~3.parquet", ".parquet")):
        root.move(pack, other)
        with pytest.raises(DamagedFile):
            increments(root)
        root.move(other, pack)


def test_a_lost_increment_is_missed_beside_packed_ones(root: Root) -> None:
    search(root, *range(5))
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    (late,) = search(root, 7)
    root.delete(late)
    for verify in (False, True):
        lost = intact.altered_increments(root, coverage.read(root), verify=verify)
        assert lost == {late: intact.IS_MISSING}


def test_packed_files_of_an_older_release_are_upgraded(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(root, *range(3), gone=[1])
    with packing_of():
        packing.pack(root, WEEK)
    packing.delete_copied(root)
    before = tables(root)
    monkeypatch.setattr(schema, "FORMAT_VERSION", schema.FORMAT_VERSION + 1)
    search(root, 8, 9)
    with packing_of():
        packing.pack(root, WEEK)
    assert len(packs(root)) == 3, "formats are not mixed"
    older_format.upgrade(root, files.paths(root))
    for path in files.paths(root):
        if files.axis_of(path) not in kinds.STATELESS_AXES:
            footer = files.read_footer(root, path).decode()
            assert f'"format": {schema.FORMAT_VERSION}' in footer
    assert len(rebuilt(root)[0]) > len(before[0])
    states = increments(root)
    assert sum(len(rows) for _, rows in states.values()) == 3 * 2 + 3 + 2 * 2


def test_the_rows_lie_in_few_row_groups(root: Root) -> None:
    search(root, *range(30))
    with packing_of():
        packing.pack(root, WEEK)
    (pack,) = packs(root)
    metadata = pq.read_metadata(root.path(pack))
    assert (metadata.num_row_groups, metadata.num_rows) == (1, 60)
    records = files.read_records(root, pack)
    assert records == [replace(record) for record, _ in files.read_increments(root, pack)]
