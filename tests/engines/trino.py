"""A Trino server of the test's own, and a query over its HTTP API."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAST_JAVA = 24
_PLUGINS = ("iceberg",)


@dataclass(frozen=True)
class Trino:
    """A running server.

    Attributes:
        url: Where it listens.
    """

    url: str

    def query(self, sql: str, catalog: str, schema: str) -> list[tuple[Any, ...]]:
        """Run a query, and return its rows."""
        return self.run(sql, catalog, schema)[0]

    def run(self, sql: str, catalog: str, schema: str) -> tuple[list[tuple[Any, ...]], Any]:
        """Run a query, and return its rows and its statistics."""
        headers = {
            "X-Trino-User": "test",
            "X-Trino-Catalog": catalog,
            "X-Trino-Schema": schema,
            "X-Trino-Time-Zone": "UTC",
        }
        answer = self._ask(f"{self.url}/v1/statement", headers, sql.encode())
        rows: list[tuple[Any, ...]] = []
        while True:
            if "error" in answer:
                raise RuntimeError(answer["error"]["message"])
            rows += map(tuple, answer.get("data", ()))
            if "nextUri" not in answer:
                return rows, answer["stats"]
            answer = self._ask(answer["nextUri"], headers)

    def _ask(self, url: str, headers: dict[str, str], body: bytes | None = None) -> Any:
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
            return json.load(response)


def java() -> Path | None:
    """Return a Java that is new enough, or None."""
    found = [Path(path) for path in (shutil.which("java"),) if path]
    found += sorted(Path("/usr/lib/jvm").glob("*/bin/java"))
    return next((path for path in found if _version(path) >= LEAST_JAVA), None)


def _version(path: Path) -> int:
    done = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    number = done.stderr.partition('"')[2].partition(".")[0].partition('"')[0]
    return int(number) if number.isdecimal() else 0


@contextmanager
def running(home: Path, folder: Path, catalogs: dict[str, dict[str, str]]) -> Iterator[Trino]:
    """Run a server for as long as the block lasts.

    Args:
        home: The unpacked server.
        folder: An empty folder for its configuration.
        catalogs: Name -> the properties of a catalogue.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Of its fifty plugins those that are needed: it starts in a third of the time.
    (folder / "plugin").mkdir(parents=True)
    for name in _PLUGINS:
        (folder / "plugin" / name).symlink_to(home / "plugin" / name)
    config = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "node.environment": "test",
        "node.internal-address": "127.0.0.1",
        "http-server.http.port": port,
        "discovery.uri": url,
        "plugin.dir": folder / "plugin",
        "catalog.config-dir": folder / "catalog",
        "query.max-memory-per-node": "512MB",
        "memory.heap-headroom-per-node": "256MB",
    }
    _write(folder / "config.properties", config)
    for name, properties in catalogs.items():
        _write(folder / "catalog" / f"{name}.properties", properties)
    command = [
        str(java()), "-Xmx1500m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "--add-modules", "jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED",
        f"-Dconfig={folder}/config.properties", "-cp", f"{home}/lib/*",
        "io.trino.server.TrinoServer",
    ]  # fmt: skip
    log = folder / "log.txt"
    with log.open("wb") as output:
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=keep)
    try:
        _wait(server, url, log)
        yield Trino(url)
    finally:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server answers queries."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(log.read_text()[-3000:])
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{url}/v1/info") as answer,  # noqa: S310
        ):
            if not json.load(answer)["starting"]:
                return
        time.sleep(0.5)
    raise RuntimeError(log.read_text()[-3000:])


def _write(path: Path, properties: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
