"""Which new keys stand for which old ones: under another patient key, or of ids read otherwise.

The link of a rotation is written into the restricted zone and nowhere else: whoever has it can tell
that two releases of `published/` speak of one patient. See `cohort.freeze.rotate_cohort_keys` for
frozen cohorts, which are keyed beside `published/`, and `privacy.key_store` for where keys lie.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.history import image_sets
from cohortlake.privacy import fingerprint
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_FOLDER = "keys/links"

LINK = pa.schema([
    ("kind", pa.string()),  # patient, accession or uid
    ("old", pa.string()),
    ("new", pa.string()),
    ("days", pa.int32()),  # patient: to add to a date that was shifted under the old key
])  # fmt: skip


def write_link(root: Root, old: bytes, new: bytes) -> pa.Table:
    """Write down which new keys stand for which old ones, of everybody the memory ever held.

    Args:
        root: The lake.
        old: The key that it was published with.
        new: The key that it will be.

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
    """Return which keys stand for those that a release before format 4 made of ids as sent.

    That release took ` P1` and `P1 ` for two patients; both are `P1` now.

    Args:
        root: The lake.
        key: The key that it is published with.

    Returns:
        The link, with the columns of `LINK`. Only ids that were sent in another spelling than the
        canonical one are in it.
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
