"""DICOM elements as JSON: a data set of pydicom becomes attributes as the service sends them.

DS and IS keep the text of the file, with its padding. See `headers.values` for the same rules in
synthetic headers.
"""

from __future__ import annotations

import math
from base64 import b64encode
from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

Attributes = dict[str, Any]

_PIXELS = 0x7FE0
_TEXT_NUMBERS = ("DS", "IS")
# What pydicom raises for values that break the standard.
_UNREADABLE = (ValueError, TypeError, KeyError, NotImplementedError, OverflowError)


def attributes(dataset: Dataset, vrs: dict[str, str]) -> Attributes:
    """Returns a data set by keyword, without its pixels.

    Args:
        dataset: The data set, as read from a file.
        vrs: Receives the VR of each element that has a tag instead of a keyword as its key.
    """
    found: Attributes = {}
    for tag in sorted(dataset.keys()):
        if tag.group == _PIXELS or tag.element == 0:
            continue
        value = _value(dataset, tag, _raw_vr(dataset, tag), vrs)
        key = keyword_for_tag(tag)
        # The keyword of a repeating group, such as an overlay, does not say which group it is.
        if not key or tag_for_keyword(key) != tag:
            key = f"{int(tag):08X}"
            vrs[key] = _vr(dataset, tag)
        found[key] = value
    return found


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    """Returns the VR under which an element was read."""
    try:
        return str(dataset[tag].VR)
    except _UNREADABLE:
        return _raw_vr(dataset, tag)


def _raw_vr(dataset: Dataset, tag: BaseTag) -> str:
    """Returns the VR in the file, or that of the dictionary."""
    vr = dataset.get_item(tag).VR
    if vr is None and not tag.is_private:
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "UN"
    return str(vr or "UN")


def _value(dataset: Dataset, tag: BaseTag, vr: str, vrs: dict[str, str]) -> Any:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value is not None and vr in _TEXT_NUMBERS:
        return _listed(tag, raw.value.decode("latin-1").rstrip("\0").split("\\"))
    try:
        value = dataset[tag].value
    except _UNREADABLE:
        return (
            raw.value.decode("latin-1") if isinstance(raw, RawDataElement) and raw.value else None
        )
    if isinstance(value, Sequence):
        return [attributes(item, vrs) for item in value]
    items = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    return _listed(tag, [_plain(item) for item in items])


def _plain(item: Any) -> Any:
    """Returns one value as JSON: bytes as base64, numbers as numbers, all else as text."""
    if isinstance(item, bytes):
        return b64encode(item).decode() if item else None
    if isinstance(item, BaseTag):
        return f"{int(item):08X}"
    if isinstance(item, float) and not math.isfinite(item):
        return None
    if type(item) in (int, float):
        return item
    return None if item is None else str(item)


def _listed(tag: BaseTag, items: list[Any]) -> Any:
    """Returns a list for an element that may have several values, else one value."""
    items = [None if item == "" else item for item in items]
    if all(item is None for item in items):
        return None
    try:
        several = dictionary_VM(tag) != "1"
    except KeyError:
        several = False
    return items if several or len(items) > 1 else items[0]
