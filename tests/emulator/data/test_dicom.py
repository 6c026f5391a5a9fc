"""Folders of DICOM P10 files, with the files that come inside the pydicom package."""

import gzip
import json
import zlib
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def loaded(serving):
    return serving(dicom=[FILES])


@pytest.fixture
def ct():
    return pydicom.dcmread(FILES / "CT_small.dcm", stop_before_pixels=True)


@pytest.fixture
def folder(tmp_path, fresh):
    """Writes data sets to a folder and serves it."""

    def serve(*datasets, **files):
        for number, dataset in enumerate(datasets):
            dataset.save_as(tmp_path / f"{number}.dcm")
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return fresh(dicom=[tmp_path])

    return serve


def changed(dataset, **values):
    copy = deepcopy(dataset)
    for keyword, value in values.items():
        setattr(copy, keyword, value)
    return copy


def document(service, row):
    answer = service.client.get_image_set_metadata(
        datastoreId=service.datastore, imageSetId=row["imageSetId"]
    )
    with answer["imageSetMetadataBlob"] as blob:
        return json.loads(gzip.decompress(blob.read()))


def test_the_bundled_files(loaded, ct):
    rows = loaded.search()
    assert len(rows) > 20
    criteria = [{"operator": "EQUAL", "values": [{"DICOMStudyInstanceUID": ct.StudyInstanceUID}]}]
    [row] = [row for row in loaded.search(criteria) if row["isPrimary"]]
    tags = row["DICOMTags"]
    assert tags["DICOMPatientName"] == str(ct.PatientName)
    assert (tags["DICOMStudyDate"], tags["DICOMStudyTime"]) == (ct.StudyDate, ct.StudyTime)
    assert (tags["DICOMSeriesModality"], tags["DICOMSeriesNumber"]) == ("CT", 1)
    assert all(value not in ("", None) for row in rows for value in row["DICOMTags"].values())


def test_each_series_has_one_primary_image_set(loaded):
    primary = Counter(
        (row["DICOMTags"]["DICOMStudyInstanceUID"], row["DICOMTags"]["DICOMSeriesInstanceUID"])
        for row in loaded.search()
        if row["isPrimary"]
    )
    assert set(primary.values()) == {1}


def test_metadata_has_every_level(loaded, ct):
    criteria = [{"operator": "EQUAL", "values": [{"DICOMStudyInstanceUID": ct.StudyInstanceUID}]}]
    [row] = [row for row in loaded.search(criteria) if row["isPrimary"]]
    found = document(loaded, row)
    assert found["Patient"]["DICOM"]["PatientID"] == ct.PatientID
    assert found["Study"]["DICOM"]["StudyDate"] == ct.StudyDate
    series = found["Study"]["Series"][ct.SeriesInstanceUID]
    assert series["DICOM"]["SeriesNumber"] == "1 "
    own = series["Instances"][ct.SOPInstanceUID]["DICOM"]
    assert own["Rows"] == ct.Rows
    assert own["ImageType"] == list(ct.ImageType)
    assert "PixelData" not in own
    assert series["DICOM"]["Manufacturer"] == ct.Manufacturer
    # As in the file: texts of even length.
    assert own["SliceThickness"] == "5.000000"
    assert own["ImagePositionPatient"] == ["-158.135803", "-179.035797", "-75.699997"]
    assert own["KVP"] == "120 "
    assert own["FileMetaInformationVersion"] == "AAE="


def test_instances_of_a_series_make_one_image_set(folder, ct):
    service = folder(
        *(changed(ct, SOPInstanceUID=f"1.2.{number}") for number in (1, 2, 3)),
        changed(ct, SOPInstanceUID="1.2.4", SeriesInstanceUID="1.9"),
    )
    rows = service.search()
    assert [row["isPrimary"] for row in rows] == [True, True]
    for row in rows:
        assert row["DICOMTags"]["DICOMNumberOfStudyRelatedSeries"] == 2
        assert row["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"] == 4
    row = next(one for one in rows if one["DICOMTags"]["DICOMSeriesInstanceUID"] != "1.9")
    series = document(service, row)["Study"]["Series"][ct.SeriesInstanceUID]
    assert list(series["Instances"]) == ["1.2.1", "1.2.2", "1.2.3"]


def test_the_same_instance_again_adds_nothing(folder, ct):
    [row] = folder(ct, changed(ct)).search()
    assert row["DICOMTags"]["DICOMNumberOfStudyRelatedInstances"] == 1


@pytest.mark.parametrize(
    "conflict",
    [
        {"PatientName": "Other^Name", "SOPInstanceUID": "1.2.9"},
        {"StudyDescription": "other", "SOPInstanceUID": "1.2.9"},
        {"SeriesNumber": 77, "SOPInstanceUID": "1.2.9"},
        {"InstanceNumber": 77},
    ],
)
def test_a_conflict_makes_a_further_image_set(folder, ct, conflict):
    rows = folder(ct, changed(ct, **conflict), changed(ct, **conflict)).search()
    assert sorted(row["isPrimary"] for row in rows) == [False, True]
    series = {row["DICOMTags"]["DICOMSeriesInstanceUID"] for row in rows}
    assert series == {ct.SeriesInstanceUID}


