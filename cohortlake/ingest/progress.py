"""How a long run goes, told while it is at work.

Nobody knows how many rows there are, so what is told is what is known: how much of the time
range has been seen, what came, how fast, and what the density of the last pages makes
likely. Where it is shown is the caller's: a bar, a log, Dagster's events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from cohortlake.healthimaging import SearchProgress, WindowSearch
from cohortlake.ingest.older_versions import Filled


class Progress:
    """Told which search is at work. This one tells nobody."""

    def watching(self, search: WindowSearch) -> AbstractContextManager[None]:
        """Return what to hold open while a search is at work."""
        del search
        return nullcontext()

    def filled(self, so_far: Filled) -> None:
        """Take note of what asking for older versions has brought so far."""
        del so_far

    def note(self, text: str) -> None:
        """Take note of something that people should know, such as what is waited for."""
        del text


class Told(Progress):
    """Tells how a search goes, every few seconds and once at its end.

    Args:
        tell: Called with what there is to tell, from another thread.
        seconds: How often.
        tell_filled: Called with what asking for older versions has brought so far.
        note: Called with what people should know.
    """

    def __init__(
        self,
        tell: Callable[[SearchProgress], None],
        seconds: float,
        tell_filled: Callable[[Filled], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._tell = tell
        self._seconds = seconds
        self._tell_filled = tell_filled
        self._note = note

    @contextmanager
    def watching(self, search: WindowSearch) -> Iterator[None]:
        """Tell how a search goes until the block ends."""
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(self._seconds):
                self._tell(search.progress())

        teller = threading.Thread(target=repeat, name="progress", daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()
            self._tell(search.progress())

    def filled(self, so_far: Filled) -> None:
        """Tell at once: it comes some hundred image sets at a time."""
        if self._tell_filled:
            self._tell_filled(so_far)

    def note(self, text: str) -> None:
        """Tell at once."""
        if self._note:
            self._note(text)


def in_words(progress: SearchProgress, quota: float) -> str:
    """Return one line: counts and rates only.

    Args:
        progress: How far the search has come.
        quota: Requests per second that it may send.
    """
    return (
        f"{progress.covered:.1%} of the time range, {progress.rows:,} rows, "
        f"{progress.rows_per_second:,.0f} rows/s, "
        f"{progress.requests_per_second:,.1f} of {quota:g} requests/s, "
        f"{progress.throttles:,} throttled, about {progress.rows_left:,} rows to come"
    )


def unconfirmed_in_words(image_sets: int) -> str:
    """Say why image sets that no search finds stay, and what to do."""
    return (
        f"{image_sets:,} image sets were not found and stay: whether they are gone only "
        "medical-imaging:GetImageSet can tell, and it is denied. Add it to the IAM policy "
        "(docs/how-to/aws.md), or give --trust-search if the searches may find every image set"
    )


def filled_in_words(filled: Filled) -> str:
    """Return one line about older versions, with what reading them moved."""
    return (
        f"{filled.image_sets:,} image sets asked for older versions, {filled.documents:,} metadata "
        f"documents read, which moved {filled.archived:,} archived image sets to the frequent "
        f"tier; {filled.versions:,} versions gained, {filled.unavailable:,} not to be had, "
        f"{filled.postponed:,} image sets to be asked again"
    )
