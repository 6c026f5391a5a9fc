"""What is the same in all instances is kept as sent; of what differs, the extremes and counts."""

from collections.abc import Mapping

from documents import read
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.none() | st.sampled_from(["", "1", "2.50", "10 ", "abc", "1.0"]) | st.integers(0, 3)


def is_missing(value):
    return value is None or value == ""


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), min_size=1, max_size=6))
def test_each_attribute_is_the_same_or_differs(instances):
    header = read(*instances).header()
    for name in {*"abc"} & {name for own in instances for name in own}:
        sent = [own.get(name) for own in instances]
        present = [value for value in sent if not is_missing(value)]
        if not present:
            assert header.instances[name] is None
        elif len(present) == len(sent) and all(value == present[0] for value in present):
            assert header.instances[name] == present[0]
        else:
            found = header.differing[name]
            assert found.missing == len(sent) - len(present)
            assert found.distinct == len({str(type(v)) + str(v) for v in present})
            numbers = {}
            for value in present:
                try:
                    numbers[value] = float(str(value).strip())
                except ValueError:
                    break
            else:
                assert float(str(found.minimum).strip()) == min(numbers.values())
                assert float(str(found.maximum).strip()) == max(numbers.values())
        assert (name in header.instances) != (name in header.differing)


def test_lists_have_an_extreme_at_each_place():
    found = read(
        {"ImagePositionPatient": ["1", "-2", "3"]}, {"ImagePositionPatient": ["0", "5", "3"]}
    ).header()
    differing = found.differing["ImagePositionPatient"]
    assert (differing.minimum, differing.maximum) == (["0", "-2", "3"], ["1", "5", "3"])


def test_texts_and_sequences_that_differ():
    found = read(
        {"ImageType": ["ORIGINAL", "PRIMARY"], "A": "b", "S": [{"x": 1}]},
        {"ImageType": ["DERIVED", "PRIMARY"], "A": "a", "S": [{"x": 2}]},
    ).header()
    assert (found.differing["A"].minimum, found.differing["A"].maximum) == ("a", "b")
    for name in ("ImageType", "S"):
        assert (found.differing[name].minimum, found.differing[name].distinct) == (None, 2)


def test_private_attributes_sequences_and_vrs_are_kept():
    found = read({"00091001": "private", "SourceImageSequence": [{"ReferencedSOPClassUID": "1"}]})
    header = found.header()
    assert header.instances["00091001"] == "private"
    assert header.instances["SourceImageSequence"] == [{"ReferencedSOPClassUID": "1"}]
    assert header.vrs == {"00091001": "LO"}
    assert header.patient == {"PatientID": "P1"}
    assert header.study == {"StudyDate": "20240101"}
    assert header.series == {"Modality": "CT", "SeriesInstanceUID": "1.2"}


def test_frames_of_functional_groups_are_compared():
    frames = [
        {
            "PlanePositionSequence": [{"ImagePositionPatient": ["0", "0", str(2.5 * number)]}],
            "FrameContentSequence": [{"FrameAcquisitionNumber": 7}],
        }
        for number in range(4)
    ]
    shared = {
        "PixelMeasuresSequence": [{"PixelSpacing": ["0.5", "0.5"], "SliceThickness": "2.5"}],
        "PlaneOrientationSequence": [{"ImageOrientationPatient": list("100010")}],
    }
    found = read(
        {
            "Rows": 10,
            "Columns": 10,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
        }
    )
    header = found.header()
    assert header.instances["SliceThickness"] == "2.5"
    assert header.frames == {"FrameAcquisitionNumber": 7}
    assert header.differing["ImagePositionPatient"].distinct == 4
    assert not any("FunctionalGroups" in name for name in header.instances)
    volume = found.slices.volume()
    assert (volume.is_regular, volume.spacing_mm) == (True, 2.5)


def test_frames_of_instances_are_kept_for_their_pixels():
    found = read({"Rows": 1}, {"Rows": 1})
    assert found.frames == 2
    assert [own.sop_instance_uid for own in found.instances] == ["1.2.0", "1.2.1"]
    assert isinstance(found.header().instances, Mapping)
