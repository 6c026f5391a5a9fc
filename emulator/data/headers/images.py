"""What the modules of the modalities get and give: one scan in, the attributes of its images out.

See `ct`, `mr`, `pet`, `projection` and `ultrasound` for the modalities.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from emulator.data.headers.plan import Plan
from emulator.data.headers.scanners import Scanner
from emulator.data.headers.values import Attributes


@dataclass(frozen=True)
class Scan:
    """One series that is to get a header.

    Attributes:
        body: BodyPartExamined, or an empty text.
        number: SeriesNumber, or 1 if it has none.
        study_time: A TM value with which the times of the series begin.
        chance: The generator of the series. Equal series have equal numbers.
    """

    modality: str
    body: str
    number: int
    instances: int
    study_date: str
    study_time: str
    series_uid: str
    scanner: Scanner
    plan: Plan
    chance: Random


@dataclass(frozen=True)
class Images:
    """The attributes of a series.

    Attributes:
        series: Attributes at the series level.
        shared: Attributes that are the same in all instances.
        varying: For each instance, the attributes in which it differs from the others.
    """

    series: Attributes
    shared: Attributes
    varying: list[Attributes]


def pixels(
    rows: int,
    columns: int,
    *,
    bits: int = 12,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
) -> Attributes:
    """Returns the Image Pixel module, whose numbers are JSON numbers."""
    samples = 1 if photometric.startswith("MONOCHROME") else 3
    attributes: Attributes = {
        "SamplesPerPixel": samples,
        "PhotometricInterpretation": photometric,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16 if bits > 8 else 8,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    }
    return attributes | ({"PlanarConfiguration": 0} if samples > 1 else {})
