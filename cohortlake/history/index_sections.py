"""What the index of the version history holds: columns of the version rows, in the order of a hash.

See `history_index` for its files.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.history import sorting
from cohortlake.storage import engine
from cohortlake.storage.files import Files

FOLDER = "history_index"
PATIENTS, STUDIES, SERIES = "patients", "studies", "series"
SECTIONS: dict[str, tuple[str, ...]] = {
    PATIENTS: (
        *("patient_hash", "study_hash", "interval_key", "datastore_id", "image_set_id", "version"),
        *("updated_at", "is_primary", "PatientID", "PatientName", "PatientBirthDate"),
        *("PatientSex", "PatientSex_raw", "StudyDate", "StudyTime"),
        *("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    ),
    STUDIES: ("study_hash", "study_month", "series_hash"),
    SERIES: ("series_hash", "study_hash"),
}
"""Section -> the columns of the version rows that it holds, in the order of the first one."""

_TYPES = {column.name: column.type for column in schema.IMAGE_SETS}
SCHEMAS = {
    name: pa.schema([(column, _TYPES[column]) for column in columns])
    for name, columns in SECTIONS.items()
}


def in_order(
    con: duckdb.DuckDBPyConnection, versions: str, section: str, scratch: Files
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a section in the order of its key.

    Args:
        con: The connection of the rows.
        versions: Version rows of the history: a relation.
        section: One of `SECTIONS`.
        scratch: Where sorted parts are written.
    """
    key, *_ = columns = SECTIONS[section]
    query = f"SELECT {', '.join(columns)} FROM {versions} WHERE {key} IS NOT NULL"
    with engine.explained(con):
        yield from sorting.in_order(engine.batches(con, query, SCHEMAS[section]), scratch)
