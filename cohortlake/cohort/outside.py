"""Tables from outside the lake: a registry, a pathology export, anything keyed by patient."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

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


def check_columns(table: pa.Table, taken: Collection[str]) -> None:
    """Refuse columns that could not be told from others. Case tells nothing apart in SQL.

    Args:
        table: The table.
        taken: Names that stand for something else already.

    Raises:
        BadOutsideTable: It has one.
    """
    seen = {name.casefold() for name in taken} - {KEY}
    for name in table.column_names:
        if name.casefold() in seen or not name or {"'", '"'} & {*name}:
            raise BadOutsideTable(
                f"{name!r} is a column already, of the lake's, of cohorts or of another table, in "
                "upper or lower case, or no name for one; rename it"
            )
        seen.add(name.casefold())


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
    try:
        files = (
            con.read_parquet(str(path)) if path.suffix == ".parquet" else con.read_csv(str(path))
        )
        return files.to_arrow_table()
    except duckdb.Error as error:
        error.args = ()  # it may quote a row, and stays the context of ours
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise BadOutsideTable(
            f"{path} cannot be read as {kind}; write it anew, or give a frame"
        ) from None
