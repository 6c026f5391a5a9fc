"""Tables from outside the lake: a registry, a pathology export, anything keyed by patient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from cohortlake.cohort.rows import explained
from cohortlake.errors import BadOutsideTable, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

KEY = "patient_key"


def read(con: duckdb.DuckDBPyConnection, source: str | Path | pd.DataFrame | pa.Table) -> pa.Table:
    """Return an outside table, after a look whether it can be joined.

    Args:
        con: The connection, whose reader of CSV is used.
        source: A frame, an Arrow table, or a Parquet or CSV file.

    Raises:
        BadOutsideTable: It cannot be read, or is not one row per patient.
    """
    table = _table(con, source)
    if KEY not in table.column_names:
        near = did_you_mean(KEY, table.column_names)
        raise BadOutsideTable(f"the table has no column {KEY!r}{near}; rename or add it")
    keys = table[KEY]
    if not pa.types.is_string(keys.type) and not pa.types.is_large_string(keys.type):
        raise BadOutsideTable(f"{KEY} must be text, as `lake.sql('FROM patients')` shows it")
    if keys.null_count:
        raise BadOutsideTable(f"{keys.null_count:,} rows have no {KEY}; leave them out")
    repeated = len(keys) - len(keys.unique())
    if repeated:
        raise BadOutsideTable(
            f"{repeated:,} rows repeat a {KEY}, and would multiply members; give one per patient"
        )
    return table


def _table(
    con: duckdb.DuckDBPyConnection, source: str | Path | pd.DataFrame | pa.Table
) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if not isinstance(source, str | Path):
        return pa.Table.from_pandas(source, preserve_index=False)
    path = Path(source)
    if path.suffix not in (".parquet", ".csv"):
        raise BadOutsideTable(f"{path.name}: give a .parquet or a .csv file, or a frame")
    if not path.is_file():
        raise BadOutsideTable(f"{path} is not there; its path is taken from the YAML's folder")
    with explained():
        files = (
            con.read_parquet(str(path)) if path.suffix == ".parquet" else con.read_csv(str(path))
        )
        return files.to_arrow_table()
