"""Whether the slices of a series are a regularly spaced volume, and why not.

A volume has at least two slices, one orientation, one size, one pixel spacing, no two slices at the
same place, and slices at equal distances along the normal, without a gap and without gantry tilt.
These are the conditions of IDC's `regularly_spaced_3d_volume`. See PS3.3 C.7.6.2.1 for the
attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cohortlake.dicom_values import number_of

_TOLERANCE_MM = 0.2
"""How much distances between slices may differ, and how far a slice may lie beside the normal."""
_SAME_DIRECTION = 1e-3
"""How far the cosines of two slices of one orientation may differ: scanners round them."""
_SAME_SPACING = 1e-4  # mm
_SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class Volume:
    """What the slices are.

    Attributes:
        is_regular: Whether they are a regularly spaced volume.
        reason: Why not, in a few words; empty where they are one.
        spacing_mm: The median distance between slices along the normal; None where there is none.
    """

    is_regular: bool
    reason: str = ""
    spacing_mm: float | None = None


class Slices:
    """The places of all slices of an image set."""

    def __init__(self) -> None:
        self._positions: list[list[float]] = []
        self._orientations: list[list[float]] = []
        self._sizes: set[tuple[str, ...]] = set()
        self._spacings: list[list[float]] = []
        self._without = 0

    def add(self, attributes: Mapping[str, Any]) -> None:
        """Add a slice by the attributes of its instance or frame."""
        position = _numbers(attributes.get("ImagePositionPatient"), 3)
        orientation = _numbers(attributes.get("ImageOrientationPatient"), 6)
        if position is None or orientation is None:
            self._without += 1
            return
        self._positions.append(position)
        self._orientations.append(orientation)
        self._sizes.add(tuple(_text(attributes.get(name)) for name in ("Rows", "Columns")))
        spacing = _numbers(attributes.get("PixelSpacing"), 2)
        self._spacings.append(spacing or [0.0, 0.0])

    def volume(self) -> Volume:
        """Return what they are."""
        if len(self._positions) + self._without < 2:
            return Volume(False, "fewer than two slices")
        if self._without:
            return Volume(False, "slices without a position or an orientation")
        orientations = np.array(self._orientations)
        if np.abs(orientations - orientations[0]).max() > _SAME_DIRECTION:
            return Volume(False, "several orientations")
        if len(self._sizes) > 1:
            return Volume(False, "several sizes of image")
        spacings = np.array(self._spacings)
        if not spacings.all():
            return Volume(False, "no pixel spacing")
        if np.abs(spacings - spacings[0]).max() > _SAME_SPACING:
            return Volume(False, "several pixel spacings")
        normal = np.cross(orientations[0][:3], orientations[0][3:])
        length = np.linalg.norm(normal)
        if length < 1 - 10 * _SAME_DIRECTION:
            return Volume(False, "rows and columns that are not at right angles")
        return _along(np.array(self._positions), normal / length)


def _along(positions: np.ndarray, normal: np.ndarray) -> Volume:
    """Return what slices of one orientation are, by their places along the normal."""
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    distances = np.diff(positions @ normal)
    spacing = float(np.median(distances))
    if (distances < _SAME_PLACE_MM).any():
        return Volume(False, "several slices at one place", spacing if spacing > 0 else None)
    if (distances > 2 * spacing - _TOLERANCE_MM).any():
        return Volume(False, "missing slices", spacing)
    if distances.max() - distances.min() > _TOLERANCE_MM:
        return Volume(False, "unequal distances between slices", spacing)
    beside = positions - positions[0]
    beside = beside - np.outer(beside @ normal, normal)
    if np.linalg.norm(beside, axis=1).max() > _TOLERANCE_MM:
        return Volume(False, "gantry tilt", spacing)
    return Volume(True, "", spacing)


def _numbers(value: Any, count: int) -> list[float] | None:
    """Return the numbers of an attribute with a fixed number of values, or None."""
    values = value.split("\\") if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) != count:
        return None
    numbers = [number for each in values if (number := number_of(each)) is not None]
    return numbers if len(numbers) == count else None


def _text(value: Any) -> str:
    return str(value).strip()
