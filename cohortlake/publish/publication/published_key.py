"""The key that a lake is published with: another key is refused.

Two places hold the fingerprint of this key: `keys/fingerprint` in the restricted zone and the
marker in `published/`. A fingerprint is an HMAC of a constant under 256 random bits, so nobody can
find the key from it. If both are lost, or an older release wrote the marker, the published
`patient_key` values are compared with hashes of the version history's patients. Then only a key
that is kept in the lake is accepted. See `privacy.key_store` for where keys are kept.
"""

from __future__ import annotations

import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import WrongKey
from cohortlake.history import image_sets
from cohortlake.privacy import fingerprint, key_store
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.publish.publication.marker import Publication
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_PATIENT_KEY = pa.schema([(schema.PATIENT_KEY.name, schema.PATIENT_KEY.type)])


def key_to_publish_with(
    root: Root, source: str, marker: Publication | None, *, with_new_key: bool = False
) -> bytes:
    """Return the key, if it is the one that the published files were made with.

    Args:
        root: The lake.
        source: The setting COHORTLAKE_PATIENT_KEY.
        marker: What is published now.
        with_new_key: Whether the key may be another one, because all files will be replaced.

    Raises:
        MissingKey: The lake was published before, and its key is missing.
        WrongKey: The lake was published with another key.
        SettingError: The source cannot be understood, or holds no key.
    """
    is_known = marker is not None and bool(marker.key_fingerprint)
    files = [] if is_known else root.files("published/patients", ".parquet")
    has_fingerprint = key_store.has_fingerprint(root)
    is_new = marker is None and not files and not has_fingerprint
    key = key_store.read_key(root, source, may_create=is_new)
    if marker and marker.key_fingerprint:
        is_theirs = with_new_key or marker.key_fingerprint == fingerprint(key)
    else:
        is_theirs = has_fingerprint or (
            key_store.is_key_in_lake(root, key) and _made(root, key, files)
        )
    if not is_theirs:
        raise WrongKey(
            f"COHORTLAKE_PATIENT_KEY={source} is not the key that {root.uri_of('published')} was "
            "published with, so nothing was published. Give that key. `cohortlake key rotate` "
            "changes the key; if it was interrupted, run it again with the same arguments. "
            "docs/how-to/aws.md says what to do if the key is lost"
        )
    key_store.require_fingerprint(root, source, key)
    return key


def _made(root: Root, key: bytes, files: list[str]) -> bool:
    """Return whether any published patient_key was made with a key; true if there is none."""
    with engine.connection() as con:
        engine.register(con, "published", root, files, _PATIENT_KEY)
        if not engine.count(con, "SELECT count(*) FROM published"):
            return True
        image_sets.register(con, root)
        create_macros(con, key)
        return engine.count(con, _MADE) > 0


_MADE = """
SELECT count(*) FROM published WHERE patient_key IN (
    SELECT keyed_hash('PatientID', datastore_id, id) FROM (
        SELECT datastore_id, PatientID AS id FROM versions
        UNION  -- a release before format 4 hashed ids as they were sent
        SELECT datastore_id, PatientID_raw FROM versions
    )
)
"""
