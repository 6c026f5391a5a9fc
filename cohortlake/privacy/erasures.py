"""The records of erased patients, and which rows of a search are dropped because of them.

A record holds no identity. It names a patient by a hash under the erasure key, which never changes.
See `admin.erase_patient` for how a patient is erased.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.dicom_values import canonical_text
from cohortlake.privacy import keyed_hashes
from cohortlake.privacy.key_store import ERASURES, erasure_key
from cohortlake.storage import damage
from cohortlake.storage.root import Root

# A release before format 4 removed these characters around an id.
_OLD_PADDING = " "


@dataclass(frozen=True)
class Patient:
    """A patient, by the id. No record, message or file name may hold the id.

    Attributes:
        datastore_id: The data store. The id is unique in it.
        patient_id: The PatientID, in any spelling.
    """

    datastore_id: str
    patient_id: str = field(repr=False)

    @property
    def canonical_id(self) -> str:
        """The PatientID as the tables hold it."""
        return canonical_text("LO", self.patient_id) or ""


@dataclass(frozen=True)
class Erasure:
    """The record of an erasure.

    Attributes:
        datastore_id: The data store.
        known_by: Hash of the patient's canonical id, under the erasure key.
        patient_keys: The patient's keys in `published/`.
        began_at: When it began, on this machine's clock, UTC.
        erased_at: When it was complete; None before.
        image_sets: Number of image sets of which something was removed.
        rows: Number of rows removed from increments.
        files: Number of files of increments that were rewritten.
        image_set_ids: Image sets to remove completely; None before they are known. Kept only until
            the erasure is complete, because the rows that tell them may already be removed.
    """

    datastore_id: str
    known_by: str
    patient_keys: tuple[str, ...]
    began_at: str
    erased_at: str | None = None
    image_sets: int = 0
    rows: int = 0
    files: int = 0
    image_set_ids: tuple[str, ...] | None = None


def read(root: Root) -> list[Erasure]:
    """Return all records, in the order in which they began."""
    found = [_from_json(root.read(path), path) for path in root.files(ERASURES, ".json")]
    return sorted(found, key=lambda erasure: erasure.began_at)


def erased_on(root: Root) -> Mapping[str, date]:
    """Return patient_key -> day on which the erasure began, for all erased patients."""
    return {
        key: datetime.fromisoformat(erasure.began_at).date()
        for erasure in read(root)
        for key in erasure.patient_keys
    }


def find(root: Root, patient: Patient) -> Erasure | None:
    """Return the record of a patient, or None if the patient was never erased."""
    records = read(root)
    if not records:
        return None
    ids = [patient.canonical_id, patient.patient_id.strip(_OLD_PADDING)]
    own = _hashes(erasure_key(root), patient.datastore_id, ids)
    return next((erasure for erasure in records if erasure.known_by in own), None)


def begin(root: Root, patient: Patient, spellings: Iterable[str], key: bytes) -> Erasure:
    """Write a record that an erasure began, perhaps not for the first time.

    Args:
        root: The lake.
        patient: The patient.
        spellings: The id in each spelling that was sent. A release before format 4 published
            each spelling under its own patient_key.
        key: The key that the lake is published with.
    """
    (own,) = _hashes(erasure_key(root), patient.datastore_id, [patient.canonical_id])
    erasure = find(root, patient) or Erasure(patient.datastore_id, own, (), _now())
    published = _hashes(key, patient.datastore_id, [patient.canonical_id, *spellings])
    keys = tuple(sorted({*published, *erasure.patient_keys}))
    return write(root, replace(erasure, patient_keys=keys, erased_at=None))


def finish(root: Root, erasure: Erasure) -> Erasure:
    """Write into the record that the erasure is complete."""
    return write(root, replace(erasure, erased_at=_now(), image_set_ids=None))


def write(root: Root, erasure: Erasure) -> Erasure:
    """Write a record; it replaces an earlier one of the same patient."""
    content = json.dumps(asdict(erasure), indent=1).encode()
    root.write(f"{ERASURES}/{erasure.known_by}.json", content)
    return erasure


class ErasedPatients:
    """Finds the rows of erased patients in what a search brings.

    Args:
        root: The lake. Its records are read at the first question.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    @property
    def is_empty(self) -> bool:
        """Whether no patient was ever erased."""
        return not self._known_by

    @functools.cached_property
    def _known_by(self) -> frozenset[str]:
        return frozenset(erasure.known_by for erasure in read(self._root))

    @functools.cached_property
    def _key(self) -> bytes:
        return erasure_key(self._root)

    def mask(self, states: pa.Table) -> pa.BooleanArray:
        """Return for each state of a data store whether it belongs to an erased patient.

        Raises:
            MissingKey: Patients were erased, and the erasure key is missing.
        """
        if not len(states) or not self._known_by:
            return pa.array(np.zeros(len(states), bool))
        datastore_id = states["datastore_id"][0].as_py()
        erased = self._are_erased(datastore_id, states["PatientID"])
        raw = states["PatientID_raw"]
        if raw.null_count < len(raw):
            old_ids = pc.utf8_trim(raw, _OLD_PADDING)
            erased = pc.or_(erased, self._are_erased(datastore_id, old_ids))
        return erased

    def among(self, datastore_id: str, patient_ids: pa.ChunkedArray) -> list[str]:
        """Return those of some canonical ids that belong to erased patients, each once.

        Raises:
            MissingKey: See `mask`.
        """
        if not self._known_by:
            return []
        theirs = patient_ids.filter(self._are_erased(datastore_id, patient_ids))
        ids: list[str] = theirs.unique().to_pylist()
        return ids

    def _are_erased(self, datastore_id: str, ids: pa.ChunkedArray) -> pa.BooleanArray:
        encoded = ids.combine_chunks().dictionary_encode()
        hashes = _hashes(self._key, datastore_id, encoded.dictionary.to_pylist())
        is_erased = pa.array([h in self._known_by for h in hashes], pa.bool_())
        return pc.fill_null(is_erased.take(encoded.indices), fill_value=False)


def _from_json(content: bytes, path: str) -> Erasure:
    with damage.parsed(path):
        items = json.loads(content)
    lists = {name: tuple(value) for name, value in items.items() if isinstance(value, list)}
    return Erasure(**items | lists)


def _hashes(key: bytes, datastore_id: str, ids: Iterable[str]) -> list[str]:
    return keyed_hashes(key, "PatientID", [(datastore_id, one) for one in ids])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
