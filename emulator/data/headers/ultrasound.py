"""Ultrasound, nuclear medicine and anything else: colour, loops and burned-in annotation."""

from __future__ import annotations

from emulator.data.headers.images import Images, Scan, pixels
from emulator.data.headers.values import Attributes, code, ds, ds_list, integer

_US = "1.2.840.10008.5.1.4.1.1.6.1"
_US_LOOP = "1.2.840.10008.5.1.4.1.1.3.1"
_NM = "1.2.840.10008.5.1.4.1.1.20"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def ultrasound(scan: Scan) -> Images:
    """Returns the attributes of an ultrasound series: stills, and some loops."""
    chance, scanner = scan.chance, scan.scanner
    shared: Attributes = {
        "ImageType": ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"],
        **pixels(
            scanner.rows,
            scanner.columns,
            bits=8,
            photometric=chance.choice(("RGB", "YBR_FULL_422")),
        ),
        "BurnedInAnnotation": "YES",
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["12.7"],
        "LossyImageCompressionMethod": ["ISO_10918_1"],
        "TransducerData": [chance.choice(("C5-1", "L12-5", "ML6-15-D")), "", ""],
        "UltrasoundColorDataPresent": chance.randrange(2),
        "SequenceOfUltrasoundRegions": [
            {
                "RegionSpatialFormat": 1,
                "RegionDataType": 1,
                "RegionLocationMinX0": 0,
                "RegionLocationMinY0": 60,
                "RegionLocationMaxX1": scanner.columns - 1,
                "RegionLocationMaxY1": scanner.rows - 1,
                "PhysicalUnitsXDirection": 3,
                "PhysicalUnitsYDirection": 3,
                "PhysicalDeltaX": 0.0283018867924528,
                "PhysicalDeltaY": 0.0283018867924528,
            }
        ],
    }
    varying: list[Attributes] = []
    for _ in range(scan.instances):
        loop = chance.random() < 0.1
        own: Attributes = {"SOPClassUID": _US_LOOP if loop else _US}
        if loop:
            own |= {"NumberOfFrames": integer(chance.randrange(20, 90)), "FrameTime": ds(33.3333)}
        varying.append(own)
    series: Attributes = {"SeriesDescription": None, "ProtocolName": scan.body.title() or None}
    return Images(series, shared, varying)


def nuclear_medicine(scan: Scan) -> Images:
    """Returns the attributes of a planar bone scan with two heads."""
    chance, scanner = scan.chance, scan.scanner
    shared: Attributes = {
        "ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"],
        "SOPClassUID": _NM,
        **pixels(scanner.rows, scanner.columns, bits=16),
        "NumberOfFrames": integer(2),
        "PixelSpacing": ds_list((scanner.spacing, scanner.spacing)),
        "CountsAccumulated": integer(chance.randrange(10**5, 10**7)),
        "ActualFrameDuration": integer(chance.randrange(600_000, 1_500_000)),
        "EnergyWindowInformationSequence": [
            {
                "EnergyWindowName": "Tc99m",
                "EnergyWindowRangeSequence": [
                    {
                        "EnergyWindowLowerLimit": ds(126.45),
                        "EnergyWindowUpperLimit": ds(154.55),
                    }
                ],
            }
        ],
        "RadiopharmaceuticalInformationSequence": [
            {
                "Radiopharmaceutical": "Tc-99m MDP",
                "RadionuclideTotalDose": ds(chance.randrange(500, 800)),
                "RadionuclideCodeSequence": code("C-163A8", "SRT", "^99m^Technetium"),
            }
        ],
        "BurnedInAnnotation": "NO",
    }
    series: Attributes = {"SeriesDescription": "Whole Body Bone", "PatientPosition": "HFS"}
    return Images(series, shared, [{} for _ in range(scan.instances)])


def secondary_capture(scan: Scan) -> Images:
    """Returns the attributes of a series whose modality has no module of its own."""
    scanner = scan.scanner
    shared: Attributes = {
        "ImageType": ["DERIVED", "SECONDARY"],
        "SOPClassUID": _SECONDARY_CAPTURE,
        **pixels(scanner.rows, scanner.columns, bits=8),
        "ConversionType": "WSD",
        "ImageComments": None,
        "BurnedInAnnotation": "YES",
    }
    return Images({"SeriesDescription": None}, shared, [{} for _ in range(scan.instances)])
