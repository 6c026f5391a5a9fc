"""The HTTP server: passes requests to operations and admin routes, and sends answers or faults.

It handles connections. See `service.model` for the operation of a request, `service.operations` and
`control.admin` for the answers, and `service.faults` for the faults that it injects.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import traceback
import uuid
from collections.abc import Callable, Iterator
from email.utils import format_datetime

from aiohttp import hdrs, web

from emulator.control.admin import PREFIX, Admin
from emulator.service.dicomweb import DicomWeb
from emulator.service.faults import Cut, RequestFaults
from emulator.service.model import HealthImaging, Operation
from emulator.service.operations import Operations
from emulator.wire import Answer, ServiceError, Stream, failure, invalid
from emulator.world import World

Handle = Callable[[bytes], Answer | Stream]

_LARGEST_BODY = 256 * 1024 * 1024
# A nextToken of the model's 8,192 characters must fit into the request line, percent-encoded.
_LONGEST_LINE = 32 * 1024
# What is left of a cut answer whose length nobody knows.
_CUT_SIZE = 4096
_log = logging.getLogger(__name__)
# aiohttp logs requests that it cannot read, and these may hold tags. So its logger is disabled.
_disabled = logging.getLogger(f"{__name__}.disabled")
_disabled.disabled = True


class Server:
    """Serves one run of the emulator on one address."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._model = HealthImaging()
        self._operations = Operations(
            world.store, world.clock, world.faults, world.stats, world.options.s3_root
        )
        self._dicomweb = DicomWeb(self._operations.reading)
        self._admin = Admin(world, self._operations.import_jobs)
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Starts to listen and returns the endpoint.

        Raises:
            OSError: If the address is in use or does not belong to this machine.
        """
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.router.add_route("*", "/{anything:.*}", self._handle)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=_disabled,
            shutdown_timeout=0,
            max_line_size=_LONGEST_LINE,
        )
        await self._runner.setup()
        options = self._world.options
        await web.TCPSite(self._runner, options.host, options.port).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Closes all connections and stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        try:
            self._operations.import_jobs.settle()
            if path.startswith(PREFIX):
                body = await request.read()
                found = await self._admin.answer(request.method, path, request.query, body)
                return await self._send(request, found or _unknown(request))
            routed = self._routed(request, path)
            if routed is None:
                return await self._send(request, _unknown(request))
            return await self._serve(request, *routed)
        except ServiceError as error:
            return await self._send(request, self._failed(error))
        except ConnectionError:
            raise
        except Exception as error:
            # Log only the type and the place, because the text of the error may quote a tag.
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s in\n%s", type(error).__name__, place)
            message = "The emulator failed; its log says where the error is"
            return await self._send(request, self._failed(_internal(message)))

    def _routed(self, request: web.Request, path: str) -> tuple[str, Handle] | None:
        """Returns the name of the operation of a request, and what answers it."""
        routed = self._model.route(request.method, path)
        if routed is not None:
            return routed[0].name, lambda body: self._call(request, *routed, body)
        web_routed = self._dicomweb.route(request.method, path, request.query)
        return web_routed and (web_routed[0], lambda _: web_routed[1]())

    async def _serve(
        self, request: web.Request, operation: str, handle: Handle
    ) -> web.StreamResponse:
        """Serves an operation, or injects a fault instead."""
        stats = self._world.stats
        stats.count(operation)
        body = await request.read()
        injected = self._world.faults.draw(operation)
        if injected.delay_s:
            await asyncio.sleep(injected.delay_s)
        if injected.reset:
            stats.faults["reset"] += 1
            return _reset(request)
        try:
            self._refuse(injected, request)
            answer = handle(body)
        except ServiceError as error:
            return await self._send(request, self._failed(error))
        if injected.cut is not None and (isinstance(answer, Stream) or answer.status == 200):
            stats.faults[f"cut_{injected.cut}"] += 1
            return await self._send_cut(request, answer, injected.cut)
        return await self._send(request, answer)

    def _refuse(self, injected: RequestFaults, request: web.Request) -> None:
        faults = self._world.stats.faults
        if injected.throttled:
            faults["throttled"] += 1
            raise ServiceError("ThrottlingException", "Rate exceeded")
        if injected.failed:
            faults["failed"] += 1
            raise _internal("An internal error was injected")
        if injected.token_refused and "nextToken" in request.query:
            faults["token_refused"] += 1
            raise invalid("The nextToken is no longer valid; start the search again without it")

    def _call(
        self, request: web.Request, operation: Operation, path: dict[str, str], body: bytes
    ) -> Answer | Stream:
        handler = self._operations.handlers.get(operation.name)
        if handler is None:
            message = f"{operation.name} is in the service model, but it is not emulated"
            return failure("NotEmulated", message, 501)
        return handler(self._model.read(operation, path, request.query, body))

    def _failed(self, error: ServiceError) -> Answer:
        self._world.stats.errors[error.code] += 1
        return failure(error.code, error.message, self._model.status(error.code))

    def _headers(self, answer: Answer | Stream) -> dict[str, str]:
        return {
            hdrs.CONTENT_TYPE: answer.content_type,
            hdrs.DATE: format_datetime(self._world.clock.now(), usegmt=True),
            "x-amzn-RequestId": str(uuid.uuid4()),
            **answer.headers,
        }

    async def _send(self, request: web.Request, answer: Answer | Stream) -> web.StreamResponse:
        headers = self._headers(answer)
        if isinstance(answer, Answer):
            return web.Response(body=answer.body, status=answer.status, headers=headers)
        if answer.length is not None:
            headers[hdrs.CONTENT_LENGTH] = str(answer.length)
        return await _stream(request, headers, answer.pieces)

    async def _send_cut(
        self, request: web.Request, answer: Answer | Stream, cut: Cut
    ) -> web.StreamResponse:
        headers = self._headers(answer)
        if cut == "empty":
            return web.Response(body=b"", headers=headers)
        if isinstance(answer, Answer):
            length: int | None = len(answer.body)
            half = iter([answer.body[: len(answer.body) // 2]])
        else:
            length = answer.length
            half = _first(answer.pieces, _CUT_SIZE if length is None else length // 2)
        if cut == "short" and length is not None:
            headers[hdrs.CONTENT_LENGTH] = str(length)
        response = await _stream(request, headers, half)
        if cut == "short" and request.transport is not None:
            request.transport.close()
        return response


async def _stream(
    request: web.Request, headers: dict[str, str], pieces: Iterator[bytes]
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    return response


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yields pieces until they have `size` bytes, and cuts the last one there."""
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return


def _internal(message: str) -> ServiceError:
    return ServiceError("InternalServerException", message)


def _unknown(request: web.Request) -> Answer:
    message = f"There is no operation for {request.method} on this path"
    return failure("UnknownOperationException", message, 404)


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # With zero linger time the kernel sends RST instead of FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
