"""The plan of a series: what is special about it, such as a localizer or missing slices.

Everything is decided by the UIDs and the modality, so that the number of instances in a summary
and the header agree, although the header is made much later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emulator.data.headers.scanners import scanner
from emulator.seeded import fraction, generator

Kind = Literal["usual", "localizer", "enhanced"]
Geometry = Literal["regular", "missing slices", "mixed spacing", "repeated positions", "tilted"]
Fault = Literal[
    "none",
    "DS of more than 16 characters",
    "IS with a decimal point",
    "several values of SliceThickness",
    "one value of PixelSpacing",
    "noisy ImageOrientationPatient",
    "SliceThickness with a unit",
    "SliceThickness of zero",
    "decimal comma",
    "blanks around numbers",
    "negative SpacingBetweenSlices",
    "no ImageOrientationPatient",
    "Rows as text",
    "varying SliceThickness",
]

_CROSS_SECTIONAL = ("CT", "MR", "PT")
_WITH_SPACING = (*_CROSS_SECTIONAL, "MG", "DX", "CR", "XA", "NM")
# Kinds of fault with their weights. The orientation's noise is by far the most common one.
_FAULTS: dict[Fault, int] = {
    "none": 160,
    "noisy ImageOrientationPatient": 12,
    "DS of more than 16 characters": 6,
    "IS with a decimal point": 5,
    "several values of SliceThickness": 3,
    "one value of PixelSpacing": 3,
    "varying SliceThickness": 3,
    "SliceThickness of zero": 2,
    "blanks around numbers": 2,
    "negative SpacingBetweenSlices": 2,
    "SliceThickness with a unit": 1,
    "decimal comma": 1,
    "no ImageOrientationPatient": 1,
    "Rows as text": 1,
}
_GEOMETRIES: dict[Geometry, int] = {
    "regular": 80,
    "missing slices": 8,
    "mixed spacing": 7,
    "repeated positions": 5,
}


@dataclass(frozen=True)
class Plan:
    """What is special about a series."""

    kind: Kind
    geometry: Geometry
    fault: Fault


def kind(study_uid: str, modality: str, series_number: object) -> Kind:
    """Returns whether a series is a localizer, has multi-frame instances, or neither."""
    if modality not in ("CT", "MR", "MG"):
        return "usual"
    drawn = fraction("kind", study_uid, modality, series_number)
    if modality != "MG" and series_number == 1:
        return "localizer" if drawn < 0.6 else "usual"
    return "enhanced" if drawn < 0.3 and scanner(study_uid, modality)[0].enhanced else "usual"


def instance_count(study_uid: str, modality: str, series_number: int, usual: int) -> int:
    """Returns the number of instances of a series whose kind decides it, else `usual`."""
    decided = kind(study_uid, modality, series_number)
    if decided == "localizer":
        return 1 + usual % (3 if modality == "CT" else 9)
    return 1 + usual % 2 if decided == "enhanced" else usual


def plan(
    study_uid: str, series_uid: str, modality: str, body: str, number: object, instances: int
) -> Plan:
    """Returns the plan of a series.

    Args:
        study_uid: Its study.
        series_uid: The series.
        modality: Its modality.
        body: Its body part. Only CT of the head has a tilted gantry.
        number: Its SeriesNumber.
        instances: Its number of instances. Fewer than four are regular.
    """
    chance = generator("plan", series_uid)
    chosen = kind(study_uid, modality, number)
    geometry: Geometry = "regular"
    fault = chance.choices(list(_FAULTS), weights=list(_FAULTS.values()))[0]
    if not _fits(fault, modality, chosen):
        fault = "none"
    if modality in _CROSS_SECTIONAL and chosen == "usual" and instances >= 4:
        geometry = chance.choices(list(_GEOMETRIES), weights=list(_GEOMETRIES.values()))[0]
        if modality == "CT" and body == "HEAD" and chance.random() < 0.3:
            geometry = "tilted"
    return Plan(chosen, geometry, fault)


def _fits(fault: Fault, modality: str, chosen: Kind) -> bool:
    """Returns whether a series of this kind has the attribute that the fault is about."""
    if fault == "IS with a decimal point":
        return True
    if fault == "DS of more than 16 characters":
        return chosen != "enhanced" and modality in _WITH_SPACING
    return chosen == "usual" and modality in _CROSS_SECTIONAL
