"""The headers of the synthetic hospital: real-looking, and wrong only where they are planned to."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from emulator import Options
from emulator.data import levels, metadata
from emulator.data.headers import plan
from emulator.world import build

NOW = {"now": "2024-06-03T09:00:00Z", "clock": "stopped"}
IMAGE_SETS = 900


@pytest.fixture(scope="module")
def world():
    world = build(Options(synthetic=IMAGE_SETS, seed=1, series_size=0.12, **NOW))
    yield world
    world.close()


@pytest.fixture(scope="module")
def records(world):
    return world.store.truth(world.store.datastores()[0], limit=IMAGE_SETS)


@pytest.fixture(scope="module")
def documents(world, records):
    """Each image set as (record, plan, document)."""
    datastore_id = world.store.datastores()[0].id
    return [
        (
            record,
            metadata.header_of(record).plan,
            json.loads(metadata.text(datastore_id, record, None)),
        )
        for record in records
    ]


def series_of(document):
    [series] = document["Study"]["Series"].values()
    return series


def instances_of(document):
    return [instance["DICOM"] for instance in series_of(document)["Instances"].values()]


def attributes_of(document):
    """Every attribute with its value, also within sequences; of the first and last instances."""
    series = series_of(document)
    top = [document["Patient"]["DICOM"], document["Study"]["DICOM"], series["DICOM"]]
    instances = instances_of(document)
    queue = top + instances[:3] + instances[-1:]
    while queue:
        for keyword, value in queue.pop().items():
            yield keyword, value
            queue += (
                [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
            )


def test_headers_are_repeatable_and_follow_the_seed(records):
    other = build(Options(synthetic=IMAGE_SETS, seed=1, series_size=0.12, **NOW))
    try:
        again = other.store.truth(other.store.datastores()[0], limit=IMAGE_SETS)
        for first, second in zip(records[:100], again, strict=False):
            assert metadata.text("a", first, None) == metadata.text("a", second, None)
    finally:
        other.close()


def test_no_header_is_made_before_somebody_asks(monkeypatch):
    monkeypatch.setattr(metadata, "header", None)
    build(Options(synthetic=300, seed=1, **NOW)).close()


def test_headers_agree_with_the_summaries(documents):
    instances, expected = defaultdict(int), {}
    for record, _, document in documents:
        tags = record.wire()["DICOMTags"]
        found = (
            (document["Patient"]["DICOM"], levels.PATIENT_LEVEL),
            (document["Study"]["DICOM"], levels.STUDY_LEVEL),
            (series_of(document)["DICOM"], levels.SERIES_LEVEL),
        )
        for level, names in found:
            for member, keyword in names.items():
                assert (keyword in level) == (member in tags)
                assert (level.get(keyword) or "").strip() == str(tags.get(member, "")).strip()
        assert len(instances_of(document)) == record.instances
        assert document["ImageSetID"] == record.image_set_id
        if record.is_primary:
            instances[record.study_uid] += record.instances
            expected[record.study_uid] = tags["DICOMNumberOfStudyRelatedInstances"]
    assert instances == expected


def test_every_modality_is_there_with_its_own_attributes(documents):
    expected = {
        "CT": "KVP SliceThickness ConvolutionKernel PixelSpacing ImagePositionPatient",
        "MR": "MagneticFieldStrength RepetitionTime EchoTime FlipAngle ScanningSequence",
        "PT": "Units DecayCorrection RadiopharmaceuticalInformationSequence RescaleSlope",
        "MG": "ViewPosition ImageLaterality CompressionForce AnodeTargetMaterial",
        "DX": "ViewPosition ImagerPixelSpacing KVP ExposureInuAs",
        "CR": "PlateID ImagerPixelSpacing",
        "US": "BurnedInAnnotation SequenceOfUltrasoundRegions",
        "XA": "NumberOfFrames PositionerPrimaryAngle",
        "NM": "NumberOfFrames EnergyWindowInformationSequence",
    }
    seen = set()
    for _, planned, document in documents:
        modality = series_of(document)["DICOM"]["Modality"]
        if planned.kind == "usual":
            seen.add(modality)
            for own in instances_of(document):
                assert not set(expected[modality].split()) - set(own), modality
    assert seen == set(expected)


def test_every_attribute_is_in_the_dictionary_and_has_the_type_of_its_vr(documents):
    private, sequences = set(), 0
    for _, planned, document in documents:
        for keyword, value in attributes_of(document):
            if re.fullmatch("[0-9A-F]{8}", keyword):
                private.add(keyword)
                continue
            tag = tag_for_keyword(keyword)
            assert tag is not None, keyword
            vr = dictionary_VR(tag)
            if keyword == "Rows" and planned.fault == "Rows as text":
                continue
            if vr == "SQ":
                sequences += 1
                assert isinstance(value, list), keyword
                assert all(isinstance(item, dict) for item in value), keyword
                continue
            items = value if isinstance(value, list) else [value]
            numeric = vr.split()[0] in ("US", "SS", "UL", "SL", "FL", "FD")
            for item in items:
                assert item is None or isinstance(item, (int, float) if numeric else str), keyword
                if vr in ("DS", "IS") and item is not None and planned.fault == "none":
                    assert re.fullmatch(r"-?[0-9.]+(e[+-][0-9]+)? ?", item), keyword
                    assert len(item) <= 16, keyword
            if planned.fault == "none" and value is not None:
                assert isinstance(value, list) == (dictionary_VM(tag) != "1"), keyword
    assert len(private) > 8
    assert sequences > 100


def test_private_elements_have_their_vr_beside_them(documents):
    for _, _, document in documents:
        for instance in series_of(document)["Instances"].values():
            private = {key for key in instance["DICOM"] if key[0].isdigit()}
            assert set(instance["DICOMVRs"]) == private


def test_frames_have_ids_and_sizes(documents):
    for record, _, document in documents:
        frames = []
        for uid, instance in series_of(document)["Instances"].items():
            own = instance["DICOM"]
            assert own["SOPInstanceUID"] == uid
            assert instance["StoredTransferSyntaxUID"] == "1.2.840.10008.1.2.4.202"
            assert len(instance["ImageFrames"]) == int(own.get("NumberOfFrames", 1))
            for frame in instance["ImageFrames"]:
                [full] = frame["PixelDataChecksumFromBaseToFullResolution"]
                assert (full["Height"], full["Width"]) == (int(own["Rows"]), own["Columns"])
                assert 0 < frame["FrameSizeInBytes"] < full["Height"] * full["Width"] * 6
            frames += [frame["ID"] for frame in instance["ImageFrames"]]
        assert len(set(frames)) == len(frames) >= record.instances
        assert all(re.fullmatch("[0-9a-z]{32}", frame) for frame in frames)


def test_kinds_of_series(documents):
    kinds = Counter(planned.kind for _, planned, _ in documents)
    assert set(kinds) == {"usual", "localizer", "enhanced"}
    for _, planned, document in documents:
        own = instances_of(document)[0]
        if planned.kind == "localizer":
            assert "LOCALIZER" in own["ImageType"] or own["ImageType"][-1] == "M"
            assert len(instances_of(document)) <= 9
        if planned.kind == "enhanced":
            frames = own["PerFrameFunctionalGroupsSequence"]
            assert len(frames) == int(own["NumberOfFrames"]) > 10
            assert own["SOPClassUID"].split(".")[-2] in ("1", "2", "4", "13")


def test_devices_and_protocols_vary_and_a_study_has_one_of_each_modality(documents):
    devices = defaultdict(set)
    models, kernels, agents, thicknesses, echoes, b_values = (set() for _ in range(6))
    for record, planned, document in documents:
        series, own = series_of(document)["DICOM"], instances_of(document)
        devices[record.study_uid, series["Modality"]].add(series["DeviceSerialNumber"])
        models.add((series["Manufacturer"], series["ManufacturerModelName"]))
        kernels.update(own[0].get("ConvolutionKernel", ()))
        agents.add(own[0].get("ContrastBolusAgent"))
        if planned.fault == "none":
            thicknesses.add(own[0].get("SliceThickness"))
        echoes.add(len({one.get("EchoTime") for one in own}))
        b_values.update(one["DiffusionBValue"] for one in own if "DiffusionBValue" in one)
    assert {len(serials) for serials in devices.values()} == {1}
    assert len(models) > 25
    assert len(kernels) > 12
    assert len(agents) > 8
    assert len(thicknesses) > 8
    assert max(echoes) >= 3
    assert b_values == {0, 500, 1000}


def spacings(own):
    """The distances between neighbours along the normal, and how far they leave the normal."""
    orientation = np.array(own[0]["ImageOrientationPatient"], float)
    normal = np.cross(orientation[:3], orientation[3:])
    steps = np.diff([np.array(one["ImagePositionPatient"], float) for one in own], axis=0)
    along = steps @ normal
    return along, np.linalg.norm(steps - np.outer(along, normal), axis=1)


def test_geometry_is_as_planned(documents):
    seen = set()
    for _, planned, document in documents:
        own = instances_of(document)
        single = len({str(one.get("EchoTime")) for one in own}) == 1
        diffusion = any("DIFFUSION" in one["ImageType"] for one in own)
        modality = series_of(document)["DICOM"]["Modality"]
        if planned.kind != "usual" or planned.fault != "none" or len(own) < 4:
            continue
        if modality not in ("CT", "MR", "PT") or not single or diffusion:
            continue
        along, aside = spacings(own)
        smallest = np.abs(along).min()
        seen.add(planned.geometry)
        if planned.geometry == "regular":
            assert np.allclose(along, along[0], atol=0.01)
        elif planned.geometry == "missing slices":
            multiples = np.abs(along) / smallest
            assert multiples.max() > 1.9
            assert np.allclose(multiples, multiples.round(), atol=0.05)
        elif planned.geometry == "mixed spacing":
            assert np.allclose(np.abs(along[-1]) / smallest, 2, atol=0.05)
        elif planned.geometry == "repeated positions":
            assert along.max() > 0 > along.min()
        if planned.geometry == "tilted":
            assert aside.min() > 0.05
            assert float(own[0]["GantryDetectorTilt"]) != 0
            assert np.allclose(along, along[0], atol=0.01)
        else:
            assert aside.max() < 0.01
    assert seen == {"regular", "missing slices", "mixed spacing", "repeated positions", "tilted"}


FAULTS = {
    "DS of more than 16 characters": lambda one: (
        max(map(len, one.get("PixelSpacing") or one["ImagerPixelSpacing"])) > 16
    ),
    "IS with a decimal point": lambda one: one["InstanceNumber"].endswith(".0"),
    "several values of SliceThickness": lambda one: len(one["SliceThickness"]) == 2,
    "one value of PixelSpacing": lambda one: (
        isinstance(one["PixelSpacing"], str) or len(one["PixelSpacing"]) == 1
    ),
    "noisy ImageOrientationPatient": lambda one: (
        not set(one["ImageOrientationPatient"]) <= {"1", "0", "0 "}
    ),
    "SliceThickness with a unit": lambda one: one["SliceThickness"].endswith(" mm"),
    "SliceThickness of zero": lambda one: float(one["SliceThickness"]) == 0,
    "decimal comma": lambda one: "," in one["SliceThickness"],
    "blanks around numbers": lambda one: one["SliceThickness"].startswith("  "),
    "negative SpacingBetweenSlices": lambda one: float(one["SpacingBetweenSlices"]) < 0,
    "no ImageOrientationPatient": lambda one: one["ImageOrientationPatient"] is None,
    "Rows as text": lambda one: isinstance(one["Rows"], str),
    "varying SliceThickness": lambda one: float(one["SliceThickness"]) > 0,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_each_wrong_value_is_where_it_is_planned(monkeypatch, fault, modality):
    usual = plan.Plan("usual", "regular", fault)
    monkeypatch.setattr("emulator.data.headers.series.plan", lambda *_: usual)
    tags = {"DICOMSeriesModality": modality, "DICOMSeriesInstanceUID": "1.2.3"}
    made = metadata.header(tags, "f" * 32, 9)
    own = [one["DICOM"] for one in json.loads(b"{%b}" % b",".join(made.instances)).values()]
    assert all(map(FAULTS[fault], own))
    if fault in ("noisy ImageOrientationPatient", "varying SliceThickness"):
        keyword = fault.split()[1]
        assert len({str(one[keyword]) for one in own}) > 1


def test_the_faults_of_the_test_are_all_there_are():
    assert {*FAULTS, "none"} == set(plan._FAULTS)


def test_a_series_that_was_imported_again_has_the_same_instances(documents):
    by_series = defaultdict(list)
    for record, _, document in documents:
        by_series[record.series_uid].append(list(series_of(document)["Instances"]))
    repeated = [found for found in by_series.values() if len(found) > 1]
    assert repeated
    for first, *others in repeated:
        assert all(other == first for other in others)


def test_summaries_without_uids_have_a_header_too():
    made = metadata.header({}, "f" * 32, 2)
    own = [one["DICOM"] for one in json.loads(b"{%b}" % b",".join(made.instances)).values()]
    assert [one["SOPInstanceUID"] for one in own] == [f"{'f' * 32}.1", f"{'f' * 32}.2"]
    assert own[0]["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.7"
