"""DuckDB over the lake's files: the only module that opens a connection for the lake.

DuckDB's httpfs, delta and iceberg extensions cannot be assumed to download, so it is handed
lists of local files, or Arrow datasets where the root is on S3.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from cohortlake.lake.root import Root

ROW_GROUP_ROWS = 100_000


@contextmanager
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give an in-memory database that spills into a private temporary folder."""
    spill = tempfile.mkdtemp(prefix="cohortlake-")  # mode 0700: what spills may be PHI
    con = duckdb.connect(config={"temp_directory": spill})
    con.execute("SET enable_progress_bar = false")  # it would draw into logs
    try:
        yield con
    finally:
        con.close()
        shutil.rmtree(spill, ignore_errors=True)


def register(
    con: duckdb.DuckDBPyConnection, view: str, root: Root, paths: Sequence[str], schema: pa.Schema
) -> None:
    """Make Parquet files of one schema readable as a view, without reading them.

    Args:
        con: The connection.
        view: The view's name.
        root: Where the files are.
        paths: The files, relative to the root; none gives an empty view.
        schema: Their schema.
    """
    if not paths:
        con.register(view, schema.empty_table())
    elif root.is_local:
        files = con.read_parquet([root.path(path) for path in paths], hive_partitioning=False)
        files.create_view(view)
    else:
        con.register(view, dataset(root, paths, schema))


def dataset(root: Root, paths: Sequence[str], schema: pa.Schema) -> pads.Dataset:
    """Return Parquet files as an Arrow dataset."""
    return pads.dataset(
        [root.path(path) for path in paths], schema, format="parquet", filesystem=root.filesystem
    )


def batches(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.RecordBatchReader:
    """Run a query and stream its rows in a schema.

    DuckDB labels instants with the machine's zone, which without its ICU extension cannot
    be set; the cast relabels them.
    """
    reader: pa.RecordBatchReader = pa.RecordBatchReader.from_stream(con.sql(query))
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in reader))


def count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the one number that a query gives."""
    ((number,),) = con.sql(query).fetchall()
    return int(number)
