"""Private elements: what the makers of scanners add beside the standard's attributes.

In a document a private element has its tag as key, eight hexadecimal digits. `DICOMVRs` beside it
says the VR, which no dictionary knows.
"""

from __future__ import annotations

from base64 import b64encode
from random import Random

from emulator.data.headers.scanners import Scanner
from emulator.data.headers.values import Attributes

VRS = {
    "00090010": "LO",
    "00091001": "LO",
    "00091027": "SL",
    "00190010": "LO",
    "0019100C": "IS",
    "00191023": "DS",
    "0019109C": "LO",
    "00290010": "LO",
    "00291010": "OB",
    "00291018": "CS",
    "00430010": "LO",
    "00431039": "IS",
    "20010010": "LO",
    "20011003": "FL",
    "20011020": "LO",
    "20051080": "SQ",
    "70050010": "LO",
    "7005100B": "FD",
}
"""The VR of each private element that the hospital's scanners write."""


def elements(scanner: Scanner, modality: str, chance: Random) -> Attributes:
    """Returns the private elements that all instances of a series share."""
    if modality not in ("CT", "MR", "PT"):
        return {}
    if scanner.brand == "SIEMENS":
        csa = b64encode(chance.randbytes(chance.choice((48, 600)))).decode()
        return {"00290010": "SIEMENS CSA HEADER", "00291010": csa, "00291018": "IMAGE NUM 4"}
    if scanner.brand == "GE":
        return {
            "00090010": "GEMS_IDEN_01",
            "00091001": "GE_GENESIS_FF" if modality == "MR" else "CT_LIGHTSPEED",
            "00091027": 1_577_836_800,
            "00190010": "GEMS_ACQU_01",
            "00191023": "39.37 ",
        }
    if scanner.brand == "PHILIPS":
        nested = [{"CodeValue": "IDL", "CodeMeaning": None}]
        return {
            "20010010": "Philips Imaging DD 001",
            "20011003": 0.0,
            "20011020": "SE",
            "20051080": nested,
        }
    return {"70050010": "TOSHIBA_MEC_CT3", "7005100B": 0.5}


def vrs(attributes: Attributes) -> dict[str, str]:
    """Returns the VRs of the private elements among some attributes."""
    return {key: VRS[key] for key in attributes if key[0].isdigit()}
