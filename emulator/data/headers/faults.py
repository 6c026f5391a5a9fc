"""Values that are wrong in the wild: what real scanners and archives write against the standard.

One fault at most is put into a series. See `plan` for how often which one occurs.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from emulator.data.headers.plan import Fault
from emulator.data.headers.values import Attributes, ds, ds_list

Varying = list[Attributes]

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")


def add(fault: Fault, shared: Attributes, varying: Varying, chance: Random) -> None:
    """Puts a fault into the attributes of a series, in place.

    Args:
        fault: What is wrong.
        shared: The attributes that all instances share.
        varying: The attributes of each instance that differ.
        chance: Draws the noise.
    """
    if fault in _FAULTS:
        _FAULTS[fault](shared, varying, chance)


def _long_ds(shared: Attributes, varying: Varying, chance: Random) -> None:
    for keyword in _SPACINGS:
        if keyword in shared:
            shared[keyword] = [f"{float(text):.17f}" for text in shared[keyword]]


def _decimal_is(shared: Attributes, varying: Varying, chance: Random) -> None:
    for own in varying:
        own["InstanceNumber"] = f"{int(own['InstanceNumber'])}.0"
    for keyword in ("ExposureTime", "EchoTrainLength", "XRayTubeCurrent"):
        if isinstance(shared.get(keyword), str):
            shared[keyword] = f"{int(shared[keyword])}.5"


def _many_thicknesses(shared: Attributes, varying: Varying, chance: Random) -> None:
    shared["SliceThickness"] = ds_list((float(shared["SliceThickness"]),) * 2)


def _one_spacing(shared: Attributes, varying: Varying, chance: Random) -> None:
    first = shared["PixelSpacing"][0]
    shared["PixelSpacing"] = first if chance.random() < 0.5 else [first]


def _noisy(shared: Attributes, varying: Varying, chance: Random) -> None:
    cosines = [float(text) for text in shared.pop("ImageOrientationPatient")]
    for own in varying:
        noisy = (cosine + chance.uniform(-2e-5, 2e-5) for cosine in cosines)
        own["ImageOrientationPatient"] = ds_list(tuple(noisy), 7)


def _varying_thickness(shared: Attributes, varying: Varying, chance: Random) -> None:
    thickness = float(shared.pop("SliceThickness"))
    for number, own in enumerate(varying):
        own["SliceThickness"] = ds(thickness * (2 if number % 3 == 0 else 1))


def _negative_spacing(shared: Attributes, varying: Varying, chance: Random) -> None:
    usual = shared.get("SpacingBetweenSlices") or shared["SliceThickness"]
    shared["SpacingBetweenSlices"] = ds(-float(usual))


def _blanks(shared: Attributes, varying: Varying, chance: Random) -> None:
    for keyword in ("SliceThickness", "KVP", "RepetitionTime"):
        if isinstance(shared.get(keyword), str):
            shared[keyword] = f"  {shared[keyword].strip()}  "


def _set(
    keyword: str, value: Callable[[Any], Any]
) -> Callable[[Attributes, Varying, Random], None]:
    """Returns a fault that replaces one attribute that all instances share."""

    def replace(shared: Attributes, varying: Varying, chance: Random) -> None:
        shared[keyword] = value(shared[keyword])

    return replace


_FAULTS: dict[Fault, Callable[[Attributes, Varying, Random], None]] = {
    "DS of more than 16 characters": _long_ds,
    "IS with a decimal point": _decimal_is,
    "several values of SliceThickness": _many_thicknesses,
    "one value of PixelSpacing": _one_spacing,
    "noisy ImageOrientationPatient": _noisy,
    "SliceThickness with a unit": _set("SliceThickness", lambda text: f"{float(text):g} mm"),
    "SliceThickness of zero": _set("SliceThickness", lambda _: ds(0)),
    "decimal comma": _set("SliceThickness", lambda text: f"{float(text):.2f}".replace(".", ",")),
    "blanks around numbers": _blanks,
    "negative SpacingBetweenSlices": _negative_spacing,
    "no ImageOrientationPatient": _set("ImageOrientationPatient", lambda _: None),
    "Rows as text": _set("Rows", str),
    "varying SliceThickness": _varying_thickness,
}
