"""A proxy before an S3 server. It counts writes, disturbs requests, and kills who sends them.

Each run of a test gets a proxy of its own, so that a proxy knows whose request it has. It forwards
the headers as they are: signatures stay valid.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

WRITES = ("PUT", "POST", "DELETE")
FAULTS = (
    "503 SlowDown",
    "500 InternalError",
    "reset before the request arrives",
    "answer lost",
    "500 after the request succeeded",
    "slow answer",
    "slow body",
    "cut body",
)
_SLOW_SECONDS = 0.3
_PIECES = 4
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: the connection is reset
_OF_A_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-length")
_ERROR = "<Error><Code>{code}</Code><Message>Injected.</Message></Error>"


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def _nothing() -> None:
    pass


class FaultProxy:
    """Forwards requests to an S3 server.

    Args:
        target: The server's URL.

    Attributes:
        url: The URL of this proxy.
        writes: The method and the path of each write that was forwarded, in order.
        faults: How often each fault was injected.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._lock = threading.Lock()
        self._chance = random.Random(0)  # noqa: S311
        self._fault_rate, self._kinds = 0.0, FAULTS
        self._once: tuple[str, re.Pattern[str], Callable[[], None]] | None = None
        self._then: Callable[[], None] = _nothing
        self._kill: Callable[[], None] | None = None
        self._kill_after = 0
        self.writes: list[str] = []
        self.faults: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def disturb(self, rate: float, seed: int, kinds: Sequence[str] = FAULTS) -> None:
        """Inject faults from now on.

        Args:
            rate: The part of the requests that are disturbed.
            seed: The seed of what is drawn.
            kinds: Which faults.
        """
        self._chance = random.Random(seed)  # noqa: S311
        self._fault_rate, self._kinds = rate, kinds

    def kill_after(self, writes: int, kill: Callable[[], None]) -> None:
        """Call `kill` when one more write comes than so many. It and all later ones are dropped."""
        self._kill, self._kill_after = kill, writes

    @contextmanager
    def serving(self) -> Iterator[FaultProxy]:
        """Serve in threads as long as the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def admits(self, what: str) -> bool:
        """Count a request, and return whether it may pass; kill the run if it may not."""
        with self._lock:
            is_write = what.startswith(WRITES)
            if self._kill and is_write and len(self.writes) >= self._kill_after:
                self._kill()
                return False
            if is_write:
                self.writes.append(what)
            return True

    def disturb_once(self, fault: str, request: str, then: Callable[[], None] = _nothing) -> None:
        """Inject one fault.

        Args:
            fault: The fault.
            request: A regular expression for the method and the path of the request.
            then: Called before the client notices the fault.
        """
        self._once = (fault, re.compile(request), then)

    def fault(self, method: str, path: str) -> str:
        """Draw the fault of a request; empty for none."""
        with self._lock:
            if self._once and self._once[1].search(f"{method} {path}"):
                fault, _, self._then = self._once
                self._once = None
                self.faults[fault] += 1
                return fault
            if self._chance.random() >= self._fault_rate:
                return ""
            kinds = [k for k in self._kinds if method == "GET" or not k.endswith("body")]
            if not kinds:
                return ""
            fault = self._chance.choice(kinds)
            self.faults[fault] += 1
            return fault

    def take_effect(self) -> None:
        """Call what `disturb_once` was given, if its fault is at work."""
        then, self._then = self._then, _nothing
        then()

    def connect(self) -> HTTPConnection:
        """Return a connection to the server, which opens with its first request."""
        return HTTPConnection(str(self._target.hostname), self._target.port, timeout=60)


def _handler_of(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is sent in one piece
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with closing(proxy.connect()) as self._server, suppress(ConnectionError):
                super().handle()

        def finish(self) -> None:
            with suppress(ConnectionError):  # a killed client reads no answer
                super().finish()

        def handle_expect_100(self) -> bool:
            is_expected = super().handle_expect_100()
            self.wfile.flush()
            return is_expected

        def _pass_on(self) -> None:
            if self.headers.get("Transfer-Encoding"):
                body = b"".join(self._chunks())
                del self.headers["Transfer-Encoding"]
                self.headers["Content-Length"] = str(len(body))
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not proxy.admits(f"{self.command} {self.path}"):
                self._reset()
                return
            match fault := proxy.fault(self.command, self.path):
                case "reset before the request arrives":
                    self._reset()
                    return
                case "503 SlowDown" | "500 InternalError":
                    self._fail(fault)
                    return
            try:
                answer = self._forward(body)
            except (OSError, HTTPException):
                self._server.close()
                self._reset()
                return
            proxy.take_effect()
            match fault:
                case "answer lost":
                    self._reset()
                case "500 after the request succeeded":
                    self._fail("500 InternalError")
                case _:
                    self._answer(answer, fault)

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

        def _forward(self, body: bytes) -> _Answer:
            to = self._server
            to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":  # of the connection: it was answered here
                    to.putheader(name, value)
            to.endheaders(body)
            response = to.getresponse()
            return _Answer(response.status, response.getheaders(), response.read())

        def _answer(self, answer: _Answer, fault: str) -> None:
            if fault == "slow answer":
                time.sleep(_SLOW_SECONDS)
            self._head(answer, len(answer.body))
            if fault == "cut body" and answer.body:
                self.wfile.write(answer.body[: len(answer.body) // 2])
                self._close()
            elif fault == "slow body":
                size = len(answer.body) // _PIECES + 1
                for begin in range(0, len(answer.body), size):
                    self.wfile.write(answer.body[begin : begin + size])
                    self.wfile.flush()
                    time.sleep(_SLOW_SECONDS / _PIECES)
            else:
                self.wfile.write(answer.body)

        def _head(self, answer: _Answer, size: int) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                if name.lower() == "content-length":
                    size = int(value) if self.command == "HEAD" else size
                elif name.lower() not in _OF_A_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def _fail(self, what: str) -> None:
            status, _, code = what.partition(" ")
            body = b"" if self.command == "HEAD" else _ERROR.format(code=code).encode()
            self._answer(_Answer(int(status), [("Content-Type", "application/xml")], body), "")

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close()

        def _close(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
