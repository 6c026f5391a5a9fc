"""Erasing a patient: all rows of the patient are removed from every layer.

An image set belongs to its last known patient. All states of such an image set are removed, also
those that were filed under another id. If an image set was the patient's once and belongs to
somebody else now, only the states under the patient's id are removed.

The record of the erasure is written first: from then on, searches drop the patient's rows. Then
the increments and the headers are rewritten without them, and the version history and the coverage
are rebuilt from the increments. Their old versions are deleted, and their logs too, because Delta
Lake keeps the minimum and maximum of each column there. The index of the history is deleted. Each
step may be repeated. Until the end, the record holds what the removed rows showed, so that a
repeated erasure knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.cohort.freeze.erase_members import erase_members
from cohortlake.errors import NoSuchPatient
from cohortlake.headers import files as header_files
from cohortlake.history import (
    coverage,
    history_index,
    image_sets,
    maintenance,
    packing,
    refiled,
)
from cohortlake.increments import files, kinds, older_format, rewrite
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import Erasure, Patient
from cohortlake.publish import publisher
from cohortlake.publish.publication.marker import read_marker
from cohortlake.publish.publication.published_key import key_to_publish_with
from cohortlake.schema import STUDY_MONTH_SQL
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class _Traces:
    """What the increments show about a patient.

    Attributes:
        spellings: The patient's id, in each spelling that the service sent.
        image_sets: How many image sets ever carried the id.
        whole: Ids of the image sets that belong to the patient.
        counted_with: Paths of the increments without rows whose counts may include the patient's
            rows. They may be packed.
    """

    spellings: tuple[str, ...]
    image_sets: int
    whole: frozenset[str]
    counted_with: tuple[str, ...]


def erase(
    root: Root, settings: Settings, patient: Patient, publish: Callable[[], object]
) -> Erasure:
    """Erase a patient from the whole lake, frozen cohorts included, and keep them out.

    If it ends midway for any reason, repeat it: it goes on to the end.

    Args:
        root: The lake.
        settings: Where the patient key is.
        patient: The patient.
        publish: Updates `published/`.

    Raises:
        NoSuchPatient: The lake holds no such patient.
        LakeInUse: Another run is at work. From now on no run brings the patient back.
        MissingKey: The lake was published before, and its key is gone.
    """
    key = key_to_publish_with(root, settings.patient_key, read_marker(root))
    begun = begin(root, patient, key)
    if begun.erased_at:
        return begun
    with root.alone():
        removed = remove(root, patient, begun)
        publish()
        day = datetime.fromisoformat(removed.began_at).date()
        erase_members(root, removed.patient_keys, day)
        root.delete_abandoned(whatever_its_age=True)
        return erasures.finish(root, removed)


def begin(root: Root, patient: Patient, key: bytes) -> Erasure:
    """Record that a patient is being erased. From then on no search brings the patient back.

    Args:
        root: The lake.
        patient: The patient.
        key: The key that the lake is published with.

    Returns:
        The record. It has `erased_at` if the patient was erased before, and no row came since.

    Raises:
        NoSuchPatient: The lake holds no such patient, and none was erased.
        MissingKey: Patients were erased before, and the key that identifies them is gone.
    """
    older_format.upgrade(root, files.paths_of_datastore(root, patient.datastore_id))
    traces, earlier = _traces(root, patient, ()), erasures.find(root, patient)
    if not traces.image_sets:
        if earlier is None:
            raise NoSuchPatient(patient.datastore_id)
        if earlier.erased_at:
            return earlier
    return erasures.begin(root, patient, traces.spellings, key)


def remove(root: Root, patient: Patient, begun: Erasure) -> Erasure:
    """Remove a patient from increments, version history and coverage, and request a full publish.

    No other run may be at work.

    Args:
        root: The lake.
        patient: The patient.
        begun: The record.

    Returns:
        The record, with what was removed.
    """
    removed = remove_rows(root, patient, begun)
    rebuild_without(root)
    return removed


def remove_rows(root: Root, patient: Patient, begun: Erasure) -> Erasure:
    """Remove a patient from increments and headers. See `remove`."""
    # After the record, and before the files are listed: see `guarded_rewrite`.
    root.delete_abandoned(whatever_its_age=True)
    packing.delete_copied(root)
    traces = _traces(root, patient, begun.image_set_ids or ())
    is_of_patient = _is_of_patient(patient, traces.whole)
    paths = files.paths_of_datastore(root, patient.datastore_id)
    rows = {path: n for path in paths if (n := files.count_rows(root, path, is_of_patient))}
    planned = replace(begun, image_set_ids=tuple(sorted(traces.whole)))
    if begun.image_set_ids is None:  # otherwise an earlier attempt has counted them
        planned = replace(
            planned,
            image_sets=begun.image_sets + traces.image_sets,
            rows=begun.rows + sum(rows.values()),
            files=begun.files + len(rows),
        )
    erasures.write(root, planned)
    # Before the rows are removed that show which increments these are.
    counted_with = files.locate(root, patient.datastore_id, traces.counted_with)
    for path, increments in counted_with.items():
        rewrite.clear_counts(root, path, increments)
    for path in rows:
        rewrite.remove_rows(root, path, is_of_patient)
    for path in header_files.paths(root, patient.datastore_id):
        header_files.remove_rows(root, path, is_of_patient)
    # These files cannot be read, so they may hold rows of the patient.
    for path in files.paths_set_aside(root, patient.datastore_id):
        root.delete(path)
    return planned


def rebuild_without(root: Root) -> None:
    """Rebuild all that is made from the increments, without its past, and request a full publish.

    No other run may be at work.
    """
    refiled.drop_late(root, files.paths(root), are_all=True)  # rows of patients erased before
    _, applied_paths = image_sets.rebuild(root)
    coverage.record(root, applied_paths, rebuild=True)
    for table in (image_sets.TABLE, coverage.TABLE):
        maintenance.forget_past(root, table)
    history_index.discard(root)
    publisher.request_full_publish(root)


def _is_of_patient(patient: Patient, whole: Collection[str]) -> files.RowFilter:
    ids = pa.array(sorted(whole), pa.string())

    def is_of_patient(rows: pa.Table) -> pa.Array:
        theirs = pc.is_in(rows["image_set_id"], value_set=ids)
        if "PatientID" not in rows.column_names:  # in stateless axes
            return theirs
        carries = pc.equal(rows["PatientID"], patient.canonical_id)
        return pc.or_(theirs, pc.fill_null(carries, fill_value=False))

    return is_of_patient


def _traces(root: Root, patient: Patient, whole: Collection[str]) -> _Traces:
    """Look for a patient in the increments.

    Args:
        root: The lake.
        patient: The patient.
        whole: Image sets that are known to belong to the patient.
    """
    own = files.paths_of_datastore(root, patient.datastore_id)
    found = [path for path in own if files.axis_of(path) not in kinds.STATELESS_AXES]
    with engine.connection() as con:
        engine.register(con, "found", root, found, kinds.FOUND_SCHEMA)
        con.register("coverage", coverage.searched(root))
        con.register("known_whole", pa.table({"image_set_id": pa.array(whole, pa.string())}))
        con.execute(_CARRIED, {"patient": patient.canonical_id})
        con.execute(_WHOLE, {"patient": patient.canonical_id})
        con.execute(_STATES, {"patient": patient.canonical_id})
        counted_with = con.sql(_COUNTED_WITH, params={"datastore": patient.datastore_id})
        return _Traces(
            spellings=_column(con.sql("SELECT DISTINCT sent_id FROM carried")),
            image_sets=engine.count(con, "SELECT count(DISTINCT image_set_id) FROM carried"),
            whole=frozenset(_column(con.sql("FROM whole"))),
            counted_with=_column(counted_with),
        )


def _column(relation: duckdb.DuckDBPyRelation) -> tuple[str, ...]:
    return tuple(str(value) for (value,) in relation.fetchall())


_CARRIED = """
CREATE TEMP TABLE carried AS
SELECT DISTINCT image_set_id, coalesce(PatientID_raw, PatientID) AS sent_id
FROM found WHERE PatientID = $patient
"""

_WHOLE = """
CREATE TEMP TABLE whole AS
SELECT image_set_id FROM found SEMI JOIN carried USING (image_set_id)
WHERE PatientID IS NOT NULL
GROUP BY image_set_id
HAVING arg_max(PatientID, (
    coalesce(version, 0), coalesce(updated_at, to_timestamp(0)), observed_at
)) = $patient
UNION SELECT image_set_id FROM known_whole
"""

_STATES = f"""
CREATE TEMP TABLE states AS
SELECT updated_at, {STUDY_MONTH_SQL} AS study_month FROM found
WHERE image_set_id IN (FROM whole) OR PatientID = $patient
"""

_COUNTED_WITH = """
SELECT increment FROM coverage
WHERE datastore_id = $datastore AND rows > 0 AND kept_rows = 0 AND EXISTS (
    FROM states WHERE CASE axis
        WHEN 'updated_at' THEN updated_at >= coverage.start AND updated_at < coverage."end"
        WHEN 'study_date' THEN study_month = coverage."partition"
        ELSE true END
)
"""
