"""DuckDB over the files of the lake. No other module opens a connection.

DuckDB may not be able to download its extensions httpfs, delta and iceberg. So it gets lists of
local files, or Arrow datasets if the root is on S3.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from cohortlake.storage import damage, locks
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    import pyarrow.dataset as pads
    import pyarrow.fs as pafs

MEMORY = "200MB"
"""What DuckDB keeps in memory. It spills all else; Arrow, deltalake and Python take more."""
_MOST_THREADS = 4
"""Each thread of DuckDB needs its own share of the memory, such as a row group that it reads."""
_BATCH_ROWS = 8192  # by default a batch has 131,072 rows, which take 130 MB

_REGISTERED: weakref.WeakKeyDictionary[
    duckdb.DuckDBPyConnection, list[tuple[Root, Sequence[str]]]
] = weakref.WeakKeyDictionary()
"""The files that each connection reads."""


def connect(**config: str) -> duckdb.DuckDBPyConnection:
    """Return an in-memory database whose time zone is UTC.

    By default DuckDB compares instants with text, prints them and labels them for Arrow in the time
    zone of the machine.

    Args:
        **config: DuckDB's options.
    """
    con = duckdb.connect(config=dict(config))
    con.execute("SET GLOBAL TimeZone = 'UTC'")  # GLOBAL: its cursors too
    return con


@contextmanager
def connection(**config: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection as long as the block lasts, with views and temporary tables of its own.

    All connections with the same options belong to one database of the process. Errors of the files
    of `register` are explained.

    Args:
        **config: DuckDB's options, such as memory_limit. They hold for all these connections
            together.
    """
    shared = _shared(os.getpid(), *sorted(config.items()))
    with shared.opened() as database, database.cursor() as con, explained(con):
        _draw_nothing(con)
        yield con


