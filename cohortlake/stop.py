"""A request to end soon. Every wait of the library ends when somebody asks.

The caller decides when to ask: the command line asks when a signal comes. The library itself sets
no signal handler.
"""

from __future__ import annotations

import threading

from cohortlake.errors import Stopped


class Stop:
    """A request to end soon. Any thread may ask, and nobody can take it back."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask. Do not call it in a signal handler: the interrupted thread may hold the lock."""
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: Somebody asked, before or while it sleeps.
        """
        if self._asked.wait(seconds):
            raise Stopped
