"""Test Superset on a lake's views, end to end, in its own virtual environment.

    .venv/bin/python scripts/try_superset.py var/demo/lake

Installs Superset into a temporary folder (some minutes), registers `cohortlake.duckdb` through its
API, makes a dataset of `studies`, runs queries in SQL Lab and in a chart, and checks that an INSERT
is refused. The section on Superset in docs/how-to/bi.md reports the result.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console

PACKAGES = (
    "apache-superset==6.1.0",
    "duckdb-engine==0.17.0",
    "duckdb==2.0.1",
    # Superset fails without rich and cachetools, and with the newest flask-caching.
    "rich",
    "cachetools",
    "flask-caching==2.3.1",
)
USER = {"username": "admin", "password": os.urandom(12).hex()}
QUESTION = "SELECT Modality, count(*) AS n FROM series GROUP BY 1 ORDER BY 2 DESC"
console = Console(highlight=False)


class Superset:
    """A running Superset, used through its API."""

    def __init__(self, url: str) -> None:
        self._url, self._token = url, ""
        self._token = self.ask("POST", "security/login", {**USER, "provider": "db"})["access_token"]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a request, also if it is an error."""
        url, headers = f"{self._url}/api/v1/{path}", {"Authorization": f"Bearer {self._token}"}
        answer = urllib3.request(method, url, json=body, headers=headers, timeout=60)
        said: dict[str, Any] = answer.json()
        return said

    def sql(self, database: int, query: str) -> dict[str, Any]:
        """Return the answer of SQL Lab to a query."""
        body = {"database_id": database, "schema": "main", "sql": query}
        return self.ask("POST", "sqllab/execute/", body)


@contextmanager
def superset(folder: Path) -> Iterator[Superset]:
    """Install and start Superset in a folder, and stop it when the block ends."""
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv/bin"
    subprocess.run((binaries / "pip", "install", "--quiet", *PACKAGES), check=True)
    config = folder / "superset_config.py"
    config.write_text(
        f"SECRET_KEY = {os.urandom(32).hex()!r}\nWTF_CSRF_ENABLED = False\n"
        f"SQLALCHEMY_DATABASE_URI = 'sqlite:///{folder}/superset.db'\n"
    )
    variables = {"SUPERSET_CONFIG_PATH": str(config), "FLASK_APP": "superset"}
    environment = os.environ | variables | {"SUPERSET_HOME": str(folder)}
    names = ("--firstname", "A", "--lastname", "B", "--email", "a@example.org")
    who = ("--username", USER["username"], "--password", USER["password"], *names)
    with (folder / "log").open("w") as log:
        for step in (("db", "upgrade"), ("fab", "create-admin", *who), ("init",)):
            command = (binaries / "superset", *step)
            subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)
        port = _free_port()
        command = (binaries / "superset", "run", "-h", "127.0.0.1", "-p", str(port))
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            starting = urllib3.Retry(connect=20, backoff_factor=0.5, backoff_max=5)
            urllib3.request("GET", f"http://127.0.0.1:{port}/health", retries=starting)
            yield Superset(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def attempt(server: Superset, database_file: Path) -> None:
    """Follow the steps of docs/how-to/bi.md and print the results."""
    read_only = {"engine_params": {"connect_args": {"read_only": True}}}
    database = server.ask(
        "POST",
        "database/",
        {
            "database_name": "cohortlake",
            "sqlalchemy_uri": f"duckdb:///{database_file}",
            "extra": json.dumps(read_only),
        },
    )["id"]
    listed = server.ask("GET", f"database/{database}/tables/?q=(schema_name:main)")["result"]
    console.print("views:", ", ".join(view["value"] for view in listed))
    made = {"database": database, "schema": "main", "table_name": "studies"}
    dataset = server.ask("POST", "dataset/", made)["id"]
    columns = server.ask("GET", f"dataset/{dataset}")["result"]["columns"]
    described = sum(bool(column["description"]) for column in columns)
    console.print(f"studies: {len(columns)} columns, {described} with their meaning")
    console.print("SQL Lab:", server.sql(database, QUESTION)["data"])
    count = {"expressionType": "SQL", "sqlExpression": "count(*)", "label": "studies"}
    chart = {
        "datasource": {"id": dataset, "type": "table"},
        "queries": [{"columns": ["PatientSex"], "metrics": [count]}],
    }
    console.print("chart:", server.ask("POST", "chart/data", chart)["result"][0]["data"])
    refused = server.sql(database, "INSERT INTO series SELECT * FROM series")
    console.print("INSERT:", refused["errors"][0]["message"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def main() -> None:
    """Run the test on the lake that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: try_superset.py LAKE")
    file = Path(sys.argv[1]).absolute() / "published/cohortlake.duckdb"
    if not file.is_file():
        sys.exit(f"{file} does not exist; run `cohortlake publish` first")
    with tempfile.TemporaryDirectory() as folder, superset(Path(folder)) as server:
        attempt(server, file)


if __name__ == "__main__":
    main()
