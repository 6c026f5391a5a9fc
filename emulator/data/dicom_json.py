"""DICOM JSON (PS3.18 annex F): the attributes of a metadata document by tag, with their VRs.

HealthImaging's own documents name attributes by keyword, and its DICOMweb answers by tag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

_BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_NUMBERS = {"DS": float, "IS": int}
_PERSON = ("Alphabetic", "Ideographic", "Phonetic")


def by_tag(attributes: Mapping[str, Any], vrs: Mapping[str, str]) -> dict[str, Any]:
    """Returns attributes by tag, in order of the tags.

    Args:
        attributes: The attributes by keyword, or by tag where they have no keyword.
        vrs: The VRs of those that have no keyword.
    """
    found: dict[str, Any] = {}
    for keyword, value in attributes.items():
        tag = tag_for_keyword(keyword)
        key = keyword.upper() if tag is None else f"{tag:08X}"
        # Elements of the file meta information do not belong into DICOM JSON.
        if not key.startswith("0002"):
            vr = vrs.get(keyword, "UN") if tag is None else _one_of(dictionary_VR(tag), value)
            found[key] = _element(vr, value, vrs)
    return dict(sorted(found.items()))


def _one_of(vr: str, value: Any) -> str:
    """Returns one VR for an element that the dictionary gives two, such as `US or SS`."""
    values = value if isinstance(value, list) else [value]
    negative = any(isinstance(one, int) and one < 0 for one in values)
    return "SS" if negative and vr.startswith("US or SS") else vr.split()[0]


def _element(vr: str, value: Any, vrs: Mapping[str, str]) -> dict[str, Any]:
    if value is None or value == []:
        return {"vr": vr}
    if vr in _BINARY and isinstance(value, str):
        return {"vr": vr, "InlineBinary": value}
    values = value if isinstance(value, list) else [value]
    return {"vr": vr, "Value": [_value(vr, one, vrs) for one in values]}


def _value(vr: str, value: Any, vrs: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return by_tag(value, vrs)
    if not isinstance(value, str):
        return value
    if vr == "PN":
        groups = zip(_PERSON, value.split("="), strict=False)
        return {name: group for name, group in groups if group}
    try:
        # What is no number although it should be one stays as it is.
        return _NUMBERS[vr](value) if vr in _NUMBERS else value.rstrip(" ")
    except ValueError:
        return value
