"""Erases patients from frozen cohorts. The proof of the other members still holds.

An erased row keeps its digest, so that the digest of all members still holds, and the day of the
erasure, so that `verify` can report it. Its values and its salt are deleted, so that nobody can
confirm who it was. From the present members for BI, the whole row is deleted. See
`admin.erase_patient` for how a patient is erased from the lake.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohortlake.cohort.freeze import digest, manifest
from cohortlake.storage import damage
from cohortlake.storage.root import Root


def erase_members(root: Root, patient_keys: Collection[str], day: date) -> int:
    """Erase patients from all cohorts below a lake.

    Args:
        root: The lake.
        patient_keys: The patients.
        day: The day of the erasure.

    Returns:
        How many members of frozen cohorts were erased.

    Raises:
        RootNotUsable: A file cannot be written.
    """
    keys = pa.array(sorted(patient_keys), pa.string())
    erased = 0
    for path in root.files(manifest.FOLDER, ".parquet"):
        with damage.opened(root, path) as file:
            members = pq.read_table(file)
        theirs = pc.is_in(members["patient_key"], value_set=keys)
        if not pc.any(theirs).as_py():
            continue
        if path.endswith(manifest.CURRENT):
            left = members.filter(pc.invert(theirs))
        else:
            left = _emptied(members, theirs, day)
            erased += pc.sum(theirs).as_py()
        manifest.write_members(root, path, left, digest.of_all(left[digest.COLUMN].to_pylist()))
    return erased


def _emptied(members: pa.Table, theirs: pa.ChunkedArray, day: date) -> pa.Table:
    kept = pc.if_else(theirs, None, pa.array(range(len(members)), pa.int64()))
    digests = members[digest.COLUMN]
    days = pa.nulls(len(members), pa.date32())
    if digest.ERASED_ON in members.column_names:
        days = members[digest.ERASED_ON]
    days = pc.if_else(theirs, pa.scalar(day, pa.date32()), days)
    apart = (digest.COLUMN, digest.ERASED_ON)
    # The salt is deleted with the values: without it the digest confirms nothing.
    rows = members.drop_columns([name for name in apart if name in members.column_names])
    emptied = rows.take(kept).append_column(digest.COLUMN, digests)
    return emptied.append_column(digest.ERASED_ON, days)
