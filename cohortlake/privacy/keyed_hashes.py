"""Keyed hashes: the same id gives the same hash, and nobody can undo it without the key.

HMAC-SHA-256 (RFC 2104) under 32 random bytes, cut to 128 bits. Without a key, trying all short ids
would undo a hash. There is a function in Python for a few ids, and a DuckDB macro for millions;
both give the same. See `privacy.key_store` for where the key lies.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

import duckdb

KEY_BYTES = 32
LONGEST_SHIFT_DAYS = 365
_HASH_HEX_DIGITS = 32
_BLOCK_BYTES = 64
_SEPARATOR = "\x1f"

# A UID of 2.25 and a number (PS3.5 section B.2) of 120 bits, which fits into a HUGEINT. DuckDB
# evaluates an argument each time that a macro names it, so an expensive one is named once.
_MACROS = """
CREATE OR REPLACE TEMP MACRO keyed_digest(message) AS sha256(
    (SELECT outer_pad FROM patient_key_pads)
    || unhex(sha256((SELECT inner_pad FROM patient_key_pads) || encode(message))));
CREATE OR REPLACE TEMP MACRO keyed_hash(purpose, scope, id) AS
    CASE WHEN id IS NOT NULL
         THEN keyed_digest(concat_ws(chr(31), purpose, scope, id))[1:32] END;
CREATE OR REPLACE TEMP MACRO shift_days(scope, id) AS
    (1 + ('0x' || keyed_digest(concat_ws(chr(31), 'shift', scope, id))[1:15])::BIGINT % {longest}
    )::INT;
CREATE OR REPLACE TEMP MACRO keyed_uid(uid) AS
    '2.25.' || ('0x' || keyed_digest('UID' || chr(31) || uid)[1:30])::HUGEINT;
"""


def new_key() -> bytes:
    """Return a new random key."""
    return secrets.token_bytes(KEY_BYTES)


def keyed_hashes(key: bytes, purpose: str, ids: Iterable[tuple[str, str]]) -> list[str]:
    """Hash ids that are unique within their data store.

    Args:
        key: 32 random bytes.
        purpose: Which id it is, so that equal ids of two kinds differ.
        ids: Pairs of data store id and id.

    Returns:
        32 hex digits each.
    """
    messages = (_SEPARATOR.join((purpose, *pair)) for pair in ids)
    return [_digest(key, message)[:_HASH_HEX_DIGITS] for message in messages]


def keyed_uid(key: bytes, uid: str) -> str:
    """Return the UID that replaces a UID everywhere."""
    return f"2.25.{int(_digest(key, f'UID{_SEPARATOR}{uid}')[:30], 16)}"


def shift_days(key: bytes, scope: str, id_: str) -> int:
    """Return by how many days, 1 to 365, a patient's dates are shifted into the past."""
    digest = _digest(key, _SEPARATOR.join(("shift", scope, id_)))
    return 1 + int(digest[:15], 16) % LONGEST_SHIFT_DAYS


def fingerprint(key: bytes) -> str:
    """Return a hash that recognises a key and does not reveal it."""
    return _digest(key, "fingerprint")[:_HASH_HEX_DIGITS]


def create_macros(con: duckdb.DuckDBPyConnection, key: bytes) -> None:
    """Create the same functions as SQL macros.

    The key lies in a temporary table, and never in the text of a query, which errors quote.

    Args:
        con: Gets `keyed_hash(purpose, scope, id)`, null for none; `keyed_uid(uid)`; and
            `shift_days(scope, id)`.
        key: 32 random bytes.
    """
    padded = key.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
    con.execute("CREATE OR REPLACE TEMP TABLE patient_key_pads (inner_pad BLOB, outer_pad BLOB)")
    con.execute("INSERT INTO patient_key_pads VALUES (?, ?)", [inner, outer])
    con.execute(_MACROS.format(longest=LONGEST_SHIFT_DAYS))


def _digest(key: bytes, message: str) -> str:
    return hmac.digest(key, message.encode(), "sha256").hex()
