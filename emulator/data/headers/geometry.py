"""Where the slices of a series lie: orientation and positions, regular or not.

It works in the patient's coordinates (PS3.3 section C.7.6.2), in mm. See `plan` for which series
are irregular.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from emulator.data.headers.plan import Geometry
from emulator.data.headers.values import Attributes, ds, ds_list

Plane = Literal["axial", "coronal", "sagittal", "oblique"]
Vector = tuple[float, float, float]

_AXES: dict[Plane, tuple[Vector, Vector]] = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}


@dataclass(frozen=True)
class Stack:
    """Parallel slices: the direction cosines of row and column, and a position for each slice."""

    row: Vector
    column: Vector
    positions: list[Vector]
    tilt_degrees: float = 0.0
    decimals: int | None = None

    def orientation(self) -> list[str]:
        """Returns the value of ImageOrientationPatient."""
        decimals = 6 if self.decimals is None and self.is_oblique else self.decimals
        return ds_list((*self.row, *self.column), decimals)

    def place(self, number: int) -> Attributes:
        """Returns the attributes that say where a slice lies."""
        position = self.positions[number]
        location = _dot(position, _cross(self.row, self.column))
        return {
            "ImagePositionPatient": ds_list(position, self.decimals),
            "SliceLocation": ds(location, self.decimals),
        }

    @property
    def is_oblique(self) -> bool:
        """Returns whether a direction cosine is neither 0 nor 1."""
        return any(abs(cosine) not in (0.0, 1.0) for cosine in (*self.row, *self.column))


def stack(
    chance: Random,
    count: int,
    *,
    spacing: float,
    plane: Plane = "axial",
    field_mm: float = 250.0,
    geometry: Geometry = "regular",
    decimals: int | None = None,
) -> Stack:
    """Returns `count` slices.

    Args:
        chance: Draws where they lie.
        count: The number of slices.
        spacing: The distance between two slices along their normal, in mm.
        plane: How they lie in the patient.
        field_mm: Width and height of a slice.
        geometry: What is irregular.
        decimals: Digits after the point; `None` writes as few as needed.
    """
    row, column = _axes(plane, chance)
    tilt = 0.0
    step = _cross(row, column)
    if geometry == "tilted":
        tilt = chance.choice((-18.0, -12.5, 8.0, 15.5, 22.0))
        sine, cosine = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
        # The table moves along the patient's axis, whatever the gantry's tilt.
        column, step = (0.0, cosine, -sine), (0.0, 0.0, 1.0 / cosine)
    start = round(chance.uniform(-400, 400), 1)
    corner = tuple(-field_mm / 2 * (row[axis] + column[axis]) for axis in range(3))
    positions = [
        (
            round(corner[0] + step[0] * (start + offset), 6),
            round(corner[1] + step[1] * (start + offset), 6),
            round(corner[2] + step[2] * (start + offset), 6),
        )
        for offset in _offsets(chance, count, spacing, geometry)
    ]
    return Stack(row, column, positions, tilt, decimals)


def _offsets(chance: Random, count: int, spacing: float, geometry: Geometry) -> list[float]:
    """Returns how far each slice lies from the first one, in mm."""
    offsets = [number * spacing for number in range(count)]
    if geometry == "missing slices":
        for gap in sorted(chance.sample(range(1, count), k=min(3, count // 4))):
            missing = chance.randint(1, 2) * spacing
            offsets[gap:] = [offset + missing for offset in offsets[gap:]]
    elif geometry == "mixed spacing":
        middle = count // 2
        offsets[middle:] = [offset + (offset - offsets[middle]) for offset in offsets[middle:]]
    elif geometry == "repeated positions":
        half = (count + 1) // 2
        offsets = [offsets[number % half] for number in range(count)]
    return offsets


def _axes(plane: Plane, chance: Random) -> tuple[Vector, Vector]:
    if plane != "oblique":
        return _AXES[plane]
    angle, second = (math.radians(chance.uniform(-25, 25)) for _ in range(2))
    row = (math.cos(angle), math.sin(angle), 0.0)
    column = (
        -math.sin(angle) * math.cos(second),
        math.cos(angle) * math.cos(second),
        -math.sin(second),
    )
    return row, column


def _cross(a: Vector, b: Vector) -> Vector:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
