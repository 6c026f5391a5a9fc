"""Image sets that are refiled to erased patients, and rows of erased patients that come late.

If an image set is refiled to an erased patient, its time line ends as if it were deleted: the state
that the lake holds, under another patient's id, is no longer true. The row that shows this is never
kept. So the absence is written before the other rows of the search. If the search stops at any
instant, either the absence is written, or the window is searched again.

A run reads the list of erased patients once. A run on another machine that began before an erasure
may write rows of that patient after it. They are removed before they are applied. See
`privacy.erasures` for the list, and `admin.erase_patient` for the erasure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.history import coverage, image_sets
from cohortlake.history.views import HistoryViews, ends_of_sql, history_sql
from cohortlake.increments import files, kinds, older_format, rewrite, writer, written
from cohortlake.increments.record import Record
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.storage import damage, engine
from cohortlake.storage.root import Root

_JUST_AFTER = timedelta(microseconds=1)


def close(root: Root, found: Record, image_set_ids: Collection[str]) -> str | None:
    """Write absences for image sets that now belong to an erased patient.

    Args:
        root: The lake.
        found: The record of the increment that would hold the rows.
        image_set_ids: The image sets.

    Returns:
        The path of the absences; None if the lake holds none of the image sets under another
        patient.

    Raises:
        RootNotUsable: They cannot be written.
    """
    pending = coverage.pending(root)
    older_format.upgrade(root, pending)
    held = _held(root, found.datastore_id, image_set_ids, pending)
    return _write(root, found, held, f"erasures-{found.axis}")


def drop_late(root: Root, paths: Sequence[str], *, are_all: bool = False) -> list[str]:
    """Remove the rows of erased patients from increments.

    Args:
        root: The lake.
        paths: The increments. None of them is applied yet.
        are_all: Whether the version history is rebuilt from them. Then it is not read, because it
            may have an older format.

    Returns:
        The paths of the absences that were written. They must be applied too.

    Raises:
        MissingKey: Patients were erased, and the key that identifies them is missing.
        RootNotUsable: An increment cannot be read or written.
    """
    erased, absences = ErasedPatients(root), set[str]()
    if not paths or erased.is_empty:
        return []
    older_format.upgrade(root, paths)
    for path in paths:
        if files.axis_of(path) in kinds.STATELESS_AXES or written.is_without_rows(root, path):
            continue
        if not files.count_rows(root, path, erased.mask):
            continue
        if files.axis_of(path) != kinds.VERSIONS_AXIS:  # an older version ends nothing
            for found, rows in files.read_increments(root, path):
                ids = {i for part in rows for i in _ids_of(part, erased)}
                if not ids:
                    continue
                held = _held(root, found.datastore_id, ids, paths, with_history=not are_all)
                absence = _write(root, found, held, f"late-erasures-{found.axis}")
                absences |= {absence} if absence else set()
        rewrite.remove_rows(root, path, erased.mask)
    return sorted(absences)


def _ids_of(rows: pa.Table, erased: ErasedPatients) -> list[str]:
    ids: list[str] = rows["image_set_id"].filter(erased.mask(rows)).to_pylist()
    return ids


def _write(root: Root, found: Record, held: pa.Table, partition: str) -> str | None:
    if not len(held):
        return None
    record = Record(
        datastore_id=found.datastore_id,
        axis=kinds.ABSENCE_AXIS,
        partition=partition,
        start=found.start,
        end=found.end,
        # After all that this search saw, and before what any later search sees.
        searched_at=found.searched_at + _JUST_AFTER,
        run_id=found.run_id,
    )
    if root.exists(record.path):  # of a killed attempt, perhaps with fewer rows
        with damage.opened(root, record.path) as file:
            held = pa.concat_tables([pq.read_table(file).select(held.column_names), held])
        held = held.group_by(held.column_names).aggregate([])
    record = replace(record, rows=len(held), kept_rows=len(held))
    writer.write_table(root, record, kinds.with_run_columns(held, record))
    return record.path


def _held(
    root: Root,
    datastore_id: str,
    image_set_ids: Collection[str],
    pending: Iterable[str],
    *,
    with_history: bool = True,
) -> pa.Table:
    """Return what the lake holds of image sets under an id of somebody who was not erased."""
    folder = f"increments/{datastore_id}/"
    waiting = [
        path
        for path in pending
        if path.startswith(folder) and files.axis_of(path) not in kinds.STATELESS_AXES
    ]
    with engine.connection() as con:
        register = image_sets.register if with_history else image_sets.register_nothing
        history = register(con, root)
        engine.register(con, "pending", root, waiting, kinds.FOUND_SCHEMA)
        con.register("refiled", pa.table({"image_set_id": pa.array(image_set_ids, pa.string())}))
        states = con.sql(_states_sql(history), params={"datastore": datastore_id}).to_arrow_table()
        con.register("others", states.filter(pc.invert(ErasedPatients(root).mask(states))))
        return con.sql(_HELD).to_arrow_table().cast(kinds.ABSENCE_WITHOUT_RUN)


def _states_sql(history: HistoryViews) -> str:
    """Return SQL for all states of these image sets. The view `history` reads all end events."""
    states = history_sql("own", f"({ends_of_sql(history.end_events, 'own')})")
    return f"""
        WITH own AS (
            SELECT * FROM {history.versions} SEMI JOIN refiled USING (image_set_id)
            WHERE datastore_id = $datastore
        )
        SELECT datastore_id, image_set_id, PatientID, PatientID_raw, valid_from, observed_from,
               ended_by
        FROM ({states})
        UNION ALL
        SELECT datastore_id, image_set_id, PatientID, PatientID_raw, updated_at, observed_at, NULL
        FROM pending SEMI JOIN refiled USING (image_set_id) WHERE datastore_id = $datastore
    """


# The last state under another id counts. An older release may have applied the erased patient's
# state after it. Without that state, it would be current again.
_HELD = """
SELECT datastore_id, image_set_id, 'SearchImageSets' AS confirmed_by,
       max(observed_from) AS last_seen_at
FROM others GROUP BY ALL
HAVING arg_max(coalesce(ended_by, ''), (valid_from, observed_from)) <> 'deleted'
"""
