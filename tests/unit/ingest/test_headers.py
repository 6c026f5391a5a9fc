"""Which headers are wanted, and what is written if a patient is erased meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from documents import read

from cohortlake.headers import files
from cohortlake.healthimaging import Datastore
from cohortlake.ingest.headers import fetch
from cohortlake.ingest.headers.choice import ALL_MODALITIES, HeaderChoice
from cohortlake.ingest.partition_search import SearchRun
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import ErasedPatients, Patient
from cohortlake.storage.files import Draft
from cohortlake.storage.root import Root

STORE = "d" * 32


@pytest.mark.parametrize(
    ("modality", "wanted", "is_wanted"),
    [
        ("CT", {"CT"}, True),
        ("PT\\CT", {"CT"}, True),
        ("PT\\CT", {"PT"}, True),
        ("PT\\CT", {"MR"}, False),
        ("PT\\CT", {"MR", "PT"}, True),
        ("CT\\CT", {"CT"}, True),
        ("MCT", {"CT"}, False),
        ("", {"CT"}, False),
        (None, {"CT"}, False),
        (None, ALL_MODALITIES, True),
    ],
)
def test_an_image_set_of_several_modalities_is_wanted_for_any_of_them(
    modality: str | None, wanted: set[str], is_wanted: bool
) -> None:
    columns = {"Modality": pa.array([modality], pa.string()), "image_set_id": pa.array(["a"])}
    assert HeaderChoice(frozenset(wanted)).mask(pa.table(columns)).to_pylist() == [is_wanted]


def test_no_state_at_all() -> None:
    columns = {"Modality": pa.array([], pa.string()), "image_set_id": pa.array([], pa.string())}
    assert HeaderChoice(frozenset(("CT",))).mask(pa.table(columns)).to_pylist() == []


def reading(number: int) -> fetch._Reading:
    header = read({"KVP": "120"})
    header._levels["Patient"] = {"PatientID": f"P{number}"}
    return fetch._Reading("2024-01", f"{number:032x}", 1, False, row=fetch.row_of(header))


@pytest.mark.parametrize("instant", ["since the run began", "before the look", "after it"])
def test_a_patient_who_is_erased_meanwhile_gets_no_header(
    instant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Root(str(tmp_path))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store, erased = Datastore(STORE, now, now), ErasedPatients(root)
    assert erased.is_empty, "it has read the list"
    run = SearchRun(root, cast("Any", None), store, erased, "run", timedelta(0))
    keep: Callable[[Draft], None] = Draft.keep

    def erase() -> None:
        monkeypatch.setattr(Draft, "keep", keep)
        patient = Patient(STORE, "P1")
        erasures.begin(root, patient, ["P1"], bytes(32))
        for path in Path(root.path("headers")).rglob(".*.tmp"):
            path.unlink()
        for path in files.paths(root):
            files.remove_rows(root, path, lambda rows: pa.compute.equal(rows["PatientID"], "P1"))

    def kept(draft: Draft) -> None:
        look = draft._unless
        assert look

        def looked() -> bool:
            if instant == "before the look":
                erase()
            answer = look()
            if instant == "after it":
                erase()
            return answer

        draft._unless = looked
        keep(draft)

    if instant == "since the run began":
        erase()
    else:
        monkeypatch.setattr(Draft, "keep", kept)
    writer = fetch._Writer(run)
    for number in range(3):
        assert not list(writer.add(reading(number)))
    result = writer.write()
    assert (result.headers, result.erased) == (2, 1)
    (path,) = files.paths(root)
    (rows,) = files.read(root, path)
    assert rows["PatientID"].to_pylist() == ["P0", "P2"]
