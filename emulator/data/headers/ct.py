"""CT: kernels, tube, contrast, scouts, gantry tilt and reformatted series."""

from __future__ import annotations

from emulator.data.headers import functional_groups
from emulator.data.headers.geometry import Plane, stack
from emulator.data.headers.images import Images, Scan, pixels
from emulator.data.headers.values import Attributes, code, ds, ds_list, integer

_CT = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_PROTOCOLS = {
    "CHEST": ("Thorax_routine", "CHEST W/O", "5.1 Chest HR"),
    "HEAD": ("Head_routine", "1.1 Routine Head", "CCT plain"),
    "ABDOMEN": ("AbdomenPelvis_PV", "Liver 3 phase", "6.4 ABD/PEL"),
    "WHOLEBODY": ("PETCT_WholeBody (Adult)", "WB Low Dose CT"),
}
_AGENTS = (
    "Omnipaque 350",
    "ISOVUE 370",
    "Ultravist 370 100ml",
    "omni 350 / 90 cc",
    "APPLIED",
    "IV contrast",
)


def images(scan: Scan) -> Images:
    """Returns the attributes of a CT series."""
    if scan.plan.kind == "localizer":
        return _scout(scan)
    chance, scanner = scan.chance, scan.scanner
    use = "sharp" if scan.body == "CHEST" and chance.random() < 0.5 else "soft"
    use = "bone" if scan.body == "HEAD" and chance.random() < 0.3 else use
    kernel = (scanner.kernels or {"soft": "STANDARD", "sharp": "SHARP", "bone": "BONE"})[use]
    thickness = chance.choice((0.625, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0))
    spacing = thickness if chance.random() < 0.6 else round(thickness * 0.7, 3)
    plane: Plane = "axial"
    if scan.plan.geometry == "regular" and scan.number > 2 and chance.random() < 0.3:
        plane = chance.choice(("coronal", "sagittal"))
    field = chance.choice((230.0, 320.0, 350.0, 380.0, 412.5, 500.0))
    rows = 768 if chance.random() < 0.05 else 512
    lying = stack(
        chance,
        scan.instances if scan.plan.kind == "usual" else functional_groups.frame_count(scan),
        spacing=spacing,
        plane=plane,
        field_mm=field,
        geometry=scan.plan.geometry,
        decimals=scanner.decimals,
    )
    current = chance.randrange(80, 420)
    shared: Attributes = {
        "ImageType": _image_type(scan, plane),
        "SOPClassUID": _CT,
        **pixels(rows, rows, signed=scanner.brand == "GE"),
        "KVP": ds(chance.choice((80, 100, 120, 120, 120, 140))),
        "SliceThickness": ds(thickness, scanner.decimals),
        "DataCollectionDiameter": ds(500.0, scanner.decimals),
        "ReconstructionDiameter": ds(field, scanner.decimals),
        "GantryDetectorTilt": ds(lying.tilt_degrees, scanner.decimals),
        "TableHeight": ds(round(chance.uniform(100, 200), 1)),
        "RotationDirection": "CW",
        "ExposureTime": integer(chance.choice((285, 500, 750, 1000))),
        "FilterType": chance.choice(("FLAT", "BODY FILTER", "WEDGE_3", "0")),
        "GeneratorPower": integer(chance.randrange(20, 60)),
        "FocalSpots": ["1.2 "],
        "ConvolutionKernel": kernel if isinstance(kernel, list) else [kernel],
        "PatientOrientation": None,
        "PixelSpacing": ds_list((field / rows, field / rows), scanner.decimals),
        "ImageOrientationPatient": lying.orientation(),
        "WindowCenter": ["40", "-600"] if use == "sharp" else ["40"],
        "WindowWidth": ["400 ", "1200"] if use == "sharp" else ["400 "],
        "RescaleIntercept": integer(-1024),
        "RescaleSlope": integer(1),
        "RescaleType": "HU",
        "AcquisitionType": "SPIRAL",
        "SpiralPitchFactor": chance.choice((0.6, 0.8, 0.984375, 1.2, 1.375)),
        "RevolutionTime": chance.choice((0.285, 0.5, 0.75)),
        "SingleCollimationWidth": 0.6,
        "TotalCollimationWidth": 38.4,
        "CTDIvol": round(chance.uniform(2, 55), 8),
        "BurnedInAnnotation": "NO",
        **_contrast(scan),
    }
    if scanner.brand in ("PHILIPS", "GE"):
        shared["SpacingBetweenSlices"] = ds(spacing, scanner.decimals)
    varying = []
    for number in range(scan.instances if scan.plan.kind == "usual" else 0):
        # The tube's current follows the patient's thickness.
        tube = current + (number * 37) % 90 - 45
        varying.append(
            {
                "XRayTubeCurrent": integer(tube),
                "Exposure": integer(tube // 2),
                **lying.place(number),
            }
        )
    series: Attributes = {
        "SeriesDescription": f"{scan.body or 'CT'} {thickness:.1f} {_first(kernel)}",
        "ProtocolName": chance.choice(_PROTOCOLS.get(scan.body, ("CT_routine",))),
        "PatientPosition": chance.choice(("HFS", "HFS", "FFS")),
    }
    if scan.plan.kind == "enhanced":
        shared |= {"SOPClassUID": _ENHANCED_CT, "XRayTubeCurrent": integer(current)}
        return functional_groups.enhanced(scan, Images(series, shared, []), lying)
    return Images(series, shared, varying)


def _scout(scan: Scan) -> Images:
    """Returns one to three localizers in two planes."""
    chance = scan.chance
    varying: list[Attributes] = []
    for number in range(scan.instances):
        plane: Plane = "coronal" if number % 2 == 0 else "sagittal"
        lying = stack(chance, 1, spacing=1, plane=plane, decimals=scan.scanner.decimals)
        orientation = lying.orientation()
        varying.append({"ImageOrientationPatient": orientation, **lying.place(0)})
    shared: Attributes = {
        "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        "SOPClassUID": _CT,
        **pixels(chance.choice((512, 883, 888)), 512),
        "KVP": ds(120),
        "XRayTubeCurrent": integer(35),
        "ExposureTime": integer(4600),
        "SliceThickness": ds(0.6) if scan.scanner.brand == "SIEMENS" else None,
        "ScanOptions": ["SCOUT MODE"],
        "PixelSpacing": ds_list((1.0, 1.0)),
        "ConvolutionKernel": ["T80s"],
        "RescaleIntercept": integer(-1024),
        "RescaleSlope": integer(1),
        "BurnedInAnnotation": "NO",
    }
    series: Attributes = {
        "SeriesDescription": chance.choice(("Topogram  0.6  T80s", "Scout", "Surview", "Scano")),
        "ProtocolName": chance.choice(_PROTOCOLS.get(scan.body, ("CT_routine",))),
        "PatientPosition": "HFS",
    }
    return Images(series, shared, varying)


def _image_type(scan: Scan, plane: Plane) -> list[str]:
    if plane != "axial":
        return ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]
    named = [scan.scanner.type] if scan.scanner.type else []
    return ["ORIGINAL", "PRIMARY", "AXIAL", *named]


def _contrast(scan: Scan) -> Attributes:
    """Returns what is said about contrast: mostly free text, sometimes nothing at all."""
    chance = scan.chance
    if chance.random() < 0.5:
        return {"ContrastBolusAgent": None} if chance.random() < 0.3 else {}
    spoken: Attributes = {
        "ContrastBolusAgent": chance.choice(_AGENTS),
        "ContrastBolusRoute": chance.choice(("IV", "Intravenous", "Oral & IV")),
    }
    if chance.random() < 0.5:
        spoken |= {
            "ContrastBolusVolume": ds(chance.randrange(60, 130)),
            "ContrastBolusTotalDose": ds(chance.randrange(60, 130)),
            "ContrastFlowRate": ds_list((chance.choice((2.5, 3.0, 4.0)),)),
            "ContrastBolusIngredient": "IODINE",
            "ContrastBolusAgentSequence": code("C-B0317", "SRT", "Iohexol"),
        }
    return spoken


def _first(kernel: str | list[str]) -> str:
    return kernel if isinstance(kernel, str) else kernel[0]
