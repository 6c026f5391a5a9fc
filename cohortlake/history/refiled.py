"""Rows of erased patients: what they end, and those that came into the lake too late.

An image set that is refiled to an erased patient is closed, as if it were deleted: the state that
the lake holds of it, under another id, is true no longer. The row that shows this is never kept,
so the absence is written before the rest of what the search found. A search that stops at any
instant then leaves either the absence, or a window that is still to be searched.

A run reads the list of erased patients once. One that began on another machine before an erasure
lands rows of that patient after it. They are taken out before they are applied, by whoever
applies them. See `privacy.erasures` for who was erased, and `admin.erase_patient` for how.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.history import coverage, image_sets
from cohortlake.increments import files, kinds, older_format, rewrite, writer
from cohortlake.increments.record import Record
from cohortlake.privacy.erasures import Erased
from cohortlake.storage import damage, engine
from cohortlake.storage.root import Root

_JUST_AFTER = timedelta(microseconds=1)


def close(root: Root, found: Record, image_set_ids: Collection[str]) -> str | None:
    """Write down that image sets are an erased patient's now, where the lake holds them.

    Args:
        root: The lake.
        found: The record of the increment that would hold the rows.
        image_set_ids: The image sets.

    Returns:
        The path of the absences, or None where the lake holds no such image set of others.

    Raises:
        RootNotUsable: They cannot be written.
    """
    pending = coverage.pending(root)
    older_format.upgrade(root, pending)
    held = _held(root, found.datastore_id, image_set_ids, pending)
    return _write(root, found, held, f"erasures-{found.axis}")


def drop_late(root: Root, paths: Sequence[str], *, are_all: bool = False) -> list[str]:
    """Take the rows of erased patients out of increments.

    Args:
        root: The lake.
        paths: The increments, of which none is applied yet.
        are_all: Whether these are all there are, to be applied anew: then the version history is
            not asked, which may be of an older format.

    Returns:
        The paths of the absences that were written, which are to be applied too.

    Raises:
        MissingKey: Some were erased, and the key that they are known by is gone.
        RootNotUsable: An increment cannot be read or written.
    """
    erased, absences = Erased(root), set[str]()
    if erased.is_nobody:
        return []
    older_format.upgrade(root, paths)
    for path in paths:
        if files.axis_of(path) in kinds.STATELESS_AXES:
            continue
        if not files.count_rows(root, path, erased.among):
            continue
        found = files.read_record(root, path)
        if found.axis != kinds.VERSIONS_AXIS:  # an older version ends nothing
            ids = files.image_set_ids(root, path, erased.among)
            held = _held(root, found.datastore_id, ids, paths, with_history=not are_all)
            written = _write(root, found, held, f"late-erasures-{found.axis}")
            absences |= {written} if written else set()
        rewrite.remove_rows(root, path, erased.among)
    return sorted(absences)


def _write(root: Root, found: Record, held: pa.Table, partition: str) -> str | None:
    if not len(held):
        return None
    record = Record(
        datastore_id=found.datastore_id,
        axis=kinds.ABSENCE_AXIS,
        partition=partition,
        start=found.start,
        end=found.end,
        # After all that this search saw, and before what any later one does.
        searched_at=found.searched_at + _JUST_AFTER,
        run_id=found.run_id,
    )
    if root.exists(record.path):  # of an attempt that was killed, perhaps with a shorter list
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
        register(con, root)
        engine.register(con, "pending", root, waiting, kinds.FOUND_SCHEMA)
        con.register("refiled", pa.table({"image_set_id": pa.array(image_set_ids, pa.string())}))
        states = con.sql(_STATES, params={"datastore": datastore_id}).to_arrow_table()
        con.register("others", states.filter(pc.invert(Erased(root).among(states))))
        return con.sql(_HELD).to_arrow_table().cast(kinds.ABSENCE_WITHOUT_RUN)


# As in the view `history`, for these image sets alone: the view works out how every state ended.
_STATES = """
WITH own AS (
    SELECT * FROM versions SEMI JOIN refiled USING (image_set_id)
    WHERE datastore_id = $datastore
), ends AS (
    SELECT interval_key, nullif(arg_max(change, revision), 'reopened') AS ended_by
    FROM end_events SEMI JOIN own USING (interval_key) GROUP BY interval_key
)
SELECT datastore_id, image_set_id, PatientID, PatientID_raw, effective_at AS valid_from,
       observed_at AS observed_from, ended_by
FROM own LEFT JOIN ends USING (interval_key) WHERE ended_by IS DISTINCT FROM 'restated'
UNION ALL
SELECT datastore_id, image_set_id, PatientID, PatientID_raw, updated_at, observed_at, NULL
FROM pending SEMI JOIN refiled USING (image_set_id) WHERE datastore_id = $datastore
"""

# What counts is the last state under another id. Where a release that did not look applied the
# erased patient's, it is superseded by it, and would be true again without it.
_HELD = """
SELECT datastore_id, image_set_id, 'SearchImageSets' AS confirmed_by,
       max(observed_from) AS last_seen_at
FROM others GROUP BY ALL
HAVING arg_max(coalesce(ended_by, ''), (valid_from, observed_from)) <> 'deleted'
"""
