"""Laws of publishing: what changed is published as if all had been, and nothing else is written."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from looks import Looked, write

from cohortlake.lake import image_sets, publish
from cohortlake.lake.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)

CHANGE = st.fixed_dictionaries(
    {
        "number": st.integers(0, 5),
        "DICOMPatientId": st.sampled_from(["P1", "P2", "", None]),
        "DICOMPatientSex": st.sampled_from(["M", "F", "f", "?"]),
        "DICOMPatientBirthDate": st.sampled_from(["19800207", "1980", "20240206", None]),
        "DICOMSeriesBodyPart": st.sampled_from(["CHEST", "chest", "KNEES", None]),
        "DICOMStudyInstanceUID": st.sampled_from(["1.1", "1.2", "1.3", "1.4", None]),
        "DICOMSeriesInstanceUID": st.sampled_from(["2.1", "2.2", "2.3", None]),
        "DICOMStudyDate": st.sampled_from(["20240105", "20240207", "20250311", "no date"]),
        "DICOMStudyTime": st.sampled_from(["08", "0930", None]),
        "isPrimary": st.booleans(),
    }
)
GONE = st.integers(0, 5)
STEPS = st.lists(
    st.tuples(st.lists(CHANGE, max_size=5), st.lists(GONE, max_size=1)), min_size=2, max_size=4
)


class Hospital:
    """Image sets that change step by step, and what a search would find."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.versions: dict[int, int] = {}
        self.at = START

    def step(self, changes: list[dict[str, Any]], gone: list[int]) -> None:
        """Live a step, and apply what a search and a sweep see of it."""
        self.at += timedelta(hours=1)
        seen = Looked(self.at, [self._summary(**change) for change in changes])
        swept = Looked(self.at + timedelta(minutes=1), gone=[_id(number) for number in gone])
        image_sets.apply(self.root, write(self.root, [seen, swept]))

    def _summary(self, number: int, *, isPrimary: bool, **tags: Any) -> dict[str, Any]:  # noqa: N803
        version = self.versions[number] = self.versions.get(number, 0) + 1
        return {
            "imageSetId": _id(number),
            "version": version,
            "createdAt": START,
            "updatedAt": self.at - timedelta(minutes=30, seconds=-version),
            "isPrimary": isPrimary,
            "DICOMTags": {name: value for name, value in tags.items() if value is not None},
        }


def _id(number: int) -> str:
    return f"{number:032x}"


def _published(root: Root) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each published file, sorted; the files that lie there, no others."""
    return {
        path: duckdb.sql(f"FROM '{root.path(path)}' ORDER BY ALL").to_arrow_table().to_pylist()
        for path in root.files("published", ".parquet")
    }


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


# Old studies come late, image sets go, patients and dates are corrected, all in any order.
@example([(SPEAKER_ELSEWHERE, []), (JANUARY_AGAIN, [])])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_publishing_what_changed_gives_what_publishing_all_gives(
    tmp_path_factory: Any, steps: list[tuple[list[dict[str, Any]], list[int]]]
) -> None:
    root = Root(str(tmp_path_factory.mktemp("lake")))
    root.prepare()
    hospital = Hospital(root)
    for changes, gone in steps:
        hospital.step(changes, gone)
        publish.publish(root, "identified")
    little_by_little = _published(root)

    shutil.rmtree(Path(root.path("published")))
    publish.publish(root, "identified")
    assert little_by_little == _published(root)


def test_only_the_months_of_what_changed_are_written(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_change(number) for number in range(6)], [])
    first = publish.publish(root, "safe")
    assert first is not None
    assert len(first.written) == len(first.files) == 4 * 3 + 1

    hospital.step([_change(1, DICOMPatientSex="F")], [])
    second = publish.publish(root, "safe")
    assert second is not None
    assert sorted(second.written) == [
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("history", "image_sets")),
        "published/patients/patients.parquet",
        *(f"published/{t}/study_month=2024-02/{t}.parquet" for t in ("series", "studies")),
    ]
    assert publish.publish(root, "safe") == publish.read_marker(root)
    untouched = [p for p in first.files if p not in second.written]
    assert all(second.files[path] == first.files[path] for path in untouched)


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
    publish.publish(root, "identified")
    assert _places(root) == [("1.0", 1, None), ("1.1", 2, 33), ("1.2", 3, 54), ("1.3", 1, None)]

    late = _change(4, DICOMPatientId="P1", DICOMStudyInstanceUID="1.4", DICOMStudyDate="20240110")
    hospital.step([late], [])
    second = publish.publish(root, "identified")
    assert second is not None
    assert _written_months(second, "studies") == ["2024-01", "2024-02", "2024-04"]
    for table in ("image_sets", "series", "history"):
        assert _written_months(second, table) == ["2024-01"]
    assert _places(root) == [
        ("1.0", 1, None), ("1.1", 3, 28), ("1.2", 4, 54), ("1.3", 1, None), ("1.4", 2, 5),
    ]  # fmt: skip

    hospital.step([late | {"DICOMStudyDescription": "amended"}], [])
    third = publish.publish(root, "identified")
    assert third is not None
    assert _written_months(third, "studies") == ["2024-01"], "no study has another place"

    hospital.step([], [0])
    fourth = publish.publish(root, "identified")
    assert fourth is not None
    assert _places(root) == [("1.1", 2, 28), ("1.2", 3, 54), ("1.3", 1, None), ("1.4", 1, None)]

    hospital.step([visits[2] | {"DICOMPatientId": "P2"}], [])
    fifth = publish.publish(root, "identified")
    assert fifth is not None
    assert _written_months(fifth, "studies") == ["2024-04", "2024-05"]
    assert _places(root) == [("1.1", 2, 28), ("1.2", 1, None), ("1.3", 2, 30), ("1.4", 1, None)]


def _written_months(publication: publish.Publication, table: str) -> list[str]:
    folders = [path.split("/")[-2:-1] for path in publication.written if f"/{table}/" in path]
    return sorted(folder.removeprefix("study_month=") for (folder,) in folders)


def test_a_compacted_memory_is_published_in_proportion_all_the_same(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_change(number) for number in range(6)], [])
    publish.publish(root, "safe")
    hospital.step([_change(1, DICOMPatientSex="F")], [])
    memory = DeltaTable(root.uri_of("image_sets"))
    assert memory.optimize.compact()["numFilesRemoved"] > 1
    compacted = publish.publish(root, "safe")
    assert compacted is not None
    assert len(compacted.written) == 5

    hospital.step([_change(2, DICOMPatientSex="F")], [])
    memory.update_incremental()
    memory.optimize.compact()
    memory.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    whole = publish.publish(root, "safe")
    assert whole is not None
    assert sorted(whole.written) == sorted(whole.files), "what was appended cannot be told any more"
