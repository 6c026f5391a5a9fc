"""What the index of the version history holds: columns of the version rows, in the order of a hash.

See `history_index` for its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.storage import engine, sorted_file
from cohortlake.storage.files import Files
from cohortlake.storage.sorted_file import SortedFile

FOLDER = "history_index"
_SORTED_BYTES = 24 * 1024 * 1024
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

    As many rows are sorted at once as fit into memory, and the sorted parts are merged. DuckDB runs
    out of memory if it sorts many rows in little.

    Args:
        con: The connection of the rows.
        versions: Version rows of the history: a relation.
        section: One of `SECTIONS`.
        scratch: Where sorted parts are written.
    """
    key, files = SECTIONS[section][0], []
    for number, rows in enumerate(_in_memory(con, versions, section)):
        path = f"{FOLDER}/{section}-{number}"
        with scratch.writing(path) as stream:
            batches = rows.sort_by(key).combine_chunks().to_batches()
            sorted_file.write(stream, {section: (rows.schema, batches)})
        files.append(SortedFile(path, partial(scratch.open, path)))
    if files:
        yield from sorted_file.merged(files, section)


def _in_memory(con: duckdb.DuckDBPyConnection, versions: str, section: str) -> Iterator[pa.Table]:
    """Yield the rows of a section, as many at once as fit into memory."""
    key, *_ = columns = SECTIONS[section]
    query = f"SELECT {', '.join(columns)} FROM {versions} WHERE {key} IS NOT NULL"
    held, size_bytes = list[pa.RecordBatch](), 0
    with engine.explained(con):
        for batch in engine.batches(con, query, SCHEMAS[section]):
            held.append(batch)
            size_bytes += batch.nbytes
            if size_bytes > _SORTED_BYTES:
                yield pa.Table.from_batches(held)
                held, size_bytes = [], 0
    if held:
        yield pa.Table.from_batches(held)
