"""A published file: rows are replaced, all others are kept, and the order stays."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortlake.errors import DamagedFile
from cohortlake.publish import parquet_file
from cohortlake.publish.parquet_file import Entities, replace_rows, write
from cohortlake.storage.root import Root

COLUMNS = pa.schema(
    [
        *(("datastore_id", pa.string()), ("StudyInstanceUID", pa.string())),
        *(("Modality", pa.string()), ("number", pa.int64()), ("names", pa.list_(pa.string()))),
    ]
)
ORDER = ("Modality", "number")
PATH = "published/studies/study_month=2024-03/studies.parquet"

# A study has rows in one data store, may have no UID, and rows of two studies have one place.
rows = st.builds(
    lambda store, uid, modality, number, names: {
        "datastore_id": store,
        "StudyInstanceUID": uid,
        "Modality": modality,
        "number": number,
        "names": names,
    },
    st.sampled_from("ab"),
    st.sampled_from(["1.2", "1.3", "1.4", None]),
    st.sampled_from(["CT", "MR", None]),
    st.integers(0, 9) | st.none(),
    st.lists(st.sampled_from("xy"), max_size=2),
)
lists = st.lists(rows, max_size=30)


def place(row: dict[str, Any]) -> tuple[Any, ...]:
    none = {"Modality": "", "number": 0}  # nulls come last
    return tuple((row.get(name) is None, row.get(name) or none[name]) for name in ORDER)


def table(given_rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(sorted(given_rows, key=place), COLUMNS)


def content(root: Root) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.ParquetFile(root.path(PATH)).read().to_pylist()
    return found


def as_set(some: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, some))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(str(tmp_path_factory.mktemp("lake")))


@settings(max_examples=150, deadline=None)
@given(lists, lists, st.integers(1, 8), st.integers(1, 9), st.integers(1, 20))
def test_the_rows_of_some_studies_are_replaced_and_all_others_kept(
    root: Root,
    before: list[dict[str, Any]],
    new: list[dict[str, Any]],
    group: int,
    piece: int,
    compared: int,
) -> None:
    keys = {(row["datastore_id"], row["StudyInstanceUID"]) for row in [*new, *before[:2]]}
    replaced = Entities(
        pa.table(
            {
                "datastore_id": pa.array([store for store, _ in keys], pa.string()),
                "StudyInstanceUID": pa.array([uid for _, uid in keys], pa.string()),
            }
        )
    )
    kept = [row for row in before if (row["datastore_id"], row["StudyInstanceUID"]) not in keys]
    new_rows = table(new)
    pieces = [new_rows.slice(start, piece) for start in range(0, len(new), piece)]
    with (
        mock.patch.object(parquet_file, "ROW_GROUP_ROWS", group),
        mock.patch.object(parquet_file, "_COMPARED_ROWS", compared),
    ):
        written = write(root, PATH, COLUMNS, [table(before)])
        after = replace_rows(root, PATH, written, COLUMNS, ORDER, replaced, pieces)
    found = content(root)
    assert as_set(found) == as_set([*kept, *new])
    assert [place(row) for row in found] == sorted(place(row) for row in found)
    is_as_it_was = after is None
    assert not (is_as_it_was and as_set(before) != as_set(found))
    if after:
        assert (after.rows, after.size_bytes) == (len(found), root.sizes("published", "")[PATH])


def test_the_same_rows_leave_the_file_as_it_is(root: Root) -> None:
    before = [
        {"datastore_id": "a", "StudyInstanceUID": f"1.{n}", "Modality": "CT", "number": n}
        for n in range(9)
    ]
    written = write(root, PATH, COLUMNS, [table(before)])
    keys = {"datastore_id": pa.array(["a", "b"]), "StudyInstanceUID": pa.array(["1.4", "1.5"])}
    of_first = [table([before[4]])]
    entities = Entities(pa.table(keys))
    assert replace_rows(root, PATH, written, COLUMNS, ORDER, entities, of_first) is None
    other = [table([before[4] | {"names": ["x"]}])]
    assert replace_rows(root, PATH, written, COLUMNS, ORDER, entities, other) is not None


def test_a_study_is_one_of_its_data_store(root: Root) -> None:
    both = [{"datastore_id": s, "StudyInstanceUID": "1.2", "number": 1} for s in "ab"]
    written = write(root, PATH, COLUMNS, [table(both)])
    keys = {"datastore_id": pa.array(["b"]), "StudyInstanceUID": pa.array(["1.2"])}
    replace_rows(root, PATH, written, COLUMNS, ORDER, Entities(pa.table(keys)), ())
    assert [row["datastore_id"] for row in content(root)] == ["a"]


def test_row_groups_stay_of_one_size(root: Root) -> None:
    before = [{"datastore_id": "a", "StudyInstanceUID": f"{n}", "number": n} for n in range(0, 90)]
    keys = {"datastore_id": pa.array(["a"]), "StudyInstanceUID": pa.array(["x"])}
    new = [{"datastore_id": "a", "StudyInstanceUID": "x", "number": n} for n in (3, 3, 44)]
    with mock.patch.object(parquet_file, "ROW_GROUP_ROWS", 30):
        written = write(root, PATH, COLUMNS, [table(before)])
        replace_rows(root, PATH, written, COLUMNS, ORDER, Entities(pa.table(keys)), [table(new)])
    file = pq.ParquetFile(root.path(PATH)).metadata
    groups = [file.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [30, 30, 30, 3]


def test_rows_of_a_file_that_changed_are_not_kept(root: Root) -> None:
    written = write(root, PATH, COLUMNS, [table([{"datastore_id": "a", "number": 1}])])
    write(root, PATH, COLUMNS, [table([{"datastore_id": "a", "number": 2}])])
    keys = {"datastore_id": pa.array(["a"]), "StudyInstanceUID": pa.array(["x"])}
    with pytest.raises(DamagedFile):
        replace_rows(root, PATH, written, COLUMNS, ORDER, Entities(pa.table(keys)), ())
    assert [row["number"] for row in content(root)] == [2]


@pytest.mark.parametrize(("rows", "codec"), [(3, "SNAPPY"), (5000, "ZSTD")])
def test_ids_and_times_have_no_dictionary(root: Root, rows: int, codec: str) -> None:
    columns = pa.schema(
        [("image_set_id", pa.string()), ("Modality", pa.string()),
         ("created_at", pa.timestamp("us", "UTC"))]
    )  # fmt: skip
    values = (map(str, range(rows)), ["CT"] * rows, range(rows))
    arrays = [pa.array(list(v), f.type) for v, f in zip(values, columns, strict=True)]
    write(root, PATH, columns, [pa.Table.from_arrays(arrays, schema=columns)])
    group = pq.ParquetFile(root.path(PATH)).metadata.row_group(0)
    dictionaries = [group.column(number).has_dictionary_page for number in range(3)]
    assert dictionaries == [False, True, False]
    assert {group.column(number).compression for number in range(3)} == {codec}
