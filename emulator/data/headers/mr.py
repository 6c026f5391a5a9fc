"""MR: pulse sequences, several echoes, b-values, field strengths, planes and localizers."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.data.headers import functional_groups
from emulator.data.headers.geometry import Plane, stack
from emulator.data.headers.images import Images, Scan, pixels
from emulator.data.headers.values import Attributes, ds, ds_list, integer

_MR = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_AGENTS = ("Dotarem", "GADAVIST 7 ML", "Magnevist", "gd", "ProHance 15cc")


@dataclass(frozen=True)
class _Sequence:
    """A pulse sequence. Times are in milliseconds."""

    name: str
    scanning: tuple[str, ...]
    variant: tuple[str, ...]
    dimensions: str
    repetition: float
    echoes: tuple[float, ...]
    flip: float
    inversion: float = 0.0
    b_values: tuple[int, ...] = ()
    weight: int = 1


_SEQUENCES = (
    _Sequence("t1_se_tra", ("SE",), ("SP",), "2D", 550, (9.1,), 90, weight=5),
    _Sequence("t2_tse_sag", ("SE",), ("SK", "SP"), "2D", 4200, (96,), 150, weight=6),
    _Sequence("t2_flair_tra", ("SE", "IR"), ("SK", "SP"), "2D", 9000, (89,), 150, 2500, weight=4),
    _Sequence("t1_mprage_sag", ("GR", "IR"), ("SP", "MP"), "3D", 2300, (2.98,), 9, 900, weight=4),
    _Sequence(
        "ep2d_diff_3scan", ("EP",), ("SK", "SP"), "2D", 6100, (98,), 90,
        b_values=(0, 500, 1000), weight=4,
    ),
    _Sequence("pd+t2_tse_dual", ("SE",), ("SK",), "2D", 3500, (11, 94), 180, weight=2),
    _Sequence("t2_fl2d_multi", ("GR",), ("SP",), "2D", 900, (4.4, 9.2, 14.0, 18.8, 23.6), 25),
    _Sequence("t1_vibe_dixon", ("GR",), ("SP", "OSP"), "3D", 6.9, (2.39, 4.77), 10, weight=2),
)  # fmt: skip
_PLANES: tuple[Plane, ...] = ("axial", "sagittal", "coronal", "oblique", "oblique")
_LOCALIZER = _Sequence("localizer", ("GR",), ("SP", "OSP"), "2D", 8.6, (4.0,), 20)


def images(scan: Scan) -> Images:
    """Returns the attributes of an MR series."""
    chance, scanner = scan.chance, scan.scanner
    localizer = scan.plan.kind == "localizer"
    weights = [one.weight for one in _SEQUENCES]
    chosen = _LOCALIZER if localizer else chance.choices(_SEQUENCES, weights=weights)[0]
    plane = chance.choice(_PLANES)
    thickness = 1.0 if chosen.dimensions == "3D" else chance.choice((3.0, 4.0, 5.0))
    gap = 0.0 if chosen.dimensions == "3D" else thickness * chance.choice((0.0, 0.1, 0.2))
    rows = chance.choice((256, 320, 384, 512))
    field = chance.choice((160.0, 200.0, 230.0, 256.0, 380.0))
    shared: Attributes = {
        "ImageType": _image_type(scan, chosen),
        "SOPClassUID": _MR,
        **pixels(rows, rows),
        "ScanningSequence": list(chosen.scanning),
        "SequenceVariant": list(chosen.variant),
        "ScanOptions": ["FS"] if chance.random() < 0.3 else None,
        "MRAcquisitionType": chosen.dimensions,
        "SequenceName": f"*{chosen.name[:6]}",
        "AngioFlag": "N",
        "SliceThickness": ds(thickness, scanner.decimals),
        "SpacingBetweenSlices": ds(thickness + gap, scanner.decimals),
        "RepetitionTime": ds(chosen.repetition, scanner.decimals),
        "NumberOfAverages": ds(chance.choice((1, 1, 2, 3))),
        "ImagingFrequency": ds(123.25 if scanner.tesla.startswith("3") else 63.67),
        "ImagedNucleus": "1H",
        "MagneticFieldStrength": scanner.tesla,
        "EchoTrainLength": integer(chance.choice((1, 7, 15, 21))),
        "PercentSampling": ds(100),
        "PercentPhaseFieldOfView": ds(chance.choice((75, 87.5, 100))),
        "PixelBandwidth": ds(chance.choice((130, 190, 223, 781))),
        "TransmitCoilName": "Body",
        "AcquisitionMatrix": [0, rows, rows * 3 // 4, 0],
        "InPlanePhaseEncodingDirection": chance.choice(("ROW", "COL")),
        "FlipAngle": ds(chosen.flip),
        "SAR": ds(round(chance.uniform(0.02, 1.9), 6)),
        "PixelSpacing": ds_list((field / rows, field / rows), scanner.decimals),
        "WindowCenter": ["600 "],
        "WindowWidth": ["1200"],
    }
    if chosen.inversion:
        shared["InversionTime"] = ds(chosen.inversion)
    if chance.random() < 0.25:
        shared |= {
            "ContrastBolusAgent": chance.choice(_AGENTS),
            "ContrastBolusRoute": chance.choice(("IV", "INTRAVENOUS", "")) or None,
            "ContrastBolusVolume": ds(chance.choice((7, 7.5, 10, 15))),
        }
    series: Attributes = {
        "SeriesDescription": chosen.name + ("_KM" if "ContrastBolusAgent" in shared else ""),
        "ProtocolName": chosen.name,
        "PatientPosition": "HFS" if scan.body != "KNEE" else "FFS",
    }
    if scan.body == "KNEE":
        series["Laterality"] = chance.choice(("L", "R"))
    placed = Images(series, shared, [])
    if localizer:
        return _localizer(scan, placed, field)
    return _stacked(scan, placed, chosen, plane, thickness + gap, field)


def _stacked(
    scan: Scan, images: Images, chosen: _Sequence, plane: Plane, spacing: float, field: float
) -> Images:
    """Returns a stack of slices, several times where there are several echoes or b-values."""
    repeats = max(1, len(chosen.echoes), len(chosen.b_values))
    enhanced = scan.plan.kind == "enhanced"
    count = functional_groups.frame_count(scan) if enhanced else -(-scan.instances // repeats)
    geometry = scan.plan.geometry if repeats == 1 else "regular"
    lying = stack(
        scan.chance,
        count,
        spacing=spacing,
        plane=plane,
        field_mm=field,
        geometry=geometry,
        decimals=scan.scanner.decimals,
    )
    shared = images.shared | {"ImageOrientationPatient": lying.orientation()}
    echoes = [ds(echo, scan.scanner.decimals) for echo in chosen.echoes]
    if len(echoes) == 1:
        shared |= {"EchoTime": echoes[0], "EchoNumbers": ["1 "]}
    if enhanced:
        shared |= {"SOPClassUID": _ENHANCED_MR, "EchoTime": echoes[0]}
        return functional_groups.enhanced(scan, Images(images.series, shared, []), lying)
    varying = []
    for number in range(scan.instances):
        part, place = divmod(number, count)
        own: Attributes = lying.place(place)
        if len(echoes) > 1:
            own |= {"EchoTime": echoes[part], "EchoNumbers": [integer(part + 1)]}
        if chosen.b_values:
            own |= _b_value(scan, chosen.b_values[part])
        varying.append(own)
    return Images(images.series, shared, varying)


def _b_value(scan: Scan, b_value: int) -> Attributes:
    """Returns a b-value as its maker writes it: standard, private, or both."""
    if scan.scanner.brand == "SIEMENS" and "VB" in str(scan.scanner.software):
        return {"00190010": "SIEMENS MR HEADER", "0019100C": integer(b_value)}
    if scan.scanner.brand == "GE":
        return {"00430010": "GEMS_PARM_01", "00431039": [str(b_value), "8", "0", "0 "]}
    return {"DiffusionBValue": float(b_value)}


def _localizer(scan: Scan, images: Images, field: float) -> Images:
    """Returns slices in three planes, as a localizer has them."""
    varying = []
    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
    for number in range(scan.instances):
        plane = planes[number % 3]
        lying = stack(scan.chance, 1, spacing=10, plane=plane, field_mm=field)
        orientation = lying.orientation()
        varying.append({"ImageOrientationPatient": orientation, **lying.place(0)})
    shared = images.shared | {"EchoTime": ds(4.0), "EchoNumbers": ["1 "]}
    return Images(images.series, shared, varying)


def _image_type(scan: Scan, chosen: _Sequence) -> list[str]:
    if scan.plan.kind == "localizer":
        return ["ORIGINAL", "PRIMARY", "LOCALIZER" if scan.chance.random() < 0.5 else "M"]
    if chosen.b_values:
        kind = "ADC" if scan.chance.random() < 0.2 else "DIFFUSION"
        return ["DERIVED", "PRIMARY", "DIFFUSION", kind]
    return ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
