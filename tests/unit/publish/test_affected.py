"""A publication after few changes reads of the version history what the changes affect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from changing import Hospital

from cohortlake import read_table
from cohortlake.history import history_index
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.storage.root import Root


def _image_set(number: int, patient: str, day: str, **tags: Any) -> dict[str, Any]:
    return {
        "number": number,
        "isPrimary": True,
        "DICOMPatientId": patient,
        "DICOMStudyInstanceUID": f"1.{number}",
        "DICOMSeriesInstanceUID": f"2.{number}",
        "DICOMStudyDate": day,
        **tags,
    }


@pytest.mark.parametrize("policy", ["identified", "safe"])
def test_rows_of_other_months_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(history_index, "_SCAN_FACTOR", 0)  # as in a large lake
    root = Root(str(tmp_path))
    root.prepare()
    hospital = Hospital(root)
    hospital.step([_image_set(0, "P1", "20240105"), _image_set(1, "P2", "20240107")], [])
    (january,) = root.files("image_sets/row_kind=version", ".parquet")
    hospital.step([_image_set(2, "P1", "20240305")], [])
    publisher.publish(root, built_in(policy))
    # The rows of P1 are counted again, in January too.
    hospital.step([_image_set(2, "P1", "20240305", DICOMPatientSex="F")], [])
    hospital.step([_image_set(3, "P1", "20240307")], [])
    _damage_rows(Path(root.path(january)))
    publisher.publish(root, built_in(policy))
    patients = read_table(root.uri, "patients").sort_values("n_image_sets")
    assert patients["n_image_sets"].tolist() == [1, 3]
    assert patients["n_studies"].tolist() == [1, 3]
    studies = read_table(root.uri, "studies", ["study_ordinal"])
    assert sorted(studies["study_ordinal"]) == [1, 1, 2, 3]


def _damage_rows(path: Path) -> None:
    """Overwrite the rows of a Parquet file, and keep its footer."""
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(b"PAR1" + b"\xff" * (len(content) - footer - 4) + content[-footer:])
