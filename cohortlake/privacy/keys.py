"""Keyed hashes: the same id gives the same hash, and without the key none can be guessed.

HMAC-SHA-256 (RFC 2104) under 32 random bytes, cut to 128 bits: ids are few and short, so
a hash without a key could be undone by trying them all.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

KEY_BYTES = 32
_HASH_HEX_DIGITS = 32


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
    messages = ("\x1f".join((purpose, *pair)).encode() for pair in ids)
    return [hmac.digest(key, message, "sha256").hex()[:_HASH_HEX_DIGITS] for message in messages]
