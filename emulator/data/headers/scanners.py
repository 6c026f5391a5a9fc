"""The scanners of the synthetic hospital: which device made a series.

It reads `scanners.json`. A study has one scanner for each modality. See `ct`, `mr` and the other
modules for what a scanner writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from emulator.data.headers.values import Attributes
from emulator.seeded import fraction

_INSTITUTIONS = ("Northcote General Hospital", "Ellerby Clinic", "St. Pemberley Infirmary")


@dataclass(frozen=True)
class Scanner:
    """A device: how it names itself, and what its modality needs.

    Attributes:
        decimals: Digits after the point in its DS values; `None` writes as few as needed.
        rows: The rows of its usual image; 0 where the protocol decides.
        spacing: The distance of two pixels in mm; 0 where the protocol decides.
    """

    manufacturer: str
    model: str
    software: tuple[str, ...]
    decimals: int | None = None
    rows: int = 0
    columns: int = 0
    spacing: float = 0.0
    enhanced: bool = False
    tesla: str = ""
    kernels: dict[str, Any] | None = None
    type: str = ""

    @property
    def brand(self) -> str:
        """Returns the maker's first word, such as `SIEMENS`, in capitals."""
        return self.manufacturer.split()[0].upper()

    def attributes(self, number: int) -> Attributes:
        """Returns the General Equipment module of one of several such devices."""
        return {
            "Manufacturer": self.manufacturer,
            "ManufacturerModelName": self.model,
            "SoftwareVersions": list(self.software),
            "InstitutionName": _INSTITUTIONS[number % len(_INSTITUTIONS)],
            "InstitutionAddress": None,
            "InstitutionalDepartmentName": "Radiology",
            "StationName": f"{self.brand[:3]}{number:02d}",
            "DeviceSerialNumber": str(10_000 + number * 379 + len(self.model)),
        }


def scanner(study_uid: str, modality: str) -> tuple[Scanner, int]:
    """Returns the device that made the series of one modality in a study, and its number."""
    known = _scanners()
    devices = known.get(modality, known[""])
    drawn = fraction("scanner", study_uid, modality)
    return devices[int(drawn * len(devices))], 1 + int(drawn * 10_000) % 4


@cache
def _scanners() -> dict[str, list[Scanner]]:
    raw = json.loads(files("emulator.data.headers").joinpath("scanners.json").read_bytes())
    known: dict[str, list[Scanner]] = {}
    for modality, devices in raw.items():
        known[modality] = []
        for device in devices:
            # A scanner occurs as often as its weight says.
            weight, software = device.pop("weight"), tuple(device.pop("software"))
            known[modality] += [Scanner(software=software, **device)] * weight
    return known
