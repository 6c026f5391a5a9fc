"""A webhook that keeps what it gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """What was sent, and whether it answers with an error."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    is_broken: bool = False


@contextmanager
def listening() -> Iterator[Webhook]:
    """Listen on the loopback address within the block."""
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not webhook.is_broken:
                webhook.messages.append(json.loads(body))
            self.send_response(500 if webhook.is_broken else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        webhook.url = f"json://127.0.0.1:{server.server_port}/"
        try:
            yield webhook
        finally:
            server.shutdown()
            thread.join()
