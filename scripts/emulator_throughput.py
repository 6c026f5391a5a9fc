"""Measure how fast the emulator starts, and how many full pages it serves per second.

    python scripts/emulator_throughput.py --image-sets 20000 --seconds 5

The server runs in its own process. The client is minimal, so that the figure measures the server:
sockets that send the same search and follow nextToken.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Annotated
from urllib.parse import quote, urlsplit

import typer

from emulator import AdminClient

_TOKEN = re.compile(rb'"nextToken":"([^"]+)"')


def main(
    image_sets: Annotated[int, typer.Option(help="Image sets to serve.")] = 20_000,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 5.0,
    connections: Annotated[int, typer.Option(help="Connections at once.")] = 4,
) -> None:
    """Serve a synthetic hospital and page through it as fast as possible."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "emulator", "serve", "--synthetic", str(image_sets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        line = server.stdout.readline() if server.stdout else b""
        ready = json.loads(line)
        typer.echo(f"{image_sets} image sets ready after {time.perf_counter() - started:.1f} s")
        until = time.perf_counter() + seconds
        address = urlsplit(ready["endpoint"])
        arguments = (address.port, ready["datastores"][0], until)
        threads = [threading.Thread(target=_page, args=arguments) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        served = AdminClient(ready["endpoint"]).stats()["requests"]["SearchImageSets"]
        typer.echo(f"{served / seconds:.0f} requests/s of 50 rows over {connections} connections")
        server.terminate()


def _page(port: int, datastore_id: str, until: float) -> None:
    address = ("127.0.0.1", port)
    with socket.create_connection(address) as connection, connection.makefile("rb") as answers:
        token = b""
        while time.perf_counter() < until:
            query = f"?maxResults=50&nextToken={quote(token)}" if token else "?maxResults=50"
            line = f"POST /datastore/{datastore_id}/searchImageSets{query} HTTP/1.1"
            connection.sendall(f"{line}\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            length = 0
            while (header := answers.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header[15:])
            body = answers.read(length)
            found = _TOKEN.search(body, len(body) - 300)
            token = found[1] if found else b""


if __name__ == "__main__":
    typer.run(main)
