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
from cohortlake.admin import checks, erase_patient, rebuild_tables
from cohortlake.errors import InstantError, NotShown
from cohortlake.headers import merge
from cohortlake.history import image_sets
from cohortlake.privacy import Treatment, built_in
from cohortlake.privacy.erasures import Patient
from cohortlake.publish import publisher, series_headers
from cohortlake.schema import UNDATED
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
MONTHS = {"20240105": "2024-01", "20250207": "2025-02", "": UNDATED}
INSTANTS = ("created_at", "updated_at", "valid_from", "valid_to", "observed_from", "observed_to")
POLICIES = {
    "limited": built_in("limited"),
    "safe": replace(built_in("safe"), columns=dict.fromkeys(INSTANTS, Treatment.KEEP)),
}
"""The built-in policies. `safe` does not show the past, so this one shows instants too."""
NUMBERS = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), NUMBERS, st.sampled_from(sorted(MONTHS))),
        st.tuples(st.just("fetch"), NUMBERS, st.booleans()),
        st.tuples(st.just("delete"), NUMBERS),
        st.tuples(st.just("reappear"), NUMBERS),
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
        self.policy = POLICIES[policy]
        self.now = START
        self.thickness = ""
        self.versions: dict[int, int] = {}
        self.days: dict[int, str] = {}
        self.found: dict[int, dict[str, object]] = {}
        self.fetched: dict[tuple[int, int], str] = {}
        self.log: list[tuple[datetime, dict[int, int]]] = []

    def do(self, kind: str, *given: object) -> None:
        self.now += timedelta(minutes=1)
        getattr(self, kind)(*given)
        self.log.append((self.now, {number: self.versions[number] for number in self.days}))

    def see(self, number: int, day: str) -> None:
        self.versions[number] = self.versions.get(number, 0) + 1
        self.days[number] = day
        same = min(number, 2)  # the last one repeats the series of the one before
        self.found[number] = {
            "imageSetId": f"{number:032x}",
            "version": self.versions[number],
            "createdAt": START,
            "updatedAt": self.now,
            "isPrimary": number < 3,
            "DICOMTags": {
                "DICOMPatientId": f"P{same % 2}",
                "DICOMStudyInstanceUID": f"1.{same % 2}",
                "DICOMSeriesInstanceUID": f"1.{same % 2}.{same}",
                "DICOMStudyDate": day,
            },
        }
        self._apply(Looked(self.now, [self.found[number]]))

    def delete(self, number: int) -> None:
        if self.days.pop(number, None) is not None:
            self._apply(Looked(self.now, gone=[f"{number:032x}"]))

    def reappear(self, number: int) -> None:
        if number in self.found and number not in self.days:
            self.days[number] = self.found[number]["DICOMTags"]["DICOMStudyDate"]  # type: ignore[index]
            self._apply(Looked(self.now, [self.found[number]]))

    def fetch(self, number: int, is_thin: bool) -> None:
        if number in self.days:
            version = self.versions[number]
            key = f"{number:032x}", version
            thickness = self.thickness or ("1" if is_thin else "5")
            header = read({"SliceThickness": thickness}, {"SliceThickness": thickness})
            month = MONTHS[self.days[number]]
            if (number, version) not in self.fetched:
                self.fetched[number, version] = thickness
                write_headers(self.root, DATASTORE, month, {key: header})

    def publish(self) -> tuple[str, ...]:
        """Publish, and return the files of headers that were written."""
        publication = publisher.publish(self.root, self.policy)
        return tuple(p for p in publication.written if "_headers/" in p) if publication else ()

    def shown(self, table: str = "series_headers") -> list[dict[str, object]]:
        paths = self.root.files(f"published/{table}", ".parquet")
        rows = [row for path in paths for row in pq.read_table(self.root.path(path)).to_pylist()]
        return sorted(rows, key=lambda row: (str(row["image_set_id"]), row.get("version")))

    def headers_at(self, at: datetime) -> set[tuple[str, int, float]]:
        """Compute the header of each series at an instant from all that was seen and fetched."""
        present = max((step for step in self.log if step[0] <= at), key=lambda step: step[0])[1]
        if 2 in present:  # it represents the series of both
            present = {number: version for number, version in present.items() if number != 3}
        return {
            (f"{number:032x}", version, float(self.fetched[number, version]))
            for number, version in present.items()
            if (number, version) in self.fetched
        }

    def _apply(self, look: Looked) -> None:
        image_sets.apply(self.root, write(self.root, [look]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(20, quick=1))
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
        little_by_little = lake.shown(), lake.shown("earlier_headers")
        rebuild_tables.rebuild_tables(lake.root, Settings((DATASTORE,), folder))
        publisher.request_full_publish(lake.root)
        lake.publish()
        assert (lake.shown(), lake.shown("earlier_headers")) == little_by_little
        both = [(row["image_set_id"], row["version"]) for rows in little_by_little for row in rows]
        assert sorted(both) == sorted((f"{n:032x}", version) for n, version in lake.fetched)
        with cohortlake.open(folder) as opened:
            assert _thicknesses(opened) == lake.headers_at(lake.now)
        first = next(number for number, (_, present) in enumerate(lake.log) if present)
        for at, _ in lake.log[first:]:
            with cohortlake.open(folder, as_of=at) as opened:
                assert _thicknesses(opened) == lake.headers_at(at)


def _thicknesses(lake: cohortlake.Lake) -> set[tuple[str, int, float]]:
    query = """
        SELECT image_set_id, version, SliceThickness
        FROM series_headers JOIN series USING (datastore_id, image_set_id)
    """
    rows = lake.sql(query).fetchall()
    assert len(rows) == lake.sql("SELECT count(*) FROM series_headers").fetchall()[0][0]
    return set(rows)


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
    lake.do("fetch", 0, True)
    lake.do("see", 1, "20240105")
    lake.publish()
    before = lake.now
    lake.do("see", 0, "20250207")
    lake.publish()  # the header of its second version is not fetched yet
    assert (lake.shown(), len(lake.shown("earlier_headers"))) == ([], 1)
    lake.do("fetch", 0, False)
    lake.publish()
    now = cohortlake.open(str(tmp_path))
    cohort = now.cohort("thin", level="series").where("SliceThickness <= 2")
    assert len(cohort) == 0
    with cohortlake.open(str(tmp_path), as_of=before) as past:
        assert _thicknesses(past) == {(f"{0:032x}", 1, 1.0)}
        cohort = past.cohort("thin", level="series").where("SliceThickness <= 2")
        assert cohort.members.to_pandas()["StudyDate"].astype(str).tolist() == ["2024-01-05"]
        assert past.earlier_headers.to_arrow().num_rows == 1
    frame = now.table("series_headers", as_of=before)
    assert frame["SliceThickness"].tolist() == [1.0]
    with pytest.raises(InstantError, match="'earlier_headers' is of all times"):
        now.table("earlier_headers", as_of=before)
    assert isinstance(now.series_headers.to_arrow(), pa.Table)


def test_only_headers_that_changed_are_written(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "limited")
    for number, day in enumerate(("20240105", "20250207", "20240105")):
        lake.do("see", number, day)
        lake.do("fetch", number, True)
    lake.publish()
    lake.do("see", 0, "20240105")
    name = "published/{0}_headers/study_month=2024-01/{0}_headers.parquet"
    assert lake.publish() == (name.format("series"), name.format("earlier"))
    lake.do("see", 3, "20250207")  # without a header
    assert lake.publish() == ()
    lake.do("fetch", 0, False)
    assert lake.publish() == (name.format("series"),)


def test_a_period_of_many_headers_is_written_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_headers, "_ROWS", 2)
    lake = Lake(str(tmp_path), "limited")
    for number in (4, 2, 0, 1, 3, 1, 1):
        lake.do("see", number, "20240105")
        lake.do("fetch", number, True)
    lake.publish()
    written = [pq.read_table(tmp_path / path) for path in lake.root.files("published", "s.parquet")]
    keys = {
        len(table): table.select(["image_set_id", "version"]).to_pylist()
        for table in written
        if "SliceThickness" in table.column_names
    }
    versions = {3: [(0, 1), (1, 3), (2, 1)], 4: [(1, 1), (1, 2), (3, 1), (4, 1)]}
    assert keys == {
        size: [{"image_set_id": f"{n:032x}", "version": version} for n, version in rows]
        for size, rows in versions.items()
    }


def test_of_several_periods_some_have_no_file_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_headers, "_ROWS", 1)  # one after the other
    lake = Lake(str(tmp_path), "limited")
    for number, day in enumerate(("20240105", "20240105", "20250207")):
        lake.do("see", number, day)
        lake.do("fetch", number, True)
        if number != 1:
            lake.publish()
    assert [row["SliceThickness"] for row in lake.shown()] == [1.0] * 3


def test_an_erased_patient_has_no_earlier_header(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "limited")
    for number in (0, 1):
        lake.do("see", number, "20240105")
        lake.do("fetch", number, True)
        lake.do("see", number, "20250207")
    lake.publish()
    assert len(lake.shown("earlier_headers")) == 2
    settings = Settings((DATASTORE,), str(tmp_path))
    erase_patient.erase(lake.root, settings, Patient(DATASTORE, "P0"), lake.publish)
    assert [row["image_set_id"] for row in lake.shown("earlier_headers")] == [f"{1:032x}"]


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
    with pytest.raises(NotShown, match="found by `version`"):
        cohortlake.open(str(tmp_path), as_of=lake.now)


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
