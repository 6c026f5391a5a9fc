"""One number for the members of a cohort, that no order of rows changes.

Each member has a digest of its own, SHA-256 of its values in JSON, and the cohort has that of
all of them, sorted. So a member can be taken out of the file later, its digest left in place,
and what is left can still be proven. No library's way to print a date is part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

COLUMN = "member_digest"
ERASED_ON = "erased_on"
OWN_COLUMNS = (COLUMN, ERASED_ON)
"""What a file of members has beside the members' own values."""


def of_members(table: pa.Table) -> list[str]:
    """Return the digest of each row, over the member's own values."""
    rows = table.drop_columns([name for name in OWN_COLUMNS if name in table.column_names])
    return [
        hashlib.sha256(json.dumps(row, sort_keys=True, default=_text).encode()).hexdigest()
        for batch in rows.to_batches(max_chunksize=10_000)
        for row in batch.to_pylist()
    ]


def of_all(digests: Iterable[str]) -> str:
    """Return the digest of a set of rows, from those of its rows."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value)