@contextmanager
def bounded_connection(memory: str = MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection as `connection` does, for work on any number of rows in bounded memory.

    Args:
        memory: What DuckDB keeps in memory.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with _frugal_arrow(), connection(memory_limit=memory, threads=str(threads)) as con:
        yield con


@contextmanager
def _frugal_arrow() -> Iterator[None]:
    """Let Arrow allocate by jemalloc as long as the block lasts, where it has that.

    By default Arrow allocates by mimalloc. A publication then takes a tenth more memory, and one
    that writes large files again a fifth more time. Whoever names an allocator in the environment
    keeps it.
    """
    before = pa.default_memory_pool()
    is_chosen = "ARROW_DEFAULT_MEMORY_POOL" in os.environ
    if not is_chosen and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@contextmanager
def shared_schema(con: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Give the name of a schema whose tables the cursors of a connection see too.

    It is for work that several threads do together: a temporary table belongs to one connection.

    Args:
        con: The connection. All tables are dropped at the end of the block.
    """
    name = f"shared_{uuid.uuid4().hex}"
    con.execute(f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        con.execute(f"DROP SCHEMA {name} CASCADE")


class _SharedDatabase:
    """A database that stays open, because a new one takes 30 ms of processor time.

    The folder that it spills into is deleted with the last connection, as `spilling` does it.

    Args:
        config: DuckDB's options.
    """

    def __init__(self, config: dict[str, str]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        self._connections = 0
        self._spill = contextlib.ExitStack()

    @contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give the database, to make a connection from."""
        with self._lock:
            database = self._open()
            self._connections += 1
        try:
            yield database
        except (duckdb.InternalException, duckdb.FatalException):
            _shared.cache_clear()  # DuckDB refuses every later query of this database
            raise
        finally:
            with self._lock:
                self._connections -= 1
                if not self._connections:
                    self._spill.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._database is None:
            # The cache has an entry for each file, though it holds remote files only.
            self._database = connect(enable_external_file_cache="false", **self._config)
        if not self._connections:
            # Spilled rows may be PHI: the folder is private, and the next run deletes it after a
            # kill.
            spill = self._spill.enter_context(locks.temporary_folder())
            self._spill.callback(self._close_if_spilled, spill)
            self._database.execute(f"SET GLOBAL temp_directory = {quoted(str(spill))}")
        return self._database

    def _close_if_spilled(self, spill: Path) -> None:
        # DuckDB refuses another folder after it used one, which a file of its own shows.
        if self._database and any(spill.glob("duckdb*")):
            self._database.close()
            self._database = None


@functools.cache
def _shared(process_id: int, *config: tuple[str, str]) -> _SharedDatabase:
    """Return a database of this process. A forked process cannot use those of its parent."""
    return _SharedDatabase(dict(config))


def explained(con: duckdb.DuckDBPyConnection) -> contextlib.AbstractContextManager[None]:
    """Explain errors of the registered files of a connection; see `damage.explained`."""
    return damage.explained(lambda: _REGISTERED.get(con, ()))


def spilling() -> duckdb.DuckDBPyConnection:
    """Open an in-memory database of its own that spills into a private temporary folder.

    The folder is deleted when the connection is closed, or when nothing refers to the connection
    and its relations any more: a relation keeps its connection open.
    """
    # Spilled rows may be PHI: the folder is private, and the next run deletes it after a kill.
    stack = contextlib.ExitStack()
    spill = stack.enter_context(locks.temporary_folder())
    con = connect(temp_directory=str(spill))
    # DuckDB has no event for the end of a database, but it releases the registered tables.
    until_closed = pa.table({"until_closed": pa.nulls(0)})
    con.register("until_closed", until_closed)
    weakref.finalize(until_closed, stack.close)
    _draw_nothing(con)
    return con


def _draw_nothing(con: duckdb.DuckDBPyConnection) -> None:
    """Turn the progress bar off. It would draw into logs."""
    # In Jupyter without ipywidgets it is off, and setting it would fail: DuckDB asks for the
    # package even to turn it off.
    ((is_drawn,),) = con.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    if is_drawn:
        con.execute("SET enable_progress_bar = false")


def register(
    con: duckdb.DuckDBPyConnection,
    view: str,
    root: Root,
    paths: Sequence[str],
    schema: pa.Schema,
    reader: pafs.FileSystem | None = None,
) -> None:
    """Make Parquet files of one schema readable as a view, without reading them.

    Args:
        con: The connection.
        view: The view's name.
        root: Where the files are.
        paths: The files, relative to the root and all of one layer; none gives an empty view.
            If they lie in folders named `column=value`, this column is in the view too.
        schema: Their schema.
        reader: What reads them on S3, see `Files.reader`; one of its own by default.
    """
    _REGISTERED.setdefault(con, []).append((root, paths))
    con.execute(f"DROP VIEW IF EXISTS {view}")  # `con.register` does not replace one made in SQL
    if not paths:
        con.register(view, pa.Table.from_batches([], schema))  # `empty_table()` imports pandas
    elif (location := root.location_of(paths[0])).is_local:
        # DuckDB assumes that all files are as long as the first one, and plans joins by that.
        largest_first = sorted((location.path(path) for path in paths), key=_descending_size)
        files = ", ".join(quoted(literally(path)) for path in largest_first)
        query = f"FROM read_parquet([{files}], hive_partitioning = false, filename = true)"
        partition = _partition(paths)
        value = f", {folder_value(partition)} AS {partition}" if partition else ""
        columns = f"* EXCLUDE (filename){value}"
        con.execute(f"CREATE TEMP VIEW {view} AS SELECT {columns} {query}")
    else:
        con.register(view, _scannable(dataset(root, paths, schema, reader)))


def folder_value(column: str) -> str:
    """Return SQL for the value of a partition column, over `read_parquet(..., filename = true)`.

    It is in the name of the file's folder. `hive_partitioning` would read columns from the folders
    above the lake too. DuckDB skips the files that a condition on this value excludes.

    Args:
        column: The column. Its values are text.
    """
    return rf"regexp_extract(filename, '{column}=([^/\\]*)[/\\][^/\\]*$', 1)"


def _partition(paths: Sequence[str]) -> str:
    """Return the column in the names of some files' folders; empty if they name none."""
    folder = paths[0].split("/")[-2]
    column, is_partition, _ = folder.partition("=")
    return column if is_partition else ""


@functools.cache
def sql_type(type_: pa.DataType) -> str:
    """Return the SQL type that DuckDB gives an Arrow type."""
    rows = pa.Table.from_batches([], pa.schema([("column", type_)]))
    with connection() as con:
        return str(con.from_arrow(rows).types[0])


def literally(path: str) -> str:
    """Return a pattern for DuckDB that matches this path only."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def dataset(
    root: Root, paths: Sequence[str], schema: pa.Schema, reader: pafs.FileSystem | None = None
) -> pads.Dataset:
    """Return Parquet files as an Arrow dataset; the arguments are those of `register`."""
    import pyarrow.dataset as pads  # 60 MB; DuckDB reads local files without it

    if not paths:
        return pads.dataset(schema.empty_table())
    location = root.location_of(paths[0])
    columns = [(column, pa.string()) for column in (_partition(paths),) if column]
    return pads.dataset(
        [location.path(path) for path in paths],
        schema,
        format="parquet",
        filesystem=reader or root.reader(paths[0]),
        partitioning=pads.partitioning(pa.schema(columns), flavor="hive"),
        # The names above the folder of the table are no partitions.
        partition_base_dir=location.path(*paths[0].split("/")[:-2]),
    )


def _scannable(files: pads.Dataset) -> pads.Dataset:
    """Return a dataset whose files DuckDB may open while other threads run Python."""
    return _scannable_class()(list(files.get_fragments()), files.schema, files.format)


@functools.cache
def _scannable_class() -> type[pads.FileSystemDataset]:
    """Return the class of datasets that DuckDB scans.

    DuckDB calls `scanner(...).to_reader()`. pyarrow's own method holds Python's lock until the
    first files are open. If a thread of Arrow opens another file meanwhile, by a reader that is
    written in Python, as ours of S3 is, each of the two waits for the other for ever.
    """
    import pyarrow.dataset as pads

    class Scanner:
        def __init__(self, scanner: pads.Scanner) -> None:
            self._scanner = scanner

        def to_reader(self) -> pa.RecordBatchReader:
            batches = self._scanner.to_batches()  # does not hold the lock
            return pa.RecordBatchReader.from_batches(self._scanner.projected_schema, batches)

    class Dataset(pads.FileSystemDataset):  # type: ignore[misc]
        def scanner(self, **options: Any) -> Scanner:
            return Scanner(super().scanner(**options))

    return Dataset


def quoted(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _descending_size(path: str) -> int:
    return -Path(path).stat().st_size


def text_list(texts: Iterable[str]) -> str:
    """Return SQL for a list of texts, sorted, to compare a column with by `IN`.

    The list is made of constants, so that DuckDB skips the row groups and files of others.

    Args:
        texts: The texts; none gives a list that holds the empty text only.
    """
    return f"({', '.join(map(quoted, sorted(texts) or ['']))})"


def batches(con: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.RecordBatchReader:
    """Run a query and stream its rows, cast to the types of a schema."""
    reader: pa.RecordBatchReader = con.sql(query).to_arrow_reader(_BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in reader))


def count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the one number that a query gives."""
    ((number,),) = con.sql(query).fetchall()
    return int(number)
