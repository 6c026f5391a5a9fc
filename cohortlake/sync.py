"""The stages in order, for those who run without Dagster, and one by one for those who do.

Data flows one way: search -> increments -> image_sets -> published. `Sync` puts the lake,
the service and the settings together; the Dagster assets call the same methods.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from cohortlake.healthimaging import Datastore, HealthImaging, Ranges, Window
from cohortlake.lake import coverage, image_sets, partitions, status
from cohortlake.lake.extract import Extractor, Found, Search, joined
from cohortlake.lake.image_sets import Applied, Known
from cohortlake.lake.publish import Publication, publish
from cohortlake.lake.root import Root
from cohortlake.lake.sweep import Held, Swept, sweep
from cohortlake.schema import UNDATED
from cohortlake.settings import Settings

T = TypeVar("T")
R = TypeVar("R")


class Progress:
    """Told how a long run goes. This one listens to nobody; the command line's draws a bar."""

    def began(self, what: str, total: int) -> None:
        """A stage began that has so many partitions."""

    def landed(self, partition: str, rows: int, requests: int) -> None:
        """A partition landed."""


@dataclass(frozen=True)
class Outcome:
    """What a whole run did.

    Attributes:
        partitions: Partitions searched.
        rows: Rows found.
        requests: Requests sent.
        throttles: Requests thrown back.
        applied: What the memory gained.
        publication: What stands in `published/`, or None where nothing ever was found.
    """

    partitions: int
    rows: int
    requests: int
    throttles: int
    applied: Applied
    publication: Publication | None


