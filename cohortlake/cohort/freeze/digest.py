"""Computes a digest of the members of a cohort, which does not depend on the order of rows.

Each member has its own digest, SHA-256 of its values in JSON. The digest of the cohort is made of
all of them, sorted. So the values of a member can be erased later while its digest stays, and the
rest can still be proven. Dates are written here as ISO 8601, and not as some library prints them.

No key is part of it, because a person who freezes cohorts may not read the keys of the lake. Each
frozen member has a salt instead: 128 random bits, hashed with its values. An erasure empties the
salt too. The digest that is left then confirms nothing, not even to somebody who knows all values
and every key.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa

from cohortlake.cohort.define.reserved import FROZEN_COLUMNS

OWN_COLUMNS = FROZEN_COLUMNS
COLUMN, SALT, ERASED_ON, IMAGE_SETS = OWN_COLUMNS

_SALT_BYTES = 16


def own_values(table: pa.Table) -> pa.Table:
    """Return a table of members without the columns that only the file has."""
    return table.drop_columns([name for name in OWN_COLUMNS if name in table.column_names])


def salted(members: pa.Table, earlier: pa.Table | None) -> pa.Table:
    """Add a salt to each member: its earlier salt if the same row was frozen before.

    Args:
        members: The members.
        earlier: The members of the last freezing; None if there was none.
    """
    salts: dict[str, list[str]] = {}
    if earlier is not None and SALT in earlier.column_names:
        digests = of_members(own_values(earlier))
        for of_row, salt in zip(digests, earlier[SALT].to_pylist(), strict=True):
            if salt:  # an erased member has none
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
        return value.astimezone(UTC).isoformat()  # the same for every name of a zone
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value)
