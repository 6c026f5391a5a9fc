"""Ends a command within ten seconds of a signal; what it has written is kept.

A command that uses a `Stop` ends by itself. Any other command is interrupted. A signal that was
ignored when the command started, as with `nohup`, stays ignored. Only the command line uses this
module: the library sets no signal handler.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cohortlake.stop import Stop

SECONDS_TO_END = 8.0
_SECONDS_TO_SPEAK = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Interrupted(BaseException):
    """A signal came. Not an `Exception`, so that no handler of failures catches it."""


class Watch:
    """Receives the signals while a command runs.

    Attributes:
        received: The first of them.

    Args:
        tell: Gets a text to print before the process ends at once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.received: signal.Signals | None = None
        self._tell = tell
        self._stop: Stop | None = None

    @property
    def exit_code(self) -> int:
        """Return the code that shells use: 128 and the signal's number."""
        return 128 + (self.received or 0)

    @property
    def name(self) -> str:
        """Return the signal's name."""
        return self.received.name if self.received else ""

    @contextmanager
    def stopping(self) -> Iterator[Stop]:
        """Yield a request that a signal sets. Inside the block no signal interrupts."""
        self._stop = Stop()
        try:
            yield self._stop
        finally:
            self._stop = None

    def interrupt(self, number: int, _: object) -> None:
        """Python's signal handler, which runs in the main thread."""
        is_first = self.received in (None, number)
        self.received = self.received or signal.Signals(number)
        if is_first and not self._stop:
            raise Interrupted

    def listen(self, numbers: socket.socket) -> None:
        """Receive signals, even if the main thread is busy in the C code of a library."""
        timer: threading.Timer | None = None
        while number := numbers.recv(1):
            if number[0] not in _SIGNALS:
                continue
            if timer:
                self._end_at_once("a second signal came")
                continue
            self.received = self.received or signal.Signals(number[0])
            timer = threading.Timer(SECONDS_TO_END, self._end_at_once, ("it took too long",))
            timer.daemon = True
            timer.start()
            if self._stop:
                self._stop.ask()
        if timer:
            timer.cancel()

    def _end_at_once(self, why: str) -> None:
        text = (
            f"{self.name}: {why}, so it ends at once. What is complete in the lake stays, and the "
            "next run does the rest"
        )
        # A terminal that takes nothing must not keep the process.
        last_words = threading.Thread(target=self._tell, args=(text,), daemon=True)
        last_words.start()
        last_words.join(_SECONDS_TO_SPEAK)
        os._exit(self.exit_code)


_watch: Watch | None = None


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Watch for signals until the block ends. Python allows it in the main thread only.

    Args:
        watch: Receives them.

    Raises:
        Interrupted: A signal came.
    """
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    listener = threading.Thread(target=watch.listen, args=(ours,), daemon=True)
    listener.start()
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    heeded = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, watch.interrupt) for number in heeded}
    _watch, outer = watch, _watch
    try:
        yield
    finally:
        _watch = outer
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        theirs.close()
        listener.join()
        ours.close()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Yield a request that a signal sets. See `Watch.stopping`."""
    if _watch is None:
        yield Stop()
        return
    with _watch.stopping() as stop:
        yield stop
