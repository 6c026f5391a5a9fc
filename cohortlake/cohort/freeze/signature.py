"""Signs a manifest: HMAC-SHA-256 with a key that the lake does not hold.

The digest in a manifest shows that members were changed by accident. A person who may write the
files can replace both the members and the digest, but cannot sign without the key.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from cohortlake.errors import NotAsFrozen, SettingError

_LEAST_BYTES = 16


def read_key(path: str) -> bytes | None:
    """Return the key in a file, or None if no file is named.

    Raises:
        SettingError: The file cannot be read or is too short.
    """
    if not path:
        return None
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise SettingError(f"COHORTLAKE_COHORT_KEY_FILE: {path}: {error.strerror}") from None
    if len(key) < _LEAST_BYTES:
        raise SettingError(
            f"COHORTLAKE_COHORT_KEY_FILE: {path} holds fewer than {_LEAST_BYTES} bytes; "
            "`openssl rand -hex 32` makes a key"
        )
    return key


def sign(key: bytes, content: bytes) -> str:
    """Return the signature of some content."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def check(key: bytes, content: bytes, signature: str, what: str) -> None:
    """Check a signature.

    Raises:
        NotAsFrozen: It is not of this content under this key.
    """
    if not hmac.compare_digest(sign(key, content), signature):
        raise NotAsFrozen(
            f"{what} was changed after it was signed, or was signed with another key than that "
            "of COHORTLAKE_COHORT_KEY_FILE"
        )