class Sync:
    """A lake, the service it is filled from, and the settings.

    Args:
        settings: Data stores, root, pace and policy.
        service: The client; by default one over boto3's own configuration.

    """

    def __init__(self, settings: Settings, service: HealthImaging | None = None) -> None:
        self.settings = settings
        self._given_service = service

    @functools.cached_property
    def root(self) -> Root:
        """The lake's root, made when first asked for.

        Raises:
            RootNotUsable: It cannot be written.
        """
        root = Root(self.settings.root)
        root.prepare()
        return root

    @functools.cached_property
    def _service(self) -> HealthImaging:
        # Made when first asked for: applying and publishing need no service.
        return self._given_service or HealthImaging(self.settings)

    def datastore(self, datastore_id: str) -> Datastore:
        """Look a data store up; its `now` is when the searches that follow begin.

        Raises:
            ServiceError: See `errors`.
        """
        return self._service.datastore(datastore_id)

    def due(self, store: Datastore) -> dict[str, Window]:
        """Return the days to search so that nothing up to now is missing."""
        ledger = coverage.searched(self.root)
        proven = coverage.proven(ledger, store.datastore_id, self.settings.settle)
        return partitions.due_windows(store, proven, self.settings.lookback)

    def extract(
        self, store: Datastore, windows: Mapping[str, Window]
    ) -> Iterator[tuple[str, Found]]:
        """Search days, several at once; yield each as it lands.

        Args:
            store: The data store.
            windows: Day -> window.

        Raises:
            ServiceError: A day failed. Those that landed before stay.
        """
        windows = partitions.disjoint(windows)
        searches = [Search(store, day, window) for day, window in windows.items()]
        ranges = Ranges(_stretches(windows.values()))
        with self._extractor(store) as run:
            parts = self._side_by_side(
                lambda _: run.days(searches, ranges, self.settings.settle),
                range(self.settings.workers),
            )
            yield from self._whole_days(parts, windows)

    def sweep(self, store: Datastore, keys: list[str]) -> Iterator[tuple[str, Swept]]:
        """Sweep study-date partitions, several at once; yield each as it lands.

        Args:
            store: The data store.
            keys: Study months (YYYY-MM) and `undated`.

        Raises:
            ServiceError: A partition failed. Those that landed before stay.
        """
        with self._extractor(store) as run, Held(self.root, store) as held:

            def one(key: str) -> Generator[tuple[str, Swept]]:
                yield key, sweep(run, held, store, key)

            yield from self._side_by_side(one, keys)

    def apply(self) -> Applied:
        """Bring the memory and the ledger up to date with the increments there are."""
        pending = coverage.pending(self.root)
        applied = image_sets.apply(self.root, pending)
        # After the commit: a run that dies in between applies them again, to no effect.
        coverage.record(self.root, pending)
        return applied

    def publish(self) -> Publication | None:
        """Bring `published/` up to date with the memory."""
        with self.root.publishing():
            return publish(self.root, self.settings.privacy)

    def rebuild(self) -> Applied:
        """Make the memory, the ledger and `published/` anew from the increments."""
        applied, paths = image_sets.rebuild(self.root)
        coverage.record(self.root, paths, rebuild=True)
        self.publish()
        return applied

    def status(self) -> status.Status:
        """Read how the lake stands."""
        return status.status(self.root, self.settings.datastores, self.settings.settle)

    def run(self, progress: Progress | None = None) -> Outcome:
        """Bring the lake up to date: the first run backfills, later ones take what is new.

        Raises:
            CohortlakeError: See `errors`. What landed stays, and the next run goes on.
        """
        return self._run(self._run_days, progress or Progress())

    def reconcile(self, progress: Progress | None = None) -> Outcome:
        """Sweep all study-date partitions, and close what is gone.

        Raises:
            CohortlakeError: See `errors`. What landed stays.
        """
        return self._run(self._run_sweeps, progress or Progress())

    def _run(
        self, search: Callable[[Datastore, Progress], Iterator[Found]], progress: Progress
    ) -> Outcome:
        datastores = self.settings.require_datastores()
        found: list[Found] = []
        try:
            for datastore_id in datastores:
                found.extend(search(self.datastore(datastore_id), progress))
        finally:
            # What landed before a failure counts: the next run need not ask for it again.
            applied = self.apply()
            publication = self.publish()
        return Outcome(
            partitions=len(found),
            rows=sum(f.rows for f in found),
            requests=sum(f.requests for f in found),
            throttles=sum(f.throttles for f in found),
            applied=applied,
            publication=publication,
        )

    def _run_days(self, store: Datastore, progress: Progress) -> Iterator[Found]:
        windows = self.due(store)
        progress.began("days", len(windows))
        for day, found in self.extract(store, windows):
            progress.landed(day, found.rows, found.requests)
            yield found

    def _run_sweeps(self, store: Datastore, progress: Progress) -> Iterator[Found]:
        keys = [*partitions.months_until_now(store), UNDATED]
        progress.began("study months", len(keys))
        for key, swept in self.sweep(store, keys):
            progress.landed(key, swept.found.rows, swept.found.requests)
            yield swept.found

    @contextmanager
    def _extractor(self, store: Datastore) -> Iterator[Extractor]:
        with Known(self.root) as known:
            yield Extractor(self.root, self._service, known, new_run_id(store.now))

    def _whole_days(
        self, parts: Iterable[tuple[str, Found]], windows: Mapping[str, Window]
    ) -> Iterator[tuple[str, Found]]:
        """Join the parts of days, and yield each day once all of it has landed."""
        missing = {day: window.end - window.start for day, window in windows.items()}
        landed: dict[str, list[Found]] = {day: [] for day in windows}
        for day, part in parts:
            landed[day].append(part)
            missing[day] -= sum((r.end - r.start for r in part.records), timedelta())
            if not missing[day]:
                yield day, joined(self.root, landed.pop(day))

    def _side_by_side(
        self, work: Callable[[T], Generator[tuple[str, R]]], items: Iterable[T]
    ) -> Iterator[tuple[str, R]]:
        """Work on items several at once, and yield whatever lands, as it lands.

        The first failure stops the others at their next landing; it is raised after
        everything that landed has been yielded.
        """
        landed: SimpleQueue[tuple[str, R] | None] = SimpleQueue()
        stop = Event()

        def one(item: T) -> None:
            try:
                with closing(work(item)) as results:
                    while not stop.is_set() and (result := next(results, None)) is not None:
                        landed.put(result)
            except BaseException:
                stop.set()
                raise
            finally:
                landed.put(None)

        with ThreadPoolExecutor(self.settings.workers) as pool:
            futures = [pool.submit(one, item) for item in items]
            try:
                for _ in futures:
                    yield from iter(landed.get, None)
            finally:
                stop.set()
        for future in futures:
            future.result()


def _stretches(windows: Iterable[Window]) -> Iterator[Window]:
    """Join windows that follow one another: days that share pages cost one request."""
    stretch: Window | None = None
    for window in windows:
        if stretch and stretch.end == window.start:
            stretch = replace(stretch, end=window.end)
            continue
        if stretch:
            yield stretch
        stretch = window
    if stretch:
        yield stretch


def new_run_id(now: datetime) -> str:
    """Return an id that sorts by time and that no other run has."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
