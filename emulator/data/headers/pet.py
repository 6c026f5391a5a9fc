"""PET: units, decay, the radiopharmaceutical, and a rescale slope that differs by slice."""

from __future__ import annotations

from emulator.data.headers.geometry import stack
from emulator.data.headers.images import Images, Scan, pixels
from emulator.data.headers.values import Attributes, code, ds, ds_list, integer

_PET = "1.2.840.10008.5.1.4.1.1.128"
_AGENTS = (
    ("FDG -- fluorodeoxyglucose", "Fluorine", "C-B1031", "Fluorodeoxyglucose F^18^", 6586.2),
    ("Ga-68 PSMA", "Gallium", "126713", "Ga-68 PSMA-11", 4062.6),
    ("F-18 Florbetapir", "Fluorine", "C-E0269", "Florbetapir F^18^", 6586.2),
)


def images(scan: Scan) -> Images:
    """Returns the attributes of a PET series."""
    chance, scanner = scan.chance, scan.scanner
    thickness = chance.choice((2.0, 3.0, 3.27, 4.0, 5.0))
    rows, spacing = scanner.rows, scanner.spacing
    lying = stack(
        chance,
        scan.instances,
        spacing=thickness,
        field_mm=rows * spacing,
        geometry=scan.plan.geometry,
        decimals=scanner.decimals,
    )
    units = chance.choice(("BQML", "BQML", "BQML", "CNTS", "GML"))
    agent, element, value, meaning, half_life = chance.choice(_AGENTS)
    isotope = "^18^Fluorine" if element == "Fluorine" else "^68^Gallium"
    shared: Attributes = {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SOPClassUID": _PET,
        **pixels(rows, rows, bits=16, signed=True),
        "SliceThickness": ds(thickness),
        "SpacingBetweenSlices": ds(thickness),
        "PixelSpacing": ds_list((spacing, spacing)),
        "ImageOrientationPatient": lying.orientation(),
        "Units": units,
        "SUVType": "BW" if units == "GML" else None,
        "CountsSource": "EMISSION",
        "SeriesType": ["WHOLE BODY", "IMAGE"],
        "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"],
        "DecayCorrection": chance.choice(("START", "START", "ADMIN", "NONE")),
        "RandomsCorrectionMethod": "DLYD",
        "AttenuationCorrectionMethod": "CT-derived mu-map",
        "ScatterCorrectionMethod": "Model-based",
        "ReconstructionMethod": chance.choice(
            ("PSF+TOF 2i21s", "OSEM3D 3i24s", "VPFXS", "BLOB-OS")
        ),
        "NumberOfSlices": scan.instances,
        "ActualFrameDuration": integer(chance.choice((90_000, 120_000, 180_000))),
        "RescaleIntercept": integer(0),
        "RadiopharmaceuticalInformationSequence": [
            {
                "Radiopharmaceutical": agent,
                "RadiopharmaceuticalVolume": ds(0),
                "RadiopharmaceuticalStartTime": scan.study_time,
                "RadionuclideTotalDose": ds(chance.randrange(180, 420) * 1_000_000),
                "RadionuclideHalfLife": ds(half_life),
                "RadionuclidePositronFraction": ds(0.967),
                "RadionuclideCodeSequence": code("C-111A1", "SRT", isotope),
                "RadiopharmaceuticalCodeSequence": code(value, "SRT", meaning),
            }
        ],
        "BurnedInAnnotation": "NO",
    }
    slope = chance.uniform(0.2, 3)
    varying = [
        {
            # Each slice is scaled to its own maximum.
            "RescaleSlope": ds(slope * (1 + (number * 53 % 40) / 40)),
            "ImageIndex": number + 1,
            "FrameReferenceTime": ds(60_000 * (1 + number // 47)),
            "DecayFactor": ds(1 + number / 10_000),
            **lying.place(number),
        }
        for number in range(scan.instances)
    ]
    series: Attributes = {
        "SeriesDescription": "PET WB (AC)" if units == "BQML" else "PET WB uncorrected",
        "ProtocolName": "PETCT_WholeBody (Adult)",
        "PatientPosition": "HFS",
    }
    return Images(series, shared, varying)
