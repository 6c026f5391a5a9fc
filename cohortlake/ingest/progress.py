"""Progress of a long run: what is known while it is at work.

The number of rows is unknown in advance. So progress is the share of the time range that was
searched, the rows that came, the rate, and an estimate from the density of the last pages. The
caller decides where it is shown: a bar, a log, or Dagster's events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic

from cohortlake.healthimaging import SearchProgress, WindowSearch
from cohortlake.ingest.headers.fetch import HeadersResult
from cohortlake.ingest.older_versions import VersionsResult


class Progress:
    """Progress interface. This implementation does nothing."""

    def watching(self, search: WindowSearch) -> AbstractContextManager[None]:
        """Return a context to keep open while a search is at work."""
        del search
        return nullcontext()

    def versions_read(self, so_far: VersionsResult) -> None:
        """Report what reading older versions has brought so far."""
        del so_far

    def headers_read(self, so_far: HeadersResult) -> None:
        """Report what fetching headers has brought so far."""
        del so_far

    def note(self, text: str) -> None:
        """Report something that people should know, such as waiting for another run."""
        del text


class PeriodicProgress(Progress):
    """Reports a search every few seconds, and once at its end.

    Args:
        show: Gets the progress of a search, from another thread.
        seconds: Time between two reports.
        show_versions: Gets what reading older versions has brought so far.
        note: Gets what people should know.
        show_headers: Gets what fetching headers has brought so far.
    """

    def __init__(
        self,
        show: Callable[[SearchProgress], None],
        seconds: float,
        show_versions: Callable[[VersionsResult], None] | None = None,
        note: Callable[[str], None] | None = None,
        show_headers: Callable[[HeadersResult], None] | None = None,
    ) -> None:
        self._show = show
        self._seconds = seconds
        self._show_versions = show_versions
        self._note = note
        self._show_headers = show_headers
        self._headers_shown_at = monotonic()

    @contextmanager
    def watching(self, search: WindowSearch) -> Iterator[None]:
        """Report a search until the block ends."""
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(self._seconds):
                self._show(search.progress())

        thread = threading.Thread(target=repeat, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._show(search.progress())

    def versions_read(self, so_far: VersionsResult) -> None:
        """Report at once: results come after some hundred image sets each."""
        if self._show_versions:
            self._show_versions(so_far)

    def headers_read(self, so_far: HeadersResult) -> None:
        """Report if the last report is some time ago: results come after each study month."""
        now = monotonic()
        if self._show_headers and now - self._headers_shown_at >= self._seconds:
            self._headers_shown_at = now
            self._show_headers(so_far)

    def note(self, text: str) -> None:
        """Report at once."""
        if self._note:
            self._note(text)


def describe_search(progress: SearchProgress, quota: float) -> str:
    """Return one line with counts and rates.

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


def describe_unconfirmed(image_sets: int) -> str:
    """Return why image sets stay that no search finds, and what to do."""
    return (
        f"{image_sets:,} image sets were not found and stay in the lake: only "
        "medical-imaging:GetImageSet shows whether they are deleted, and it is denied. Add it to "
        "the IAM policy (docs/how-to/aws.md), or give --trust-search if the searches may find "
        "every image set"
    )


def describe_versions(result: VersionsResult) -> str:
    """Return one line about older versions, and about the image sets that reading moved."""
    return (
        f"{result.image_sets:,} image sets asked for older versions, {result.documents:,} metadata "
        f"documents read, which moved {result.archived:,} archived image sets to the frequent "
        f"tier; {result.versions:,} versions gained, {result.unavailable:,} not available, "
        f"{result.postponed:,} image sets to be asked again"
    )


def describe_headers(result: HeadersResult) -> str:
    """Return one line about headers, and about the image sets that reading moved."""
    failed = ", ".join(f"{n:,} {reason}" for reason, n in sorted(result.failed.items()))
    return (
        f"{result.headers:,} headers read ({result.document_bytes / 1e6:,.0f} MB), which moved "
        f"{result.archived:,} archived image sets to the frequent tier; {result.left_alone:,} "
        f"archived ones left alone; failed: {failed or 'none'}"
    )
