"""Erasing a patient: everything of theirs goes, from every layer.

An image set is its last known patient's: all its states go, also those from when it was filed
under another id. Where it was theirs once and is somebody else's now, only the states under
their id go.

The record comes first: from then on searches drop their rows. Increments are written anew
without them, the memory and the ledger are made anew from these, and their past is deleted, log
included, for Delta Lake keeps the least and the greatest value of each column there. All of it
may be done twice. What the rows told is in the record for as long as they may be half gone.
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
from cohortlake.history import coverage, image_sets, maintenance, refiled, timeline
from cohortlake.increments import files, kinds, older_format, rewrite
from cohortlake.privacy import erasures
from cohortlake.privacy.erasures import Erasure, Patient
from cohortlake.publish import publisher
from cohortlake.publish.marker import read_marker
from cohortlake.publish.published_key import key_to_publish_with
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class _Traces:
    """What increments tell of a patient.

    Attributes:
        spellings: Their id, as it was sent.
        image_sets: Image sets that ever carried it.
        whole: Ids of those that are the patient's.
        counted_with: Increments without rows of which some may have been counted.
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
    """Write down that a patient is being erased: no search brings them back from then on.

    Args:
        root: The lake.
        patient: The patient.
        key: The key that the lake is published with.

    Returns:
        The record; with `erased_at` where they were erased before, and nothing came since.

    Raises:
        NoSuchPatient: The lake holds none, and none was erased.
        MissingKey: Some were erased before, and the key that they are known by is gone.
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
    """Remove a patient from increments, memory and ledger, and have all published anew.

    No other run may be at work.

    Args:
        root: The lake.
        patient: The patient.
        begun: Their record.

    Returns:
        The record, with what was removed.
    """
    traces = _traces(root, patient, begun.image_set_ids or ())
    is_theirs = _is_theirs(patient, traces.whole)
    paths = files.paths_of_datastore(root, patient.datastore_id)
    rows = {path: n for path in paths if (n := files.count_rows(root, path, is_theirs))}
    planned = replace(begun, image_set_ids=tuple(sorted(traces.whole)))
    if begun.image_set_ids is None:  # or an attempt that ended midway has counted them
        planned = replace(
            planned,
            image_sets=begun.image_sets + traces.image_sets,
            rows=begun.rows + sum(rows.values()),
            files=begun.files + len(rows),
        )
    erasures.write(root, planned)
    # While their rows are there to tell which.
    for path in traces.counted_with:
        rewrite.clear_counts(root, path)
    for path in rows:
        rewrite.remove_rows(root, path, is_theirs)
    refiled.drop_late(root, files.paths(root), are_all=True)  # of those who were erased before
    # They cannot be read, so they may hold rows of the patient.
    for path in files.paths_set_aside(root, patient.datastore_id):
        root.delete(path)
    _, applied_paths = image_sets.rebuild(root)
    coverage.record(root, applied_paths, rebuild=True)
    for table in (image_sets.TABLE, coverage.TABLE):
        maintenance.forget_past(root, table)
    publisher.request_full_publish(root)
    return planned


def _is_theirs(patient: Patient, whole: Collection[str]) -> files.RowFilter:
    ids = pa.array(sorted(whole), pa.string())

    def is_theirs(rows: pa.Table) -> pa.Array:
        theirs = pc.is_in(rows["image_set_id"], value_set=ids)
        if "PatientID" not in rows.column_names:  # of stateless axes
            return theirs
        carries = pc.equal(rows["PatientID"], patient.canonical_id)
        return pc.or_(theirs, pc.fill_null(carries, fill_value=False))

    return is_theirs


def _traces(root: Root, patient: Patient, whole: Collection[str]) -> _Traces:
    """Look for a patient in the increments.

    Args:
        root: The lake.
        patient: The patient.
        whole: Image sets that are known to be theirs.
    """
    own = files.paths_of_datastore(root, patient.datastore_id)
    found = [path for path in own if files.axis_of(path) not in kinds.STATELESS_AXES]
    with engine.connection() as con:
        engine.register(con, "found", root, found, kinds.FOUND_SCHEMA)
        con.register("ledger", coverage.searched(root))
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
SELECT updated_at, {timeline.STUDY_MONTH_SQL} AS study_month FROM found
WHERE image_set_id IN (FROM whole) OR PatientID = $patient
"""

_COUNTED_WITH = """
SELECT increment FROM ledger
WHERE datastore_id = $datastore AND rows > 0 AND kept_rows = 0 AND EXISTS (
    FROM states WHERE CASE axis
        WHEN 'updated_at' THEN updated_at >= ledger.start AND updated_at < ledger."end"
        WHEN 'study_date' THEN study_month = ledger."partition"
        ELSE true END
)
"""
