"""One patient, study, series or code that is sent in several spellings is one."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from endpoint import DATASTORE, Endpoint
from filled import FilledLake, filled

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.errors import NoSuchPatient, UnknownValue

# PatientID, StudyInstanceUID, Modality of a series each; study 1.2.n is of patient Pn.
SENT = [
    ("P1", "1.2.1", "CT"),
    ("P1 ", "1.2.1", "CT "),
    (" P1", "1.2.1\0", "ct"),
    ("P1\\", "1.2.1 ", "PT\\CT"),
    ("P1\\P1", "1.2.1\\1.2.1", "MR"),
    *itertools.chain.from_iterable(
        [(f"P{n}", f"1.2.{n}", "CT"), (f" P{n}\0", f"1.2.{n} ", "MR")] for n in range(2, 21)
    ),
    ("  ", "1.2.99", "US"),
    ("\\", "1.2.98", ""),
]


def _summary(number: int, at: float, patient: str, study: str, modality: str) -> dict[str, Any]:
    tags = {
        "DICOMPatientId": patient,
        "DICOMPatientSex": "f" if number == 2 else "F ",
        "DICOMStudyInstanceUID": study,
        "DICOMSeriesInstanceUID": f"1.3.{number}",
        "DICOMSeriesModality": modality,
        "DICOMStudyDate": "20250110",
        "DICOMStudyTime": "101500",
        "DICOMAccessionNumber": f" A{study.strip(' ')[:5]}",
    }
    return {"imageSetId": f"{number:032x}", "version": 1, "createdAt": at, "updatedAt": at,
            "DICOMTags": tags}  # fmt: skip


@pytest.fixture(scope="module")
def spelled_lake(tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    return filled(tmp_path_factory.mktemp("spelled"), _fill)


def _fill(endpoint: Endpoint, sync: Sync) -> None:
    for number, row in enumerate(SENT):
        at = endpoint.created_at + 60 * number
        endpoint.image_sets.append(_summary(number, at, *row))
    sync.run()


@pytest.fixture
def settings(spelled_lake: FilledLake, endpoint: Endpoint, lake_settings: Settings) -> Settings:
    """The settings of the test's own copy."""
    spelled_lake.copy_to(lake_settings.root, endpoint)
    return lake_settings


def test_they_are_one_in_every_table(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        (patients,) = lake.sql(
            "SELECT count(*), count(DISTINCT patient_key) FROM patients"
        ).fetchall()
        assert patients == (20, 20)
        assert lake.sql("SELECT count(*) FROM studies").fetchall() == [(22,)]
        first = lake.sql("SELECT * FROM studies WHERE StudyInstanceUID = '1.2.1'").to_pandas()
        assert first["n_series"].tolist() == [5]
        assert list(first["modalities"].iloc[0]) == ["CT", "MR", "PT"]
        nobody = lake.sql("SELECT count(*) FROM series WHERE patient_key IS NULL").fetchall()
        assert nobody == [(2,)]


def test_a_code_is_found_however_it_is_spelled(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        series = lake.cohort("ct", level="series")
        assert len(series.where(Modality="CT").to_arrow()) == 4 + 19
        assert len(series.where(Modality="PT").to_arrow()) == 1
        assert len(series.where(Modality=["MR", "PT"]).to_arrow()) == 2 + 19
        assert len(series.where(Modality=" ct").to_arrow()) == 4 + 19
        assert len(series.exclude(Modality="CT").to_arrow()) == 1 + 19
        assert len(lake.cohort("pt").where(Modality="PT").to_arrow()) == 1
        with pytest.raises(UnknownValue):
            series.where(Modality="XA")
        statuses = dict(
            lake.sql("SELECT modality_status, count(*) FROM series GROUP BY 1").fetchall()
        )
        assert statuses == {"ok": 42, "respelled": 1, "several": 1, "missing": 1}
        sexes = dict(lake.sql("SELECT sex_status, count(*) FROM series GROUP BY 1").fetchall())
        assert sexes == {"ok": 44, "respelled": 1}


def test_no_patient_is_in_two_parts_or_left_out(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        drawn = lake.cohort("split", level="series").split(train=0.5, test=0.5).to_pandas()
    assert len(drawn) == len(SENT) - 2
    assert set(drawn.groupby("patient_key")["split"].nunique()) == {1}
    assert drawn["patient_key"].nunique() == 20


def test_a_change_of_spelling_is_no_correction(endpoint: Endpoint, settings: Settings) -> None:
    endpoint.now += timedelta(days=1)
    changes: list[dict[str, str]] = [
        {"DICOMPatientId": "P1  "},
        {"DICOMPatientSex": "F"},
        {"DICOMStudyDate": "2025.01.10"},
        {"DICOMPatientId": "P1", "DICOMPatientSex": "M"},
    ]
    for row, tags in zip(endpoint.image_sets, changes, strict=False):
        row |= {"version": 2, "updatedAt": endpoint.now.timestamp() - 3600}
        row["DICOMTags"] = row["DICOMTags"] | tags
    Sync(settings).run()
    history = cohortlake.read_table(settings.root, "history")
    kinds = history[history["change"] == "updated"].sort_values("image_set_id")["kind"]
    assert kinds.tolist() == ["updated", "updated", "updated", "demographic"]


@pytest.mark.parametrize(
    "spelled",
    [
        "P2",
        pytest.param("P2 ", marks=pytest.mark.chaos),
        pytest.param("\\P2", marks=pytest.mark.chaos),
        "P2\\P2\0",
    ],
)
def test_an_erasure_takes_every_spelling(
    endpoint: Endpoint, settings: Settings, spelled: str
) -> None:
    erased = Sync(settings).erase(spelled, DATASTORE)
    assert erased.image_sets == 2
    endpoint.now += timedelta(days=1)
    at = endpoint.now.timestamp() - 3600
    endpoint.image_sets.append(_summary(900, at, "P2\\ P2", "1.2.2", "CT"))
    Sync(settings).run()
    with cohortlake.open(settings.root) as lake:
        assert lake.sql(
            "SELECT count(*) FROM series WHERE SeriesInstanceUID = '1.3.900'"
        ).fetchall() == [(0,)]
        assert lake.sql("SELECT count(*) FROM patients").fetchall() == [(19,)]


def test_a_blank_id_is_nobody(settings: Settings) -> None:
    for blank in ("", "  ", "\\", "\0"):
        with pytest.raises(NoSuchPatient):
            Sync(settings).erase(blank, DATASTORE)
