"""Taking up another patient key: which new keys stand for which old ones.

The link is written into the restricted zone and nowhere else: whoever has it can tell that two
releases of `published/` speak of one patient. What is keyed beside `published/`, frozen cohorts,
is `cohort.rekey`'s; where keys lie `lake.keys`'.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.lake import engine, image_sets
from cohortlake.lake.root import Root
from cohortlake.privacy import fingerprint
from cohortlake.privacy.keys import create_macros

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
