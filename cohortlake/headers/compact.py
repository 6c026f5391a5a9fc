"""The compact header of an image set: each attribute once, however many instances it has.

An attribute that is the same in all instances is kept as it was sent. Of one that differs, the
minimum, the maximum, the number of distinct values and the number of instances without it are kept.
So a column that is added later needs no request. Frames of a multi-frame instance count like
instances: what the functional groups say of each frame is compared between the frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from cohortlake.dicom_values import number_of
from cohortlake.headers.geometry import Slices
from cohortlake.healthimaging.document import (
    End,
    Frame,
    ImageSetId,
    Instance,
    InstancePart,
    Level,
    Part,
)

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


class Differing(msgspec.Struct, omit_defaults=True):
    """What is kept of an attribute that differs.

    Attributes:
        minimum: The least value, as sent: by number if all values are numbers, else by text. None
            for sequences and for lists, unless all lists hold as many numbers: then the least one
            at each place.
        maximum: The greatest value, the same way.
        distinct: How many different values there are, without missing ones.
        missing: In how many instances, frames or series it is missing or empty.
    """

    minimum: Any = None
    maximum: Any = None
    distinct: int = 0
    missing: int = 0


class CompactHeader(msgspec.Struct, omit_defaults=True):
    """A header, attribute by attribute.

    Attributes:
        patient: Attributes of the patient, as sent.
        study: Attributes of the study, as sent.
        series: Attributes that are the same in all series; an image set has one.
        instances: Attributes that are the same in all instances.
        frames: Attributes of functional groups that are the same in all frames.
        differing: Attribute -> what is kept of one that is not the same.
        vrs: Attribute -> value representation, where the service says it.
    """

    patient: dict[str, Any] = {}
    study: dict[str, Any] = {}
    series: dict[str, Any] = {}
    instances: dict[str, Any] = {}
    frames: dict[str, Any] = {}
    differing: dict[str, Differing] = {}
    vrs: dict[str, Any] = {}


class InstanceFrames(msgspec.Struct):
    """The frames of one instance."""

    sop_instance_uid: str
    frames: list[Frame]


class Reader:
    """Takes the parts of a document, and gives the compact header.

    Attributes:
        image_set_id: The image set that the document says it is of; None if it does not say.
        instances: The frames of each instance.
        slices: Where the slices lie.
        document_bytes: Size of the document as sent.
    """

    def __init__(self) -> None:
        self.document_bytes = 0
        self.image_set_id: str | None = None
        self.instances: list[InstanceFrames] = []
        self.slices = Slices()
        self._levels: dict[str, dict[str, Any]] = {"Patient": {}, "Study": {}}
        self._series, self._instances, self._frames = _Compared(), _Compared(), _Compared()
        self._vrs: dict[str, Any] = {}

    @property
    def frames(self) -> int:
        """How many frames the instances have."""
        return sum(len(instance.frames) for instance in self.instances)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Reader:
        """Take all parts of a document."""
        reader = cls()
        for part in parts:
            reader.add(part)
        return reader

    def add(self, part: Part) -> None:
        """Add a part of the document."""
        match part:
            case End():
                self.document_bytes = part.size_bytes
            case ImageSetId():
                self.image_set_id = part.image_set_id
            case Level(name="Series"):
                self._series.add(part.with_uid)
            case Level():
                self._levels[part.name] = part.attributes
            case InstancePart():
                self._add_instance(part.uid, part.instance)

    def header(self) -> CompactHeader:
        """Return the header of all parts that were added."""
        compared = (self._series, self._instances, self._frames)
        return CompactHeader(
            patient=self._levels["Patient"],
            study=self._levels["Study"],
            series=self._series.same(),
            instances=self._instances.same(),
            frames=self._frames.same(),
            differing={name: found for part in compared for name, found in part.differing()},
            vrs=self._vrs,
        )

    def _add_instance(self, uid: str, instance: Instance) -> None:
        attributes = {**(instance.attributes or {})}
        shared = _merged(attributes.pop(SHARED, None))
        attributes = {**shared, **attributes}
        if instance.transfer_syntax_uid:
            attributes["StoredTransferSyntaxUID"] = instance.transfer_syntax_uid
        frames = [_merged(item) for item in _items(attributes.pop(PER_FRAME, None))]
        self._instances.add(attributes)
        for frame in frames:
            self._frames.add(frame)
            self.slices.add({**attributes, **frame})
        if not frames:
            self.slices.add(attributes)
        self._vrs.update(instance.vrs or {})
        self.instances.append(InstanceFrames(uid, instance.frames or []))


def _items(sequence: Any) -> list[Any]:
    return sequence if isinstance(sequence, list) else [] if sequence is None else [sequence]


def _merged(groups: Any) -> dict[str, Any]:
    """Return the attributes of functional groups: each group is a sequence of one item."""
    found: dict[str, Any] = {}
    for item in _items(groups):
        for name, value in item.items() if isinstance(item, Mapping) else ():
            inner = _items(value)
            if len(inner) == 1 and isinstance(inner[0], Mapping):
                found |= inner[0]
            else:
                found[name] = value
    return found


class _Compared:
    """Attributes of several things, compared with those of the first one."""

    def __init__(self) -> None:
        self._count = 0
        self._first: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._spreads: dict[str, _Spread] = {}
        self._empty: set[str] = set()

    def add(self, attributes: Mapping[str, Any]) -> None:
        """Add the attributes of one more thing."""
        self._count += 1
        first, counts, spreads = self._first, self._counts, self._spreads
        for name, value in attributes.items():
            if value is None or value == "":
                self._empty.add(name)
            elif name not in first:
                first[name] = value
                counts[name] = 1
            else:
                counts[name] += 1
                if name in spreads:
                    spreads[name].add(value)
                elif value != first[name]:
                    spread = spreads[name] = _Spread()
                    spread.add(first[name])
                    spread.add(value)

    def same(self) -> dict[str, Any]:
        """Return the attributes that are the same in all of them, or empty in all."""
        everywhere = {
            name: value
            for name, value in self._first.items()
            if name not in self._spreads and self._counts[name] == self._count
        }
        return everywhere | dict.fromkeys(sorted(self._empty - self._first.keys()))

    def differing(self) -> Iterator[tuple[str, Differing]]:
        """Yield the other attributes."""
        for name, value in self._first.items():
            missing = self._count - self._counts[name]
            if name in self._spreads:
                yield name, self._spreads[name].summary(missing)
            elif missing:
                yield name, Differing(value, value, 1, missing)


class _Spread:
    """The extremes of differing values, and how many there are."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._numbers: list[tuple[tuple[float, Any], tuple[float, Any]]] | None = None
        self._texts: tuple[str, str] | None = None
        self._is_first = True
        self._is_list = False

    def add(self, value: Any) -> None:
        """Add a value that is not missing."""
        key = hash(msgspec.json.encode(value))
        if key in self._seen:
            return
        self._seen.add(key)
        values = value if isinstance(value, list) else [value]
        places = [(number, v) for v in values if (number := number_of(v)) is not None]
        if len(places) < len(values) or not places:
            places = []
        if self._is_first:
            self._numbers = [(place, place) for place in places] or None
            self._texts = (value, value) if isinstance(value, str) else None
            self._is_list = isinstance(value, list)
            self._is_first = False
            return
        self._is_list |= isinstance(value, list)
        self._numbers = _wider(self._numbers, places)
        if self._texts and isinstance(value, str):
            self._texts = (min(self._texts[0], value), max(self._texts[1], value))
        else:
            self._texts = None

    def summary(self, missing: int) -> Differing:
        """Return what is kept of the values."""
        if self._numbers:
            lows = [low for (_, low), _ in self._numbers]
            highs = [high for _, (_, high) in self._numbers]
            least, greatest = (lows, highs) if self._is_list else (lows[0], highs[0])
        else:
            least, greatest = self._texts or (None, None)
        return Differing(least, greatest, len(self._seen), missing)


_Place = tuple[tuple[float, Any], tuple[float, Any]]


def _wider(known: list[_Place] | None, places: list[tuple[float, Any]]) -> list[_Place] | None:
    if known is None or len(known) != len(places):
        return None
    return [
        (place if place[0] < low[0] else low, place if place[0] > high[0] else high)
        for (low, high), place in zip(known, places, strict=True)
    ]
