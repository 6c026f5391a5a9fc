"""Search windows with several workers, and give all pages as one stream.

The client asks again for a page that fails. If the service refuses the token itself, the chain
continues from the last row seen. See `healthimaging.work_queue` for what a worker searches, and
`healthimaging.ranges` for the progress of a chain.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from time import monotonic

from cohortlake.errors import RequestRefused, ServiceUnavailable, Stopped, TokenRefused
from cohortlake.healthimaging.client import Datastore, HealthImaging, Meter
from cohortlake.healthimaging.page import Page
from cohortlake.healthimaging.ranges import Chain, Range
from cohortlake.healthimaging.windows import EPOCH, Window
from cohortlake.healthimaging.work_queue import WorkQueue
from cohortlake.stop import Stop

_RESTARTS_WITHOUT_A_NEW_ROW = 10
# Pages of 40 KB that wait for the reader: enough to keep all workers busy while it writes.
_PAGES_WAITING = 64
# After a stop, the search ends when no answer has arrived for so long.
_SECONDS_WITHOUT_ANSWER = 1.0


@dataclass(frozen=True)
class Arrival:
    """One item of the stream of a search: a page, or the end of a range.

    Attributes:
        part: The range that it belongs to.
        page: A page with rows of the range; `Page.skip` names the other rows in it. The pages
            of a range come in ascending order, except those of one instant. None means that the
            range is finished: all rows before `part.end` have come.
        requests: Requests sent for it, retries included.
        throttles: Requests that the service throttled.
        position: With this page, all rows of the range before this instant have come. None for
            a page that does not show it, such as a page of a helper.
    """

    part: Range
    page: Page | None
    requests: int = 0
    throttles: int = 0
    position: datetime | None = None


@dataclass(frozen=True)
class SearchProgress:
    """How far a search has come.

    Attributes:
        covered: Share of its time range that has been searched, from 0 to 1.
        rows: Rows that have come.
        rows_left: An estimate of the rows still to come, by the density of the last pages.
        requests: Requests sent, retries included.
        throttles: Requests that the service throttled.
        seconds: How long it has been running.
    """

    covered: float
    rows: int
    rows_left: int
    requests: int
    throttles: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows per second, on average."""
        return self.rows / max(self.seconds, 1e-3)

    @property
    def requests_per_second(self) -> float:
        """Requests per second, on average."""
        return self.requests / max(self.seconds, 1e-3)


class WindowSearch:
    """A search of windows of one data store by several workers.

    Args:
        service: The client.
        store: The data store, with the instant at which the search begins.
        windows: The windows to search; they must not overlap.
        workers: Requests in flight at once.
        stop: Ends the search early.
    """

    def __init__(
        self,
        service: HealthImaging,
        store: Datastore,
        windows: Iterable[Window],
        workers: int,
        stop: Stop | None = None,
    ) -> None:
        self._service = service
        self._datastore_id = store.datastore_id
        self._workers = workers
        self._queue = WorkQueue(windows, store.now, service.has_slack, store.created_at or EPOCH)
        self._stop = stop or Stop()
        self._failures: list[Exception] = []
        self._arrivals: SimpleQueue[Arrival | None] = SimpleQueue()
        self._room = threading.Semaphore(_PAGES_WAITING)
        self._rows = self._requests = self._throttles = 0
        self._began = monotonic()

    def arrivals(self) -> Generator[Arrival]:
        """Yield pages as they come, and an arrival without a page for each finished range.

        Raises:
            ServiceError: See `errors`. Raised after all pages that came have been yielded.
            Stopped: A stop was asked for. Raised likewise, without waiting for further answers.
        """
        # Daemon threads, so that a thread that waits for an answer does not keep the process alive.
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for worker in workers:
            worker.start()
        try:
            yield from self._until_all_end()
        finally:
            self._queue.stop()
            self._room.release(self._workers)
        if self._stop.is_asked:
            raise Stopped
        if self._failures:
            raise self._failures[0]

    def _until_all_end(self) -> Iterator[Arrival]:
        running = self._workers
        while running:
            try:
                arrival = self._arrivals.get(timeout=_SECONDS_WITHOUT_ANSWER)
            except Empty:
                if self._stop.is_asked:
                    return
                continue
            if arrival is None:
                running -= 1
                continue
            self._count(arrival)
            yield arrival

    def progress(self) -> SearchProgress:
        """Return how far the search has come."""
        return SearchProgress(
            covered=self._queue.covered(),
            rows=self._rows,
            rows_left=self._queue.rows_left(),
            requests=self._requests,
            throttles=self._throttles,
            seconds=monotonic() - self._began,
        )

    def _count(self, arrival: Arrival) -> None:
        self._requests += arrival.requests
        self._throttles += arrival.throttles
        if arrival.page:
            self._room.release()
            self._rows += arrival.page.new_rows

    def _work(self) -> None:
        try:
            while (chain := self._queue.take()) is not None:
                self._follow(chain)
        except Exception as error:
            self._failures.append(error)
            self._queue.stop()
        finally:
            self._arrivals.put(None)

    def _follow(self, chain: Chain) -> None:
        try:
            for arrival in self._pages(chain):
                self._room.acquire()
                self._arrivals.put(arrival)
                self._queue.page_arrived(arrival.page.new_rows if arrival.page else 0)
                if self._queue.is_stopped:
                    return
        except RequestRefused:
            if not self._queue.refuse(chain):
                raise
        if self._queue.finish(chain):
            self._arrivals.put(Arrival(chain.part, None))

    def _pages(self, chain: Chain) -> Iterator[Arrival]:
        token, restarts, meter = None, 0, Meter()
        while not chain.is_over:
            self._stop.wait(0)
            try:
                page = self._service.search_page(self._datastore_id, chain.criteria(), token, meter)
            except TokenRefused:
                restarts += 1
                if restarts > _RESTARTS_WITHOUT_A_NEW_ROW:
                    raise ServiceUnavailable(
                        "SearchImageSets kept refusing its own tokens; run it again later"
                    ) from None
                chain.resume()
                token = None
                continue
            page = chain.follow(page)
            token = page.next_token
            if page.new_rows:
                restarts = 0
            position = chain.part.position if chain.is_plain else None
            yield Arrival(chain.part, page, meter.requests, meter.throttles, position)
            meter = Meter()
