"""DuckDB reads the Iceberg tables by its extension as it reads the published files."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess

import pytest

from engines.conftest import ENGINES, Lakes, bare_environment
from engines.questions import QUESTIONS

HOME = ENGINES / "duckdb"
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        not (HOME / ".whole").exists(), reason="scripts/engines.sh could not install the extension"
    ),
]

# Its release is older than that of the lake, so it runs in a process of its own.
_ASK = """
import json, sys
from pathlib import Path
import duckdb, duckdb_extension_avro, duckdb_extension_iceberg

tables, questions = json.load(sys.stdin)
con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
for package in (duckdb_extension_avro, duckdb_extension_iceberg):
    (file,) = Path(package.__path__[0]).rglob("*.duckdb_extension")
    con.execute(f"LOAD '{file}'")
con.execute("SET TimeZone = 'UTC'")
for name, metadata in tables.items():
    con.execute(f"CREATE VIEW {name} AS FROM iceberg_scan('{metadata}')")
answers = {name: con.execute(sql).fetchall() for name, sql in questions.items()}
print(json.dumps({
    name: sorted([str(value).lower() for value in row] for row in rows)
    for name, rows in answers.items()
}))
"""


def test_it_answers_as_from_the_files(lakes: Lakes) -> None:
    with contextlib.closing(sqlite3.connect(lakes.catalogue)) as con:
        tables = dict(con.execute("SELECT table_name, metadata_location FROM iceberg_tables"))
    questions = {
        name: sql.format(at="", has_ct="list_contains(modalities, 'CT')")
        for name, sql in QUESTIONS.items()
    }
    done = subprocess.run(
        [HOME / "bin/python", "-c", _ASK],
        input=json.dumps([tables, questions]),
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {name: list(map(tuple, rows)) for name, rows in json.loads(done.stdout).items()}
    assert found == lakes.answers
