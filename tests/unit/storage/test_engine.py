"""Connections are apart from each other, though one database of the process serves them all."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import cohortlake
from cohortlake.storage import engine
from cohortlake.storage.root import Root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the folders for what spills, which is empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nothing_of_one_connection_is_seen_by_another(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    for number in range(2):
        path = tmp_path / f"published/{number}/rows.parquet"
        path.parent.mkdir(parents=True)
        duckdb.sql(f"SELECT {number} AS number").write_parquet(str(path))
    columns = pa.schema([("number", pa.int32())])
    with engine.connection() as one, engine.connection() as other:
        for number, con in enumerate((one, other)):
            engine.register(con, "files", root, [f"published/{number}/rows.parquet"], columns)
            con.register("registered", pa.table({"number": [number]}))
            con.execute(f"CREATE TEMP TABLE made AS SELECT {number} AS number")
            con.execute(f"CREATE TEMP MACRO macro() AS {number}")
        for number, con in enumerate((one, other)):
            query = "SELECT number, macro() FROM files JOIN registered USING (number) JOIN made "
            assert con.execute(query + "USING (number)").fetchall() == [(number, number)]
        one.execute("CREATE TEMP TABLE own (n INTEGER)")
        with pytest.raises(duckdb.CatalogException):
            other.execute("FROM own")
    with engine.connection() as con:
        assert con.execute("SHOW ALL TABLES").fetchall() == []
        held = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
        assert con.execute(held).fetchall() == [(0,)], "tables go with their connection"


@pytest.mark.skipif(
    "jemalloc" not in pa.supported_memory_backends(), reason="this pyarrow has no jemalloc"
)
def test_arrow_gives_memory_back_during_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend() -> str:
        return str(pa.default_memory_pool().backend_name)

    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    before = backend()
    with engine.bounded_connection():
        assert backend() == "jemalloc"
    assert backend() == before
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", before)
    with engine.bounded_connection():
        assert backend() == before


def test_a_shared_schema_is_seen_by_cursors_and_is_gone_after_its_block() -> None:
    with engine.connection() as con:
        with engine.shared_schema(con) as one, engine.shared_schema(con) as other:
            con.execute(f"CREATE TABLE {one}.rows AS SELECT 1 AS n")
            con.execute(f"CREATE TABLE {other}.rows AS SELECT 2 AS n")
            with con.cursor() as cursor:
                query = f"FROM {one}.rows UNION ALL FROM {other}.rows ORDER BY n"
                assert cursor.execute(query).fetchall() == [(1,), (2,)]
        assert con.execute("SHOW ALL TABLES").fetchall() == []
        with pytest.raises(ValueError, match="stop"), engine.shared_schema(con) as schema:
            con.execute(f"CREATE TABLE {schema}.rows AS SELECT 1 AS n")
            raise ValueError("stop")
        schemas = "SELECT schema_name FROM duckdb_schemas() WHERE schema_name LIKE 'shared%'"
        assert con.execute(schemas).fetchall() == []


def test_whatever_a_module_creates_is_temporary() -> None:
    library = Path(cohortlake.__file__).parent
    kept = re.compile(r"CREATE (OR REPLACE )?(TABLE|VIEW|MACRO) (?!\{shared\}\.)")
    found = {path.relative_to(library).as_posix() for path in library.rglob("*.py")
             if kept.search(path.read_text())}  # fmt: skip
    assert found == {"publish/export/database.py"}, "a view that is kept is seen by all connections"


def test_every_connection_is_in_utc_and_draws_nothing() -> None:
    asked = "SELECT current_setting('TimeZone'), current_setting('enable_progress_bar')"
    for _ in range(2):
        with engine.connection() as con:
            assert con.execute(asked).fetchall() == [("UTC", False)]


def test_options_hold_for_the_connections_that_ask_for_them() -> None:
    asked = "SELECT current_setting('memory_limit')"
    with engine.connection(memory_limit="500MB") as limited, engine.connection() as con:
        limit = limited.execute(asked).fetchall()
        assert limit == [("476.8 MiB",)]
        assert con.execute(asked).fetchall() != limit


def test_what_spilled_lies_in_a_private_folder_that_goes_with_the_last_connection(
    folder: Path,
) -> None:
    for _ in range(2):
        with engine.connection() as con:
            with engine.connection():
                (spill,) = folder.iterdir()
                assert stat.S_IMODE(spill.stat().st_mode) == 0o700
            con.execute("SET GLOBAL memory_limit = '30MB'")
            con.execute("CREATE TEMP TABLE large AS SELECT hash(range) AS hash FROM range(8000000)")
            assert any(path.stat().st_size > 1_000_000 for path in spill.iterdir())
        assert list(folder.iterdir()) == []
    with engine.connection() as con:
        limit = con.execute("SELECT current_setting('memory_limit')").fetchall()
        assert "MiB" not in str(limit), "the database that spilled is closed"


def test_a_forked_process_has_a_database_of_its_own(folder: Path) -> None:
    with engine.connection() as con:
        con.execute("ATTACH ':memory:' AS of_the_parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of threads, and DuckDB has some
            child = os.fork()
        if not child:
            signal.alarm(30)
            with engine.connection() as own:
                names = own.execute("SELECT database_name FROM duckdb_databases()").fetchall()
            os._exit(("of_the_parent",) in names)
        assert os.waitpid(child, 0)[1] == 0
        assert len(list(folder.iterdir())) == 1, "the child deleted its own folder only"
        con.execute("DETACH of_the_parent")


def test_after_an_internal_error_of_duckdb_the_next_connection_works() -> None:
    with pytest.raises(duckdb.InternalException), engine.connection() as con:
        con.execute("ATTACH ':memory:' AS of_the_broken_database")
        raise duckdb.InternalException
    with engine.connection() as con:
        names = con.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        assert ("of_the_broken_database",) not in names


_SCAN_A_PIPE = """
import os, sys, threading
import pyarrow as pa, pyarrow.dataset as pads, pyarrow.fs as pafs
from cohortlake.storage import engine
os.mkfifo(sys.argv[1])
layout = pads.ParquetFileFormat()
fragment = layout.make_fragment(sys.argv[1], pafs.LocalFileSystem())
files = pads.FileSystemDataset([fragment], pa.schema([("x", pa.int64())]), layout)
# To open a pipe takes until another thread opens its other end: a thread of Python.
threading.Timer(0.2, lambda: os.close(os.open(sys.argv[1], os.O_WRONLY))).start()
try:
    engine._scannable(files).scanner(columns=["x"]).to_reader().read_all()
except OSError:
    print("no Parquet")
"""


def test_python_runs_while_duckdb_opens_files(tmp_path: Path) -> None:
    command = (sys.executable, "-c", _SCAN_A_PIPE, str(tmp_path / "pipe"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "no Parquet\n"