def test_what_is_not_dicom_is_counted(tmp_path, ct):
    from emulator import Options
    from emulator.world import build

    nested = tmp_path / "deep" / "deeper"
    nested.mkdir(parents=True)
    ct.save_as(nested / "ct")
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "empty").write_bytes(b"")
    changed(ct, StudyInstanceUID=None).save_as(tmp_path / "no-study.dcm")
    world = build(Options(dicom=[tmp_path]))
    try:
        assert world.skipped == 3
        assert len(world.store.truth(world.store.datastores()[0])) == 1
    finally:
        world.close()
    with pytest.raises(ValueError, match="not a folder"):
        build(Options(dicom=[tmp_path / "readme.txt"]))


def test_an_update_reaches_the_metadata(folder, ct):
    service = folder(ct)
    [row] = service.search()
    service.emulator.admin.update(row["imageSetId"], {"DICOMPatientName": "Corrected^Name"})
    found = document(service, row)
    assert found["Patient"]["DICOM"]["PatientName"] == "Corrected^Name"
    assert ct.SOPInstanceUID in found["Study"]["Series"][ct.SeriesInstanceUID]["Instances"]


def test_private_elements_and_sequences(loaded, ct):
    criteria = [{"operator": "EQUAL", "values": [{"DICOMStudyInstanceUID": ct.StudyInstanceUID}]}]
    [row] = [row for row in loaded.search(criteria) if row["isPrimary"]]
    [series] = document(loaded, row)["Study"]["Series"].values()
    [instance] = series["Instances"].values()
    assert instance["DICOM"]["00431010"] == ct[0x0043, 0x1010].value
    assert instance["DICOMVRs"]["00431010"] == "US"
    private = {key for key in instance["DICOM"] if key[0].isdigit()}
    assert private <= set(instance["DICOMVRs"])


def test_numbers_that_break_the_standard_stay_as_they_are(folder, ct):
    raw = {
        (0x0018, 0x0050): ("DS", b"1.25000000000000000000"),
        (0x0020, 0x0013): ("IS", b"3.0 "),
        (0x0028, 0x0030): ("DS", b"0.5 "),
    }
    broken = deepcopy(ct)
    for tag, (vr, value) in raw.items():
        broken[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    [row] = folder(broken).search()
    [series] = document(folder(), row)["Study"]["Series"].values()
    [instance] = series["Instances"].values()
    own = instance["DICOM"]
    assert own["SliceThickness"] == "1.25000000000000000000"
    assert own["InstanceNumber"] == "3.0 "
    assert own["PixelSpacing"] == ["0.5 "]


def frame_bytes(service, row, frame):
    answer = service.client.get_image_frame(
        datastoreId=service.datastore,
        imageSetId=row["imageSetId"],
        imageFrameInformation={"imageFrameId": frame["ID"]},
    )
    with answer["imageFrameBlob"] as blob:
        return answer["contentType"], blob.read()


def test_every_frame_of_the_bundled_files_is_served(loaded):
    read, types, frame_counts = 0, set(), set()
    for row in loaded.search():
        [series] = document(loaded, row)["Study"]["Series"].values()
        for instance in series["Instances"].values():
            frame_counts.add(len(instance["ImageFrames"]))
            for frame in instance["ImageFrames"][:3]:
                content_type, body = frame_bytes(loaded, row, frame)
                types.add(content_type)
                assert len(body) == frame["FrameSizeInBytes"] > 0
                for full in frame.get("PixelDataChecksumFromBaseToFullResolution", ()):
                    assert full["Checksum"] == zlib.crc32(body)
                read += 1
    assert read > 60
    assert types >= {"application/octet-stream", "image/jpeg", "image/j2c", "image/dicom-rle"}
    assert frame_counts >= {0, 1, 2, 15}


def test_a_frame_has_the_bytes_of_the_file(loaded):
    ct = pydicom.dcmread(FILES / "CT_small.dcm")
    criteria = [{"operator": "EQUAL", "values": [{"DICOMStudyInstanceUID": ct.StudyInstanceUID}]}]
    [row] = [row for row in loaded.search(criteria) if row["isPrimary"]]
    [series] = document(loaded, row)["Study"]["Series"].values()
    [frame] = series["Instances"][ct.SOPInstanceUID]["ImageFrames"]
    assert frame_bytes(loaded, row, frame) == ("application/octet-stream", ct.PixelData)


def test_elements_without_a_keyword_have_the_vr_under_which_they_were_read(loaded):
    found = {}
    for row in loaded.search():
        [series] = document(loaded, row)["Study"]["Series"].values()
        for instance in series["Instances"].values():
            assert {key for key in instance["DICOM"] if key[0].isdigit()} <= set(
                instance["DICOMVRs"]
            )
            found |= instance["DICOMVRs"]
    assert found["00190010"] == "LO", "a private creator, also in implicit VR"
    assert found["60000040"] == "CS", "an overlay, whose keyword would not say which"
