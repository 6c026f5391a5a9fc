"""Rotating the patient key, and the link between old and new keys.

Keys also change when a release reads ids in another way. The link is written into `keys/links/` of
the restricted zone and nowhere else: with it, anyone can see that two releases of `published/` are
about one patient. See `cohort.freeze.rotate_cohort_keys` for frozen cohorts, and
`privacy.key_store` for where the keys are.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.cohort.freeze import rotate_cohort_keys
from cohortlake.cohort.freeze.signature import read_key as read_cohort_key
from cohortlake.history import image_sets
from cohortlake.privacy import Policy, fingerprint, key_store
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.publish.publication.marker import read_marker
from cohortlake.publish.publication.published_key import key_to_publish_with
from cohortlake.publish.publisher import publish, request_full_publish
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_FOLDER = "keys/links"

LINK = pa.schema([
    ("kind", pa.string()),  # patient, accession or uid
    ("old", pa.string()),
    ("new", pa.string()),
    ("days", pa.int32()),  # patient: to add to a date that was shifted under the old key
])  # fmt: skip


def rotate(root: Root, settings: Settings, policy: Policy, source: str) -> int:
    """Publish a lake under another patient key, and give frozen cohorts the new keys.

    If it ends midway for any reason, repeat it: it goes on to the end.

    Args:
        root: The lake.
        settings: Where the present keys are.
        policy: The policy to publish under.
        source: Where the new key is, or will be. See COHORTLAKE_PATIENT_KEY.

    Returns:
        How many frozen cohorts got new keys.

    Raises:
        LakeInUse: Another run is at work.
        MissingKey: One of the keys cannot be read.
        WrongKey: COHORTLAKE_PATIENT_KEY is not the key that the lake was published with.
        SettingError: A source cannot be understood, or there is no key to sign cohorts with.
    """
    cohort_key = read_cohort_key(settings.cohort_key_file)
    with root.alone():
        rotate_cohort_keys.require_key(root, cohort_key)
        new = key_store.next_key(root, source)
        changed = 0
        if not key_store.is_active(root, new):
            old = key_to_publish_with(root, settings.patient_key, read_marker(root))
            link = write_link(root, old, new)
            changed = rotate_cohort_keys.rotate(root, link, cohort_key)
            request_full_publish(root)
        key_store.activate(root, source, new)
        publish(root, policy, source, settle=settings.settle, with_new_key=True)
        key_store.delete_next_key(root)
    return changed


def write_link(root: Root, old: bytes, new: bytes) -> pa.Table:
    """Write the link between the old and new keys of everybody who was ever in the version history.

    Args:
        root: The lake.
        old: The key that it was published with.
        new: The key that it will be published with.

    Returns:
        The link, with the columns of `LINK`.

    Raises:
        RootNotUsable: It cannot be written.
    """
    with engine.connection() as con:
        image_sets.register(con, root)
        create_macros(con, old)
        con.execute(_OLD)
        create_macros(con, new)
        link = engine.batches(con, _LINK, LINK).read_all()
    path = f"{_FOLDER}/{fingerprint(old)[:12]}-{fingerprint(new)[:12]}.parquet"
    with root.writing(path) as stream:
        pq.write_table(link, stream, compression="zstd", compression_level=3)
    return link


def respelled(root: Root, key: bytes) -> pa.Table:
    """Return the link from the keys of a release before format 4, which hashed ids as sent.

    That release took ` P1` and `P1 ` for two patients. Both are `P1` now.

    Args:
        root: The lake.
        key: The key that it is published with.

    Returns:
        The link, with the columns of `LINK`, of the ids whose spelling was not canonical.
    """
    with engine.connection() as con:
        image_sets.register(con, root)
        create_macros(con, key)
        return engine.batches(con, _RESPELLED, LINK).read_all()


_OLD = """
CREATE TEMP TABLE before AS
SELECT 'patient' AS kind, datastore_id, PatientID AS id,
       keyed_hash('PatientID', datastore_id, id) AS old, shift_days(datastore_id, id) AS days
FROM (SELECT DISTINCT datastore_id, PatientID FROM versions WHERE PatientID IS NOT NULL)
UNION ALL
SELECT 'accession', datastore_id, AccessionNumber,
       keyed_hash('AccessionNumber', datastore_id, AccessionNumber), NULL
FROM (SELECT DISTINCT datastore_id, AccessionNumber FROM versions
      WHERE AccessionNumber IS NOT NULL)
UNION ALL
SELECT 'uid', NULL, uid, keyed_uid(uid), NULL
FROM (SELECT StudyInstanceUID AS uid FROM versions UNION SELECT SeriesInstanceUID FROM versions)
WHERE uid IS NOT NULL
"""

_LINK = """
SELECT kind, old, CASE kind
           WHEN 'patient' THEN keyed_hash('PatientID', datastore_id, id)
           WHEN 'accession' THEN keyed_hash('AccessionNumber', datastore_id, id)
           ELSE keyed_uid(id) END AS new,
       CASE kind WHEN 'patient' THEN days - shift_days(datastore_id, id) END AS days
FROM before ORDER BY kind, old
"""

# Where a policy shows UIDs, frozen members have them as they were sent.
_RESPELLED = """
WITH patients AS (
    SELECT DISTINCT datastore_id, PatientID_raw AS sent, PatientID AS id FROM versions
    WHERE PatientID_raw IS NOT NULL AND PatientID IS NOT NULL
), orders AS (
    SELECT DISTINCT datastore_id, AccessionNumber_raw AS sent, AccessionNumber AS id FROM versions
    WHERE AccessionNumber_raw IS NOT NULL AND AccessionNumber IS NOT NULL
), uids AS (
    SELECT StudyInstanceUID_raw AS sent, StudyInstanceUID AS id FROM versions
    WHERE StudyInstanceUID_raw IS NOT NULL AND StudyInstanceUID IS NOT NULL
    UNION
    SELECT SeriesInstanceUID_raw, SeriesInstanceUID FROM versions
    WHERE SeriesInstanceUID_raw IS NOT NULL AND SeriesInstanceUID IS NOT NULL
)
SELECT 'patient' AS kind, keyed_hash('PatientID', datastore_id, sent) AS old,
       keyed_hash('PatientID', datastore_id, id) AS new,
       shift_days(datastore_id, sent) - shift_days(datastore_id, id) AS days
FROM patients
UNION ALL
SELECT 'accession', keyed_hash('AccessionNumber', datastore_id, sent),
       keyed_hash('AccessionNumber', datastore_id, id), NULL
FROM orders
UNION ALL
SELECT 'uid', keyed_uid(sent), keyed_uid(id), NULL FROM uids
UNION ALL
SELECT 'uid', sent, id, NULL FROM uids
"""
