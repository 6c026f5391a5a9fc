"""Who was erased: records without identity, and what they keep out of the lake.

A record names a patient by a hash under a key of its own, which outlasts every other one. Owns
the records, and which rows of a search are dropped because of them, before anything is written.
How a patient is removed is `admin.erase_patient`'s.
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

# What a release before format 4 took off an id.
_OLD_PADDING = " "


@dataclass(frozen=True)
class Patient:
    """A patient, by what no record, message or file name may hold.

    Attributes:
        datastore_id: The data store that the id is unique in.
        patient_id: The PatientID, in any spelling.
    """

    datastore_id: str
    patient_id: str = field(repr=False)

    @property
    def canonical_id(self) -> str:
        """The PatientID as it stands in tables."""
        return canonical_text("LO", self.patient_id) or ""


@dataclass(frozen=True)
class Erasure:
    """What is kept of an erasure.

    Attributes:
        datastore_id: The data store.
        known_by: Hash of the patient's canonical id, under the erasure key.
        patient_keys: What stood for the patient in `published/`.
        began_at: When, on this machine's clock, UTC.
        erased_at: When nothing was left; None while it is under way.
        image_sets: Image sets of which something was removed.
        rows: Rows removed from increments.
        files: Increments written anew.
        image_set_ids: Image sets that go whole. Kept only while it is under way, when the rows
            that tell may be gone already; None before it is known.
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
    """Return all records, by when they began."""
    found = [_from_json(root.read(path), path) for path in root.files(ERASURES, ".json")]
    return sorted(found, key=lambda erasure: erasure.began_at)


def erased_on(root: Root) -> Mapping[str, date]:
    """Return the patient_key of each erased patient, and the day on which that was asked for."""
    return {
        key: datetime.fromisoformat(erasure.began_at).date()
        for erasure in read(root)
        for key in erasure.patient_keys
    }


def find(root: Root, patient: Patient) -> Erasure | None:
    """Return the record of a patient, or None where they were never erased."""
    records = read(root)
    if not records:
        return None
    ids = [patient.canonical_id, patient.patient_id.strip(_OLD_PADDING)]
    own = _hashes(erasure_key(root), patient.datastore_id, ids)
    return next((erasure for erasure in records if erasure.known_by in own), None)


def begin(root: Root, patient: Patient, spellings: Iterable[str], key: bytes) -> Erasure:
    """Write down that a patient is being erased, perhaps not for the first time.

    Args:
        root: The lake.
        patient: The patient.
        spellings: Their id as it was sent; a release before format 4 published each by a key of
            its own.
        key: The key that the lake is published with.
    """
    (own,) = _hashes(erasure_key(root), patient.datastore_id, [patient.canonical_id])
    erasure = find(root, patient) or Erasure(patient.datastore_id, own, (), _now())
    published = _hashes(key, patient.datastore_id, [patient.canonical_id, *spellings])
    keys = tuple(sorted({*published, *erasure.patient_keys}))
    return write(root, replace(erasure, patient_keys=keys, erased_at=None))


def finish(root: Root, erasure: Erasure) -> Erasure:
    """Write down that nothing is left."""
    return write(root, replace(erasure, erased_at=_now(), image_set_ids=None))


def write(root: Root, erasure: Erasure) -> Erasure:
    """Write a record, in the place of an earlier one of the same patient."""
    content = json.dumps(asdict(erasure), indent=1).encode()
    root.write(f"{ERASURES}/{erasure.known_by}.json", content)
    return erasure


class Erased:
    """Tells which rows of a search are erased patients'.

    Args:
        root: The lake. Its records are read when first asked for.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    @property
    def is_nobody(self) -> bool:
        """Whether nobody was ever erased."""
        return not self._known_by

    @functools.cached_property
    def _known_by(self) -> frozenset[str]:
        return frozenset(erasure.known_by for erasure in read(self._root))

    @functools.cached_property
    def _key(self) -> bytes:
        return erasure_key(self._root)

    def among(self, states: pa.Table) -> pa.BooleanArray:
        """Return which of a data store's states are erased patients'.

        Raises:
            MissingKey: Some were erased, and the key that they are known by is gone.
        """
        if not self._known_by or not len(states):
            return pa.array(np.zeros(len(states), bool))
        datastore_id = states["datastore_id"][0].as_py()
        among = self._are_erased(datastore_id, states["PatientID"])
        raw = states["PatientID_raw"]
        if raw.null_count < len(raw):
            as_once_known = pc.utf8_trim(raw, _OLD_PADDING)
            among = pc.or_(among, self._are_erased(datastore_id, as_once_known))
        return among

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
