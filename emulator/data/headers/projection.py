"""Projection images: mammography, digital and computed radiography, and angiography."""

from __future__ import annotations

from emulator.data.headers import functional_groups
from emulator.data.headers.geometry import stack
from emulator.data.headers.images import Images, Scan, pixels
from emulator.data.headers.values import Attributes, code, ds, ds_list, integer

_MG = "1.2.840.10008.5.1.4.1.1.1.2"
_MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
_DX = "1.2.840.10008.5.1.4.1.1.1.1"
_CR = "1.2.840.10008.5.1.4.1.1.1"
_XA = "1.2.840.10008.5.1.4.1.1.12.1"
_VIEWS = {"CHEST": ("PA", "LL", "AP"), "HAND": ("PA", "OB", ""), "HIP": ("AP", "LL")}
_MG_VIEWS = (("R-10242", "cranio-caudal", "CC"), ("R-10226", "medio-lateral oblique", "MLO"))


def mammography(scan: Scan) -> Images:
    """Returns the attributes of a mammography series: views of both sides, or tomosynthesis."""
    chance, scanner = scan.chance, scan.scanner
    processing = chance.random() < 0.15
    shared: Attributes = {
        "ImageType": ["DERIVED", "PRIMARY", "", "", "", "", "", "150000"],
        "SOPClassUID": _MG_FOR_PROCESSING if processing else _MG,
        **pixels(scanner.rows, scanner.columns),
        "PresentationIntentType": "FOR PROCESSING" if processing else "FOR PRESENTATION",
        "KVP": ds(chance.choice((27, 28, 29, 31))),
        "ExposureInuAs": integer(chance.randrange(40_000, 160_000)),
        "AnodeTargetMaterial": chance.choice(("TUNGSTEN", "MOLYBDENUM", "RHODIUM")),
        "FilterMaterial": [chance.choice(("RHODIUM", "SILVER", "ALUMINUM"))],
        "DistanceSourceToDetector": ds(700),
        "DistanceSourceToPatient": ds(675),
        "EstimatedRadiographicMagnificationFactor": ds(1.037),
        "Grid": ["FOCUSED"],
        "ImagerPixelSpacing": ds_list((scanner.spacing, scanner.spacing)),
        "DetectorType": "DIRECT",
        "DetectorID": f"MAM{scan.number:05d}",
        "EntranceDoseInmGy": ds(round(chance.uniform(2, 9), 3)),
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
        "BurnedInAnnotation": "YES" if chance.random() < 0.05 else "NO",
        "AnatomicRegionSequence": code("T-04000", "SRT", "Breast"),
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": 1,
    }
    if scan.plan.kind == "enhanced":
        count = functional_groups.frame_count(scan)
        shared |= {"SOPClassUID": _TOMOSYNTHESIS, "SliceThickness": ds(1), "BitsStored": 10}
        shared["ImageType"] = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
        lying = stack(chance, count, spacing=1, field_mm=200)
        made = functional_groups.enhanced(scan, Images({}, shared, []), lying)
    else:
        made = Images({}, shared, [{} for _ in range(scan.instances)])
    varying = []
    for number in range(scan.instances):
        value, meaning, view = _MG_VIEWS[number // 2 % 2]
        varying.append(
            {
                "ImageLaterality": "R" if number % 2 == 0 else "L",
                "ViewPosition": view,
                "ViewCodeSequence": code(value, "SRT", meaning),
                "CompressionForce": ds(chance.randrange(60, 170)),
                "BodyPartThickness": ds(chance.randrange(30, 85)),
                "OrganDose": ds(round(chance.uniform(0.008, 0.03), 5)),
                "PatientOrientation": ["P", "L"] if number % 2 == 0 else ["A", "R"],
            }
        )
    series: Attributes = {
        "SeriesDescription": "Tomosynthesis" if scan.plan.kind == "enhanced" else "Standard views",
        "ProtocolName": None,
    }
    return Images(series, made.shared, varying)


def radiography(scan: Scan) -> Images:
    """Returns the attributes of a DX or CR series, one instance for each view."""
    chance, scanner = scan.chance, scan.scanner
    digital = scan.modality == "DX"
    shared: Attributes = {
        "ImageType": ["DERIVED", "PRIMARY"] if digital else ["ORIGINAL", "PRIMARY"],
        "SOPClassUID": _DX if digital else _CR,
        **pixels(
            scanner.rows,
            scanner.columns,
            bits=12 if digital else 10,
            photometric=chance.choice(("MONOCHROME2", "MONOCHROME1")),
        ),
        "KVP": ds(chance.choice((52, 66, 81, 110, 125))),
        "DistanceSourceToDetector": ds(1800) if scan.body == "CHEST" else ds(1100),
        "ExposureTime": integer(chance.randrange(2, 60)),
        "XRayTubeCurrent": integer(chance.choice((200, 320, 400))),
        "Exposure": integer(chance.randrange(1, 12)),
        "Grid": ["FIXED", "FOCUSED"],
        "ImagerPixelSpacing": ds_list((scanner.spacing, scanner.spacing)),
        "AcquisitionDeviceProcessingDescription": "Chest, PA" if scan.body == "CHEST" else None,
        "BurnedInAnnotation": "YES" if chance.random() < 0.1 else "NO",
        "LossyImageCompression": "00",
    }
    if digital:
        shared |= {
            "PresentationIntentType": "FOR PRESENTATION",
            "DetectorType": "SCINTILLATOR",
            "ExposureInuAs": integer(chance.randrange(900, 12_000)),
            "ImageAndFluoroscopyAreaDoseProduct": ds(round(chance.uniform(0.02, 3), 4)),
            "AnatomicRegionSequence": code("T-D3000", "SRT", "Chest"),
        }
    else:
        shared |= {
            "PlateID": f"{chance.randrange(10**9):09d}",
            "CassetteSize": "35CMX43CM",
            "Sensitivity": ds(chance.randrange(100, 600)),
            "PixelSpacing": ds_list((scanner.spacing, scanner.spacing)),
        }
    views = _VIEWS.get(scan.body, ("AP",))
    varying: list[Attributes] = [
        {
            "ViewPosition": views[number % len(views)] or None,
            "PatientOrientation": ["L", "F"],
            "RelativeXRayExposure": integer(chance.randrange(100, 900)),
        }
        for number in range(scan.instances)
    ]
    series: Attributes = {
        "SeriesDescription": chance.choice(("W Chest Pa", "PA", "2 views", "Lateral", "")) or None,
        "ProtocolName": chance.choice((None, "Chest PA/LAT", "Extremity")),
        "Laterality": chance.choice(("L", "R")) if scan.body in ("HAND", "HIP") else None,
    }
    return Images(series, shared, varying)


def angiography(scan: Scan) -> Images:
    """Returns the attributes of an angiography series: runs of many frames each."""
    chance, scanner = scan.chance, scan.scanner
    shared: Attributes = {
        "ImageType": ["ORIGINAL", "PRIMARY", "SINGLE PLANE"],
        "SOPClassUID": _XA,
        **pixels(scanner.rows, scanner.columns, bits=8),
        "KVP": ds(chance.randrange(65, 110)),
        "RadiationSetting": "GR",
        "FrameTime": ds(66.6667),
        "CineRate": integer(15),
        "ContrastBolusAgent": chance.choice(("Iodine", "Visipaque 320", "UNKNOWN")),
        "DistanceSourceToDetector": ds(chance.randrange(900, 1200)),
        "ImagerPixelSpacing": ds_list((0.308, 0.308)),
        "PositionerMotion": "STATIC",
        "BurnedInAnnotation": "NO",
    }
    varying: list[Attributes] = [
        {
            "NumberOfFrames": integer(chance.randrange(18, 70)),
            "PositionerPrimaryAngle": ds(round(chance.uniform(-45, 45), 1)),
            "PositionerSecondaryAngle": ds(round(chance.uniform(-35, 35), 1)),
            "XRayTubeCurrent": integer(chance.randrange(400, 900)),
        }
        for _ in range(scan.instances)
    ]
    series: Attributes = {
        "SeriesDescription": chance.choice(("LCA", "RCA", "Ventriculogram")),
        "ProtocolName": "Coro 15 F/s",
    }
    return Images(series, shared, varying)
