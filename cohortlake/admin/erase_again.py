"""Erasing once more the patients who came back when a backup was restored.

A backup from before an erasure holds the patient. The records in `erasures/` do not say who it is,
but they recognise the id where they see it: so the patients are found in the restored increments
and headers, and erased as before. Frozen cohorts are searched for the published keys of all
records. See `erase_patient` for what is removed. Each step may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pyarrow as pa

from cohortlake.admin.erase_patient import rebuild_without, remove_rows
from cohortlake.cohort.freeze.erase_members import erase_members
from cohortlake.headers import files as header_files
from cohortlake.increments import files, kinds, older_format
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import ErasedPatients, Erasure, Patient
from cohortlake.storage import engine
from cohortlake.storage.root import Root


def erase_again(root: Root, publish: Callable[[], object]) -> tuple[Erasure, ...]:
    """Erase once more all erased patients of whom the lake holds something.

    Rebuilds and publishes the lake, even if it holds none of them. If it ends midway for any
    reason, repeat it: it goes on to the end.

    Args:
        root: The lake.
        publish: Updates `published/`.

    Returns:
        The records of the patients who were found.

    Raises:
        LakeInUse: Another run is at work.
        MissingKey: The key that recognises the patients is gone.
    """
    with root.alone():
        found = [remove_rows(root, patient, record) for patient, record in _returned(root)]
        rebuild_without(root)
        publish()
        for record in erasures.read(root):
            day = datetime.fromisoformat(record.began_at).date()
            erase_members(root, record.patient_keys, day)
        root.delete_abandoned(whatever_its_age=True)
        return tuple(erasures.finish(root, record) for record in found)


def _returned(root: Root) -> Iterator[tuple[Patient, Erasure]]:
    """Yield the erased patients of whom increments or headers hold something."""
    records = erasures.read(root)
    # An attempt that ended midway knows the image sets. Perhaps the id is nowhere else any more.
    for record in records:
        if record.image_set_ids:
            yield Patient(record.datastore_id, ""), record
    erased = ErasedPatients(root)
    for datastore_id in sorted({record.datastore_id for record in records}):
        older_format.upgrade(root, files.paths_of_datastore(root, datastore_id))
        for patient_id in sorted(erased.among(datastore_id, _patient_ids(root, datastore_id))):
            patient = Patient(datastore_id, patient_id)
            if found := erasures.find(root, patient):
                yield patient, found


def _patient_ids(root: Root, datastore_id: str) -> pa.ChunkedArray:
    """Return the ids in the increments and headers of a data store, some of them repeatedly."""
    paths = files.paths_of_datastore(root, datastore_id)
    found = [path for path in paths if files.axis_of(path) not in kinds.STATELESS_AXES]
    with engine.connection() as con:
        engine.register(con, "found", root, found, kinds.FOUND_SCHEMA)
        chunks = con.sql("SELECT DISTINCT PatientID FROM found").to_arrow_table()[0].chunks
    for path in header_files.paths(root, datastore_id):
        for rows in header_files.read(root, path, ["PatientID"]):
            chunks.append(rows["PatientID"].unique())
    return pa.chunked_array(chunks, pa.string())
