"""Headers published little by little are the same as published all at once."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import read, write_headers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import examples
from looks import DATASTORE, Looked, write

import cohortlake
from cohortlake import Settings
from cohortlake.admin import checks
from cohortlake.headers import merge
from cohortlake.history import image_sets
from cohortlake.privacy import Treatment, built_in
from cohortlake.publish import publisher
from cohortlake.schema import UNDATED
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
MONTHS = {"20240105": "2024-01", "20250207": "2025-02", "": UNDATED}
NUMBERS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), NUMBERS, st.sampled_from(sorted(MONTHS))),
        st.tuples(st.just("fetch"), NUMBERS, st.booleans()),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("publish")),
    ),
    min_size=3,
    max_size=9,
)


class Lake:
    """A lake of four image sets, and what a step does to it."""

    def __init__(self, folder: str, policy: str) -> None:
        self.root = Root(folder)
        self.root.prepare()
        self.policy = built_in(policy)
        self.now = START
        self.thickness = ""
        self.versions: dict[int, int] = {}
        self.days: dict[int, str] = {}

    def do(self, kind: str, *given: object) -> None:
        self.now += timedelta(minutes=1)
        getattr(self, kind)(*given)

    def see(self, number: int, day: str) -> None:
        self.versions[number] = self.versions.get(number, 0) + 1
        self.days[number] = day
        found = {
            "imageSetId": f"{number:032x}",
            "version": self.versions[number],
            "createdAt": START,
            "updatedAt": self.now,
            "isPrimary": number < 3,  # the last one repeats the series of the one before
            "DICOMTags": {
                "DICOMPatientId": f"P{number % 2}",
                "DICOMStudyInstanceUID": f"1.{number % 2}",
                "DICOMSeriesInstanceUID": f"1.{number % 2}.{min(number, 2)}",
                "DICOMStudyDate": day,
            },
        }
        self._apply(Looked(self.now, [found]))

    def delete(self, number: int) -> None:
        if self.days.pop(number, None) is not None:
            self._apply(Looked(self.now, gone=[f"{number:032x}"]))

    def fetch(self, number: int, is_thin: bool) -> None:
        if number in self.days:
            key = f"{number:032x}", self.versions[number]
            thickness = self.thickness or ("1" if is_thin else "5")
            header = read({"SliceThickness": thickness}, {"SliceThickness": thickness})
            month = MONTHS[self.days[number]]
            write_headers(self.root, DATASTORE, month, {key: header})

    def publish(self) -> None:
        publisher.publish(self.root, self.policy)

    def shown(self) -> list[dict[str, object]]:
        paths = self.root.files("published/series_headers", ".parquet")
        rows = [row for path in paths for row in pq.read_table(self.root.path(path)).to_pylist()]
        return sorted(rows, key=lambda row: str(row["image_set_id"]))

    def _apply(self, look: Looked) -> None:
        image_sets.apply(self.root, write(self.root, [look]))


@pytest.mark.parametrize("policy", ["limited", "safe"])
@settings(max_examples=examples(20, quick=2))
@given(steps=STEPS)
@example(steps=[("see", 2, ""), ("see", 3, ""), ("fetch", 3, True), ("delete", 2), ("publish",)])
@example(
    steps=[("see", 0, "20240105"), ("fetch", 0, True), ("publish",), ("see", 0, "20250207"),
           ("publish",), ("fetch", 0, False)]
)  # fmt: skip
def test_little_by_little_is_all_at_once(policy: str, steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder, policy)
        for kind, *given_ in steps:
            lake.do(str(kind), *given_)
        if not lake.versions:
            return
        lake.publish()
        little_by_little = lake.shown()
        publisher.request_full_publish(lake.root)
        lake.publish()
        assert lake.shown() == little_by_little
        with cohortlake.open(folder) as opened:
            query = "SELECT image_set_id FROM series"
            series = {row[0] for row in opened.sql(query).fetchall()}
        for row in little_by_little:
            number = int(str(row["image_set_id"]), 16)
            assert (row["image_set_id"] in series, row["version"]) == (True, lake.versions[number])


def test_a_header_is_read_once_and_files_without_news_stay(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "limited")
    for number, day in enumerate(("20240105", "20250207")):
        lake.do("see", number, day)
        lake.do("fetch", number, True)
    lake.publish()
    paths = lake.root.files("published/series_headers", ".parquet")
    assert len(paths) == 2
    before = {path: Path(lake.root.path(path)).stat().st_mtime_ns for path in paths}
    again = publisher.publish(lake.root, lake.policy)
    assert again
    assert {path: Path(lake.root.path(path)).stat().st_mtime_ns for path in paths} == before
    lake.do("see", 2, "20250207")
    lake.do("fetch", 2, False)
    lake.publish()
    changed = [p for p in paths if Path(lake.root.path(p)).stat().st_mtime_ns != before[p]]
    assert changed == ["published/series_headers/study_month=2025-02/series_headers.parquet"]
    assert [row["SliceThickness"] for row in lake.shown()] == [1.0, 1.0, 5.0]


def test_the_past_shows_the_header_of_its_version(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "limited")
    lake.do("see", 0, "20240105")
    first = lake.now
    lake.do("fetch", 0, True)
    lake.do("see", 1, "20240105")
    lake.do("fetch", 1, True)
    lake.do("see", 0, "20240105")  # its header is not fetched yet
    lake.publish()
    now = cohortlake.open(str(tmp_path))
    assert now.sql("SELECT image_set_id FROM series_headers").fetchall() == [(f"{1:032x}",)]
    with cohortlake.open(str(tmp_path), as_of=first + timedelta(minutes=3)) as past:
        rows = past.sql("SELECT image_set_id FROM series_headers").fetchall()
    assert rows == [(f"{1:032x}",)]
    assert isinstance(now.series_headers.to_arrow(), pa.Table)


def test_merged_files_are_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_FEWEST_SMALL_FILES", 2)
    lake = Lake(str(tmp_path), "limited")
    for number in range(3):
        lake.do("see", number, "20240105")
        lake.do("fetch", number, True)
    lake.publish()
    (path,) = lake.root.files("published/series_headers", ".parquet")
    before = Path(lake.root.path(path)).stat().st_mtime_ns
    assert merge.merge(lake.root, timedelta(0)).copied == 3
    lake.publish()
    assert merge.merge(lake.root, timedelta(0)).deleted == 3
    lake.publish()
    assert Path(lake.root.path(path)).stat().st_mtime_ns == before
    lake.do("see", 0, "20240105")
    lake.do("fetch", 0, False)
    lake.publish()
    assert [row["SliceThickness"] for row in lake.shown()] == [5.0, 1.0, 1.0]


def test_headers_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path), "limited")
    lake.do("see", 0, "20240105")
    lake.do("fetch", 0, True)
    listed = list[str]()
    real = Root.sizes

    def sizes(root: Root, folder: str, suffix: str) -> dict[str, int]:
        listed.append(folder)
        return real(root, folder, suffix)

    monkeypatch.setattr(Root, "sizes", sizes)
    lake.publish()
    assert [folder for folder in listed if folder.startswith("headers")] == ["headers"]


def test_a_policy_without_versions_shows_the_header_of_the_current_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "limited")
    withheld = dict.fromkeys(("version", "updated_at", "last_accessed_at"), Treatment.WITHHOLD)
    lake.policy = replace(lake.policy, columns=withheld)
    lake.do("see", 0, "20240105")
    lake.do("fetch", 0, True)
    lake.do("see", 1, "20250207")
    lake.do("fetch", 1, True)
    lake.publish()
    assert [row["SliceThickness"] for row in lake.shown()] == [1.0, 1.0]
    assert "version" not in lake.shown()[0]
    lake.do(
        "see", 0, "20240105"
    )  # its header is not fetched yet, and its published row is the same
    lake.publish()
    assert [row["image_set_id"] for row in lake.shown()] == [f"{1:032x}"]
    lake.do("fetch", 0, False)
    lake.publish()
    assert [row["SliceThickness"] for row in lake.shown()] == [5.0, 1.0]
    with cohortlake.open(str(tmp_path)) as opened:
        thin = opened.cohort("thin", level="series").where("SliceThickness <= 2")
        assert thin.count()["members"].tolist() == [1]


def test_values_that_cannot_be_read_are_counted_by_column(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "safe")
    for number, thickness in enumerate(["5 mm", "thin", "", "1.25"]):
        lake.thickness = thickness
        lake.do("see", number, "20240105")
        lake.do("fetch", number, True)
    lake.publish()
    settings = Settings((DATASTORE,), str(tmp_path), headers=frozenset(("ALL",)))
    counts = checks.check_headers(lake.root, settings).counts
    assert {name: n for name, n in counts.items() if "invalid" in name} == {
        "invalid_SliceThickness": 2
    }
    assert counts["share_with_header"] == 1
