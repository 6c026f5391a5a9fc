"""A small hospital that changes at random, step by step, for the laws of publishing."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
from hypothesis import strategies as st
from looks import Looked, write

from cohortlake.history import image_sets
from cohortlake.storage.root import Root

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
        "isPrimary": st.sampled_from([True, False, None]),
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
        swept = Looked(
            self.at + timedelta(minutes=1), gone=[image_set_id(number) for number in gone]
        )
        image_sets.apply(self.root, write(self.root, [seen, swept]))

    def copy_to(self, folder: str) -> Hospital:
        """Return the same hospital with a copy of its lake, for a test that changes both."""
        copied = Hospital(Root(shutil.copytree(self.root.path(), folder)))
        copied.versions, copied.at = {**self.versions}, self.at
        return copied

    def _summary(self, number: int, *, isPrimary: bool | None, **tags: Any) -> dict[str, Any]:  # noqa: N803
        version = self.versions[number] = self.versions.get(number, 0) + 1
        said = {} if isPrimary is None else {"isPrimary": isPrimary}
        return {
            "imageSetId": image_set_id(number),
            "version": version,
            "createdAt": START,
            "updatedAt": self.at - timedelta(minutes=30, seconds=-version),
            **said,
            "DICOMTags": {name: value for name, value in tags.items() if value is not None},
        }


def image_set_id(number: int) -> str:
    """Return the id of an image set."""
    return f"{number:032x}"


def published_rows(root: Root) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each published file that has any, sorted; of the files that lie there."""
    rows = {
        path: duckdb.sql(f"FROM '{root.path(path)}' ORDER BY ALL").to_arrow_table().to_pylist()
        for path in root.files("published", ".parquet")
    }
    return {path: found for path, found in rows.items() if found}
