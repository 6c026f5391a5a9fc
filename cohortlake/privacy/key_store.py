"""The keys of a lake: where they lie, and that a published lake never gets another by accident.

There are two. The *patient key* makes patient_key, accession_key, UIDs and date shifts in
`published/`. It lies in the restricted zone, or where COHORTLAKE_PATIENT_KEY says. The lake keeps
its fingerprint, so that a missing or different key is an error. The *erasure key* recognises
erased patients. It always lies in the restricted zone and never changes, because no id is left
that could be hashed again. See `privacy.keyed_hashes` for how an id is hashed.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from botocore.config import Config

from cohortlake.aws import BOTO3_ERRORS, Cause, connect, failure_of
from cohortlake.errors import MissingKey, ServiceUnavailable, SettingError, WrongKey
from cohortlake.privacy import fingerprint, new_key
from cohortlake.privacy.keyed_hashes import KEY_BYTES
from cohortlake.storage.root import Root

IN_LAKE = "lake"
KEY_PATH = "keys/patient-key"
_WRAPPED_PATH = "keys/patient-key.kms"
_NEXT_PATH = "keys/next-key"
_FINGERPRINT_PATH = "keys/fingerprint"
_ERASURE_PATH = "keys/erasure-key"
ERASURES = "erasures"
"""The folder of the records of erased patients."""
_PURPOSE = {"cohortlake": "patient-key"}
"""The encryption context: KMS unwraps the key only for this purpose."""


def require_fingerprint(root: Root, source: str, key: bytes) -> None:
    """Refuse a key that is not the active one; a lake without a fingerprint gets that of this key.

    Raises:
        WrongKey: The lake was published with another key.
    """
    if not has_fingerprint(root):
        root.create(_FINGERPRINT_PATH, fingerprint(key).encode())
    if not is_active(root, key):
        raise _wrong_key(root, source)


def require_own_keys(root: Root, source: str, published: str) -> None:
    """Check that the keys of a published lake exist and are the right ones; make none.

    Args:
        root: The lake.
        source: See COHORTLAKE_PATIENT_KEY.
        published: The fingerprint in the marker of the publication; empty if it has none.

    Raises:
        MissingKey: A key is missing, or nothing tells which key the lake was published with.
        WrongKey: The lake was published with another key.
        SettingError: The source cannot be understood, or holds no key.
    """
    own = fingerprint(read_key(root, source, may_create=False))
    kept = _fingerprint_in_lake(root)
    if not kept and not published:
        raise MissingKey(
            f"{root.uri_of(_FINGERPRINT_PATH)} is missing, and nothing else tells which key the "
            "lake was published with; restore the file from a backup"
        )
    if {own, kept or own, published or own} != {own}:
        raise _wrong_key(root, source)
    if root.files(ERASURES, ".json") and not root.exists(_ERASURE_PATH):
        raise _no_erasure_key(root)


def _wrong_key(root: Root, source: str) -> WrongKey:
    return WrongKey(
        f"COHORTLAKE_PATIENT_KEY={source} is not the key that {root.uri} was published with; "
        "give that one. Where `cohortlake key rotate` did not come to its end, repeat it as it "
        "was given"
    )


def read_key(root: Root, source: str, *, may_create: bool) -> bytes:
    """Return the key of a source, whether or not the lake was published with it.

    Raises:
        MissingKey: There is none, and none may be made.
        ServiceUnavailable: AWS did not answer.
        SettingError: The source cannot be understood, or holds no key.
    """
    kind, _, name = source.partition(":")
    if source == IN_LAKE:
        return _created(root, KEY_PATH, new_key, may_create=may_create)
    if kind == "kms" and name:
        return _from_kms(root, name, may_create=may_create)
    if kind not in _SOURCES or not name:
        raise SettingError(
            "COHORTLAKE_PATIENT_KEY must be lake, env:NAME, file:PATH, secretsmanager:ID or "
            f"kms:KEY-ID, not {source!r}"
        )
    return _decoded(_SOURCES[kind](name), source)


def next_key(root: Root, source: str) -> bytes:
    """Return the key of a rotation; a rotation that is resumed finds the same key.

    Raises:
        MissingKey: The source cannot be read.
        SettingError: It cannot be understood, or holds no key.
    """
    if not _is_made_here(source):
        return read_key(root, source, may_create=False)
    return _created(root, _NEXT_PATH, new_key, may_create=True)


def has_fingerprint(root: Root) -> bool:
    """Return whether `keys/fingerprint` exists."""
    return root.exists(_FINGERPRINT_PATH)


def _fingerprint_in_lake(root: Root) -> str:
    """Return what `keys/fingerprint` holds; empty if it does not exist."""
    content, _ = root.read_if_there(_FINGERPRINT_PATH) or (b"", "")
    return content.decode()


def is_key_in_lake(root: Root, key: bytes) -> bool:
    """Return whether a key is the one in the lake; also true if the lake holds none."""
    there = root.read_if_there(KEY_PATH)
    return there is None or there[0] == key


def is_active(root: Root, key: bytes) -> bool:
    """Return whether a key is the active one: the lake is published with it from now on."""
    return _fingerprint_in_lake(root) == fingerprint(key)


def activate(root: Root, source: str, key: bytes) -> None:
    """Make a key the active one.

    The fingerprint comes first. If the process ends before the key is written, the lake has no
    valid key, and nothing is published until this is repeated.
    """
    root.write(_FINGERPRINT_PATH, fingerprint(key).encode())
    kept = None
    if source == IN_LAKE:
        kept = KEY_PATH
        root.write(kept, key)
    elif _is_made_here(source):
        kept = _WRAPPED_PATH
        root.write(kept, _wrapped(source.removeprefix("kms:"), key))
    for path in {KEY_PATH, _WRAPPED_PATH} - {kept}:
        root.delete(path)


def delete_next_key(root: Root) -> None:
    """Delete the key of a rotation, which ends it."""
    root.delete(_NEXT_PATH)


def _is_made_here(source: str) -> bool:
    return source == IN_LAKE or source.startswith("kms:")


def erasure_key(root: Root) -> bytes:
    """Return the erasure key; make it if no patient was erased yet.

    Raises:
        MissingKey: Patients were erased, and the key is missing: they would come back.
    """
    if there := root.read_if_there(_ERASURE_PATH):
        return there[0]
    if root.files(ERASURES, ".json"):
        raise _no_erasure_key(root)
    root.create(_ERASURE_PATH, new_key())
    return root.read(_ERASURE_PATH)


def _no_erasure_key(root: Root) -> MissingKey:
    return MissingKey(
        f"{root.uri_of(_ERASURE_PATH)} is missing, and only this key recognises erased patients; "
        "restore it from a backup (in a lake whose first erasure is older than this file, it is a "
        f"copy of {KEY_PATH})"
    )


def _created(root: Root, path: str, make: Callable[[], bytes], *, may_create: bool) -> bytes:
    there = root.read_if_there(path)
    if there is None:
        if not may_create:
            raise MissingKey(
                f"{root.uri_of(path)} is not there, and this lake was published with a key: set "
                "COHORTLAKE_PATIENT_KEY to where `cohortlake key rotate` put it, or restore the "
                "file from a backup (a new key would give every patient another hash)"
            )
        root.create(path, make())
    return there[0] if there else root.read(path)  # another run may have been faster


def _from_environment(name: str) -> str:
    text = os.environ.get(name, "")
    if not text:
        raise MissingKey(f"COHORTLAKE_PATIENT_KEY=env:{name}, and {name} is not set")
    return text


def _from_file(name: str) -> str:
    try:
        return Path(name).expanduser().read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise MissingKey(f"COHORTLAKE_PATIENT_KEY=file:{name} cannot be read: {why}") from None


def _from_secrets_manager(name: str) -> str:
    with _explained(f"secretsmanager:{name}"):
        secret = connect("secretsmanager", Config()).get_secret_value(SecretId=name)
    text: str = secret.get("SecretString") or bytes(secret.get("SecretBinary", b"")).hex()
    return text


_SOURCES: dict[str, Callable[[str], str]] = {
    "env": _from_environment,
    "file": _from_file,
    "secretsmanager": _from_secrets_manager,
}


def _from_kms(root: Root, key_id: str, *, may_create: bool) -> bytes:
    """Return a key that the lake holds wrapped: encrypted by a key that never leaves KMS."""
    wrapped = _created(
        root, _WRAPPED_PATH, lambda: _wrapped(key_id, new_key()), may_create=may_create
    )
    with _explained(f"kms:{key_id}"):
        answer = connect("kms", Config()).decrypt(
            KeyId=key_id, CiphertextBlob=wrapped, EncryptionContext=_PURPOSE
        )
    return bytes(answer["Plaintext"])


def _wrapped(key_id: str, key: bytes) -> bytes:
    with _explained(f"kms:{key_id}"):
        answer = connect("kms", Config()).encrypt(
            KeyId=key_id, Plaintext=key, EncryptionContext=_PURPOSE
        )
    return bytes(answer["CiphertextBlob"])


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn boto3's errors inside the block into ours.

    Raises:
        NoCredentials: There are none.
        ServiceUnavailable: The service did not answer, or asks to try again.
        MissingKey: It refused.
    """
    try:
        yield
    except BOTO3_ERRORS as error:
        failure = failure_of(error)
        if failure.cause is Cause.NO_CREDENTIALS:
            raise failure.no_credentials(source.partition(":")[0]) from None
        what = f"COHORTLAKE_PATIENT_KEY={source} cannot be read: {failure.reason}"
        if failure.cause.is_transient:
            raise ServiceUnavailable(
                f"{what}; run it again, and if it stays so, check the network and AWS_REGION"
            ) from None
        raise MissingKey(
            f"{what}; check that it exists, and that the caller's IAM policy allows to read it"
        ) from None


def _decoded(text: str, source: str) -> bytes:
    for decode in (bytes.fromhex, lambda text: base64.b64decode(text, validate=True)):
        try:
            key: bytes = decode(text.strip())
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise SettingError(
        f"COHORTLAKE_PATIENT_KEY={source} does not hold a key: {KEY_BYTES} random bytes in hex or "
        "base64, as `openssl rand -hex 32` gives them"
    )
