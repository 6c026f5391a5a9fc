"""Searching windows: several workers at once, all pages in one stream.

A page that keeps failing is asked again with its token (`client`); when the token itself
is refused, the chain goes on from the last row seen. What a worker pages is
`healthimaging.sharing`'s, how far a chain has come `healthimaging.ranges`'.
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
from cohortlake.healthimaging.sharing import Sharing
from cohortlake.healthimaging.windows import EPOCH, Window
from cohortlake.stop import Stop

_RESTARTS_WITHOUT_A_NEW_ROW = 10
# Pages of 40 KB that wait for the reader: enough to keep all workers busy while it writes.
_PAGES_WAITING = 64
# After a stop, workers that still wait for an answer are left alone once none came for so long.
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Arrival:
    """What the stream of a search brings.

    Attributes:
        part: The range that it belongs to.
        page: A page with rows of the range, and some more, which `Page.skip` names. The pages
            of a range come in ascending order, but for those of one instant. None where the
            range is done: all rows before `part.end` have come.
        requests: Requests sent for it, retries included.
        throttles: Those the service threw back.
        position: With this page, all rows of the range before this instant have come. None where
            a page does not show that, such as one of a helper.
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
        covered: Share of its time range that has been seen, from 0 to 1.
        rows: Rows that came.
        rows_left: Rows still to come, by the density of the last pages: an estimate.
        requests: Requests sent, retries included.
        throttles: Those the service threw back.
        seconds: How long it has been at work.
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
        windows: What to find; they must not overlap.
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
        self._sharing = Sharing(windows, store.now, service.has_slack, store.created_at or EPOCH)
        self._stop = stop or Stop()
        self._failures: list[Exception] = []
        self._arrivals: SimpleQueue[Arrival | None] = SimpleQueue()
        self._room = threading.Semaphore(_PAGES_WAITING)
        self._rows = self._requests = self._throttles = 0
        self._began = monotonic()

    def arrivals(self) -> Generator[Arrival]:
        """Yield pages as they come, and word of each range that is done.

        Raises:
            ServiceError: See `errors`. It is raised after all that came has been yielded.
            Stopped: Somebody asked to end. Likewise; answers that are still on their way are not
                waited for.
        """
        # Daemons, so that one that waits for an answer keeps no process from ending.
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for worker in workers:
            worker.start()
        try:
            yield from self._until_all_end()
        finally:
            self._sharing.stop()
            self._room.release(self._workers)
        if self._stop.is_asked:
            raise Stopped
        if self._failures:
            raise self._failures[0]

    def _until_all_end(self) -> Iterator[Arrival]:
        at_work = self._workers
        while at_work:
            try:
                arrival = self._arrivals.get(timeout=_PATIENCE_SECONDS)
            except Empty:
                if self._stop.is_asked:
                    return
                continue
            if arrival is None:
                at_work -= 1
                continue
            self._count(arrival)
            yield arrival

    def progress(self) -> SearchProgress:
        """Return how far the search has come."""
        return SearchProgress(
            covered=self._sharing.covered(),
            rows=self._rows,
            rows_left=self._sharing.rows_left(),
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
            while (chain := self._sharing.take()) is not None:
                self._follow(chain)
        except Exception as error:
            self._failures.append(error)
            self._sharing.stop()
        finally:
            self._arrivals.put(None)

    def _follow(self, chain: Chain) -> None:
        try:
            for arrival in self._pages(chain):
                self._room.acquire()
                self._arrivals.put(arrival)
                self._sharing.paged(arrival.page.new_rows if arrival.page else 0)
                if self._sharing.is_stopped:
                    return
        except RequestRefused:
            if not self._sharing.refused(chain):
                raise
        if self._sharing.done(chain):
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
                        "SearchImageSets kept refusing its own tokens"
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
