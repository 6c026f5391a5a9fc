"""Enhanced multi-frame instances: shared and per-frame functional groups (PS3.3 section C.7.6.16).

It moves what a slice says into the sequences of a multi-frame instance.
"""

from __future__ import annotations

from emulator.data.headers.geometry import Stack
from emulator.data.headers.images import Images, Scan
from emulator.data.headers.values import Attributes, integer

_TO_GROUPS = {
    "SliceThickness": "PixelMeasuresSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "XRayTubeCurrent": "CTExposureSequence",
    "KVP": "CTXRayDetailsSequence",
    "EchoTime": "MREchoSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
}
# In an enhanced object these are numbers of VR FD under another keyword.
_RENAMED = {"EchoTime": "EffectiveEchoTime", "XRayTubeCurrent": "XRayTubeCurrentInmA"}


def frame_count(scan: Scan) -> int:
    """Returns the number of frames of each multi-frame instance of a series."""
    return 12 + sum(map(ord, scan.series_uid)) % 90


def enhanced(scan: Scan, images: Images, lying: Stack) -> Images:
    """Returns the images as multi-frame instances, each with all slices of a stack."""
    shared = dict(images.shared)
    groups: dict[str, Attributes] = {}
    for keyword, group in _TO_GROUPS.items():
        if keyword not in shared:
            continue
        value = shared.pop(keyword)
        if keyword in _RENAMED:
            keyword, value = _RENAMED[keyword], float(value)
        groups.setdefault(group, {})[keyword] = value
    frames = [
        {
            "FrameContentSequence": [
                {"StackID": "1", "InStackPositionNumber": number + 1, "DimensionIndexValues": [1]}
            ],
            "PlanePositionSequence": [
                {"ImagePositionPatient": lying.place(number)["ImagePositionPatient"]}
            ],
        }
        for number in range(len(lying.positions))
    ]
    shared |= {
        "NumberOfFrames": integer(len(frames)),
        "SharedFunctionalGroupsSequence": [{group: [item] for group, item in groups.items()}],
        "PerFrameFunctionalGroupsSequence": frames,
        "ContentQualification": "PRODUCT",
        "VolumetricProperties": "VOLUME",
    }
    return Images(images.series, shared, [{} for _ in range(scan.instances)])
