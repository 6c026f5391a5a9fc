"""The records of the increments that a run wrote and has not recorded in the coverage yet.

A run applies what it wrote. It knows the records, so it does not read each file again for them: on
S3 a request each. Only rewriting changes a record, and it only removes rows. If another machine
erases a patient meanwhile, it records the file as it is then, and what this run knows adds nothing
to that. See `history.coverage.record`.
"""

from __future__ import annotations

import weakref

from cohortlake.increments.record import Record
from cohortlake.storage.root import Root

_RECORDS: weakref.WeakKeyDictionary[Root, dict[str, Record]] = weakref.WeakKeyDictionary()
"""Path -> the record, of each lake as a run has opened it."""


def remember(root: Root, record: Record) -> None:
    """Remember the record of an increment that was written."""
    _RECORDS.setdefault(root, {})[record.path] = record


def record_of(root: Root, path: str) -> Record | None:
    """Return the record of the file at a path, or None if this run did not write it."""
    return _RECORDS.get(root, {}).get(path)


def is_without_rows(root: Root, path: str) -> bool:
    """Return whether this run wrote the file and it has no rows. If not, read it to know."""
    record = record_of(root, path)
    return record is not None and not record.kept_rows


def forget(root: Root) -> None:
    """Forget all records, because the coverage has them."""
    _RECORDS.pop(root, None)
