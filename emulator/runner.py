"""Runs an emulator: in the foreground until a signal comes, or in a thread for a test.

It handles threads, event loops and signals. See `world` for the data and `server` for the requests.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from emulator.control.client import AdminClient
from emulator.options import Options
from emulator.server import Server
from emulator.world import World, build


@dataclass(frozen=True)
class Emulator:
    """A running emulator.

    Attributes:
        endpoint: The URL on which it listens, such as `http://127.0.0.1:43123`.
        datastores: The ids of its data stores.
        admin: A client of its admin API.
    """

    endpoint: str
    datastores: tuple[str, ...]
    admin: AdminClient


@contextmanager
def running(**options: Any) -> Iterator[Emulator]:
    """Serves in a thread of this process until the block ends.

    Args:
        **options: Fields of `Options`, such as `synthetic=2000, seed=1, latency_ms=50`.

    Raises:
        ValueError: If an option or a file to load cannot be used.
        TypeError: If an option is unknown.

    Example:
        >>> with running(synthetic=10, seed=1) as emulator:
        ...     sum(1 for _ in emulator.admin.truth())
        10
    """
    world = build(Options(**options))
    started: Future[tuple[Emulator, Callable[[], None]]] = Future()
    thread = threading.Thread(target=_thread, args=(world, started), daemon=True)
    thread.start()
    try:
        emulator, stop = started.result()
        try:
            yield emulator
        finally:
            stop()
    finally:
        thread.join()
        world.close()


def serve(options: Options, announce: Callable[[Emulator, World], None]) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        options: What to serve.
        announce: Called when the server listens.

    Raises:
        ValueError: If an option or a file to load cannot be used.
        OSError: If the server cannot listen on the address.
    """
    world = build(options)

    def ready(emulator: Emulator, stop: Callable[[], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        announce(emulator, world)

    try:
        asyncio.run(_serve(world, ready))
    finally:
        world.close()


async def _serve(world: World, ready: Callable[[Emulator, Callable[[], None]], None]) -> None:
    stopped = asyncio.Event()
    server = Server(world)
    endpoint = await server.start()
    try:
        datastores = tuple(datastore.id for datastore in world.store.datastores())
        ready(Emulator(endpoint, datastores, AdminClient(endpoint)), stopped.set)
        await stopped.wait()
    finally:
        await server.stop()


def _thread(world: World, started: Future[tuple[Emulator, Callable[[], None]]]) -> None:
    def ready(emulator: Emulator, stop: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def stop_from_outside() -> None:
            loop.call_soon_threadsafe(stop)

        started.set_result((emulator, stop_from_outside))

    try:
        asyncio.run(_serve(world, ready))
    except OSError as error:
        started.set_exception(error)
