"""Reads a folder of DICOM P10 files and groups them into image sets as HealthImaging does.

It decides which file belongs to which image set, and makes their metadata documents. See `elements`
for the values and `frames` for the pixels.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError

from emulator.data import frames
from emulator.data.elements import attributes
from emulator.data.frames import Frame
from emulator.data.levels import (
    INTEGERS,
    PATIENT,
    PATIENT_LEVEL,
    SERIES,
    SERIES_LEVEL,
    STUDY,
    STUDY_LEVEL,
)
from emulator.data.metadata import pack
from emulator.data.records import FREQUENT, Record, from_summary
from emulator.data.store import Datastore, Document
from emulator.datetimes import seconds
from emulator.seeded import identifier
from emulator.wire import encode

Level = dict[str, Any]


@dataclass(frozen=True)
class Import:
    """The result for one folder: records, their documents and frames, number of skipped files."""

    records: list[Record]
    documents: list[Document]
    frames: list[tuple[int, str, Frame]]
    skipped: int


@dataclass(frozen=True)
class _Instance:
    """One file: its identifiers, its patient, study and series attributes, and all others."""

    study_uid: str
    series_uid: str
    sop_uid: str
    patient: Level
    study: Level
    series: Level
    own: Level
    frames: list[Frame]


@dataclass
class _ImageSet:
    """An image set during grouping. Its instances have the same patient, study and series."""

    first: _Instance
    instances: dict[str, Level] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)

    def takes(self, other: _Instance) -> bool:
        """Returns whether an instance belongs here: it conflicts at no level, nor with itself."""
        first = self.first
        agrees = (first.patient, first.study, first.series) == (
            other.patient,
            other.study,
            other.series,
        )
        return agrees and self.instances.get(other.sop_uid, other.own) == other.own


def read(folder: Path, datastore: Datastore, now_ms: int) -> Import:
    """Reads a folder of DICOM P10 files.

    Args:
        folder: The folder. It is searched recursively, in order of the paths.
        datastore: The data store of the image sets.
        now_ms: The `createdAt` of the image sets.

    Raises:
        ValueError: If the folder does not exist.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a folder of DICOM files")
    series: dict[tuple[str, str], list[_ImageSet]] = {}
    skipped = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        instance = _instance(path)
        if instance is None:
            skipped += 1
            continue
        image_sets = series.setdefault((instance.study_uid, instance.series_uid), [])
        taker = next((one for one in image_sets if one.takes(instance)), None)
        if taker is None:
            taker = _ImageSet(instance)
            image_sets.append(taker)
        if instance.sop_uid not in taker.instances:
            taker.frames += instance.frames
        taker.instances[instance.sop_uid] = instance.own
    imported = list(_image_sets(series, datastore, now_ms))
    return Import(
        [record for record, _ in imported],
        [
            (datastore.number, record.image_set_id, 1, pack(encode(_document(image_set))))
            for record, image_set in imported
        ],
        [
            (datastore.number, record.image_set_id, frame)
            for record, image_set in imported
            for frame in image_set.frames
        ],
        skipped,
    )


def renamed(record: Record, image_set_id: str, *, is_primary: bool) -> Record:
    """Returns an imported image set under another id."""
    summary = record.wire() | {"imageSetId": image_set_id, "isPrimary": is_primary}
    return from_summary(record.datastore, summary, instances=record.instances)


def _image_sets(
    series: dict[tuple[str, str], list[_ImageSet]], datastore: Datastore, now_ms: int
) -> Iterator[tuple[Record, _ImageSet]]:
    totals: dict[str, tuple[set[str], set[str]]] = {}
    for (study_uid, series_uid), image_sets in series.items():
        series_uids, sop_uids = totals.setdefault(study_uid, (set(), set()))
        series_uids.add(series_uid)
        sop_uids.update(uid for image_set in image_sets for uid in image_set.instances)
    for (study_uid, series_uid), image_sets in series.items():
        counts = {
            "DICOMNumberOfStudyRelatedSeries": len(totals[study_uid][0]),
            "DICOMNumberOfStudyRelatedInstances": len(totals[study_uid][1]),
        }
        for place, image_set in enumerate(image_sets):
            image_set_id = identifier(datastore.id, study_uid, series_uid, place)
            summary = {
                "imageSetId": image_set_id,
                "version": 1,
                "createdAt": seconds(now_ms),
                "updatedAt": seconds(now_ms),
                "lastAccessedAt": seconds(now_ms),
                "storageTier": FREQUENT,
                "DICOMTags": _tags(image_set.first) | counts,
                "isPrimary": place == 0,
            }
            record = from_summary(datastore.number, summary, instances=len(image_set.instances))
            yield record, image_set


def _document(image_set: _ImageSet) -> dict[str, Any]:
    first = image_set.first
    series = {first.series_uid: {"DICOM": first.series, "Instances": image_set.instances}}
    study = {"DICOM": first.study, "Series": series}
    return {"Patient": {"DICOM": first.patient}, "Study": study}


def _tags(instance: _Instance) -> dict[str, Any]:
    """Returns the tags of the summary. An empty element counts as absent."""
    keywords = instance.patient | instance.study | instance.series
    tags: dict[str, Any] = {}
    for member, keyword in (PATIENT_LEVEL | STUDY_LEVEL | SERIES_LEVEL).items():
        value = keywords.get(keyword)
        if isinstance(value, list):
            value = "\\".join(map(str, value))
        if member in INTEGERS:
            value = _integer(value)
        if value is not None:
            tags[member] = value
    return tags


def _integer(value: str | None) -> int | None:
    """Returns the number of an IS value, or `None` if a summary cannot show it."""
    return int(value) if value is not None and re.fullmatch(r" *[+-]?\d{1,9} *", value) else None


def _instance(path: Path) -> _Instance | None:
    """Reads one file. Returns `None` if it is not a DICOM object with all three identifiers."""
    vrs: dict[str, str] = {}
    try:
        # Such folders hold unusual values on purpose, and pydicom warns about each.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = frames.read_file(path)
            found = attributes(dataset.file_meta, vrs) | attributes(dataset, vrs)
            uids = [found.get(f"{level}InstanceUID") for level in ("Study", "Series", "SOP")]
            if not all(isinstance(uid, str) for uid in uids):
                return None
            own_frames, entries = frames.of_file(dataset, path)
    except (InvalidDicomError, EOFError, ValueError, TypeError, KeyError, NotImplementedError):
        return None
    study_uid, series_uid, sop_uid = map(str, uids)
    return _Instance(
        study_uid,
        series_uid,
        sop_uid,
        patient={k: v for k, v in found.items() if k in PATIENT},
        study={k: v for k, v in found.items() if k in STUDY},
        series={k: v for k, v in found.items() if k in SERIES},
        own={
            "DICOM": {k: v for k, v in found.items() if k not in PATIENT | STUDY | SERIES},
            "DICOMVRs": vrs,
            "ImageFrames": entries,
            "StoredTransferSyntaxUID": found.get("TransferSyntaxUID"),
        },
        frames=own_frames,
    )
