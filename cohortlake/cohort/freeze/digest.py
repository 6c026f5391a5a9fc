"""One number for the members of a cohort, that no order of rows changes.

Each member has a digest of its own, SHA-256 of its values in JSON, and the cohort has that of
all of them, sorted. So a member can be taken out of the file later, its digest left in place,
and what is left can still be proven. No library's way to print a date is part of it.

No key is part of it, because whoever freezes cohorts has no right on the lake's. A frozen member
has a salt instead: 128 random bits beside its values, hashed with them. An erasure empties the
salt with the values. What is left then confirms nothing, not even to somebody who knows all the
values and every key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa

COLUMN = "member_digest"
SALT = "member_salt"
ERASED_ON = "erased_on"
OWN_COLUMNS = (COLUMN, SALT, ERASED_ON)
"""What a file of members has beside the members' own values."""

_SALT_BYTES = 16


def own_values(table: pa.Table) -> pa.Table:
    """Return a table of members without what its file has beside their own values."""
    return table.drop_columns([name for name in OWN_COLUMNS if name in table.column_names])


def salted(members: pa.Table, earlier: pa.Table | None) -> pa.Table:
    """Give each member a salt, the one that it had where the same row was frozen before.

    Args:
        members: The members.
        earlier: Those of the last freezing; None where there was none.
    """
    salts: dict[str, list[str]] = {}
    if earlier is not None and SALT in earlier.column_names:
        digests = of_members(own_values(earlier))
        for of_row, salt in zip(digests, earlier[SALT].to_pylist(), strict=True):
            if salt:  # and not the salt of one who was erased
                salts.setdefault(of_row, []).append(salt)
    given = [
        salts[of_row].pop() if salts.get(of_row) else secrets.token_hex(_SALT_BYTES)
        for of_row in of_members(members)
    ]
    return members.append_column(SALT, pa.array(given, pa.string()))


def of_members(table: pa.Table) -> list[str]:
    """Return the digest of each row, over the member's own values and its salt if it has one."""
    rows = table.drop_columns([name for name in (COLUMN, ERASED_ON) if name in table.column_names])
    return [
        hashlib.sha256(json.dumps(row, sort_keys=True, default=_text).encode()).hexdigest()
        for batch in rows.to_batches(max_chunksize=10_000)
        for row in batch.to_pylist()
    ]


def of_all(digests: Iterable[str]) -> str:
    """Return the digest of a set of rows, from those of its rows."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat()  # an instant, whatever its zone is called
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value)
