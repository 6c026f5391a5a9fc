"""A request to end soon. Whatever waits looks at it, so that nothing waits on after it.

Who asks is the caller's choice: the command line asks when a signal comes. The library itself
sets no signal handler.
"""

from __future__ import annotations

import threading

from cohortlake.errors import Stopped


class Stop:
    """A request to end soon, from any thread, once and for good."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask. Do not call it in a signal handler: the thread it interrupts may hold the lock."""
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: As soon as somebody asks, or at once where somebody has.
        """
        if self._asked.wait(seconds):
            raise Stopped
