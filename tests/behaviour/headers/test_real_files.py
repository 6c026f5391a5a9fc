"""Real files, imported by the emulator and fetched: what is published is what pydicom reads."""

from __future__ import annotations

import math
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from emulated import emulated, fill_lake
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

import cohortlake
from cohortlake.ingest.headers.choice import HeaderChoice
from cohortlake.schema import header_columns

FOLDERS = (
    Path(pydicom.data.__file__).parent / "test_files",
    Path(__file__).parents[2] / "fixtures" / "highdicom",
)
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
DERIVED = {
    "SegmentationStorage",
    "ParametricMapStorage",
    "Comprehensive3DSRStorage",
    "MicroscopyBulkSimpleAnnotationsStorage",
    "SecondaryCaptureImageStorage",
    "VLWholeSlideMicroscopyImageStorage",
    "DigitalXRayImageStorageForPresentation",
}
"""What algorithms and workstations make of images, and what else pydicom has no files of."""
NUMBERS = ("DS", "FD", "FL", "IS", "US")


def read(path: Path) -> Dataset | None:
    """Return a file that has all three identifiers, as pydicom reads it."""
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True)
        uids = [found.get(f"{level}InstanceUID") for level in ("Study", "Series", "SOP")]
        return found if all(uids) else None
    except Exception:
        return None


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return the dataset of a file of each series, and its row of `series_headers`."""
    folder = tmp_path_factory.mktemp("real")
    datasets: dict[tuple[str, str], Dataset] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in (path for own in FOLDERS for path in sorted(own.glob("*.dcm"))):
            found = read(path)
            series = found and (str(found.StudyInstanceUID), str(found.SeriesInstanceUID))
            if series and series not in datasets:
                shutil.copy(path, folder)
                datasets[series] = found
    with emulated(dicom=[folder]) as emulator:
        emulator.admin.advance(seconds=60)  # a search ends with the second before this one
        sync = fill_lake(emulator, tmp_path_factory.mktemp("lake"), privacy="identified")
        result = sync.fetch_headers(HeaderChoice())
        sync.publish()
    assert not result.failed
    with cohortlake.open(sync.root.uri) as lake:
        rows = lake.sql("FROM series_headers").to_arrow().to_pylist()
    by_series = {(row["StudyInstanceUID"], row["SeriesInstanceUID"]): row for row in rows}
    return [(dataset, by_series[series]) for series, dataset in datasets.items()]


def expected(dataset: Dataset, each: header_columns.HeaderColumn) -> object:
    """Return the value of a column as pydicom reads it."""
    if each.keyword == "StoredTransferSyntaxUID":
        return str(dataset.file_meta.TransferSyntaxUID)
    value = dataset.get(each.keyword)
    for keyword in each.path[1:]:
        value = value[0].get(keyword) if value else None
    if value is None or value in ("", []):
        return None
    values = list(value) if isinstance(value, MultiValue) else [value]
    if each.place is not None:
        return float(values[each.place])
    if each.column.vr in NUMBERS:
        return float(values[0]) if len({*values}) == 1 else None
    texts = [str(v).strip(" \0") for v in values]
    if each.column.vr == "CS":
        texts = [text.upper() for text in texts]
    return "\\".join(dict.fromkeys(text for text in texts if text)) or None


def test_values_are_those_that_pydicom_reads(real):
    held = Counter()
    assert len(real) > 25
    assert {dataset.SOPClassUID.keyword for dataset, _ in real} >= DERIVED
    for dataset, row in real:
        is_multi_frame = "SharedFunctionalGroupsSequence" in dataset
        for each in header_columns.FROM_ATTRIBUTES:
            name, value = each.column.name, expected(dataset, each)
            if name == "Laterality" and value is None:
                value = dataset.get("ImageLaterality")
            if is_multi_frame and value is None:  # it may stand in the functional groups
                continue
            if isinstance(value, float):
                assert math.isclose(row[name], value, rel_tol=1e-12), name
            else:
                assert row[name] == value, name
            held[name] += value is not None
        assert row["invalid_fields"] == []
    assert len(held) > 60
    assert sum(count > 0 for count in held.values()) > 30
    assert held["SliceThickness"] > 2


def test_counts_are_those_of_the_files(real):
    for dataset, row in real:
        assert row["instance_count"] == 1
        frames = str(dataset.get("NumberOfFrames") or 1)
        if "Rows" in dataset and frames.isdecimal():  # one file says 1A
            assert row["frame_count"] == int(frames)


def test_a_multi_frame_object_is_read_from_its_functional_groups(real):
    found = 0
    for dataset, row in real:
        shared = dataset.get("SharedFunctionalGroupsSequence")
        if shared and "PixelMeasuresSequence" in shared[0]:
            measures = shared[0].PixelMeasuresSequence[0]
            assert row["PixelSpacing_row_mm"] == float(measures.PixelSpacing[0])
            assert row["SliceThickness"] == float(measures.SliceThickness)
            found += 1
    assert found
