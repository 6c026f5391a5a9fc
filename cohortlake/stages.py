"""The stages of a run, one by one: search or sweep, apply, publish.

Data flows one way: search -> increments -> image_sets -> published. `Stages` connects the lake, the
service and the settings. Not here: which windows are due and how they are searched (see `ingest`),
and how the version history and the tables are made (see `history` and `publish`). See `sync` for
whole runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from cohortlake.admin.policy_change import PolicyChange, policy_change
from cohortlake.errors import PolicyNotAskedFor
from cohortlake.failures import Failures
from cohortlake.healthimaging import Datastore, HealthImaging, Window
from cohortlake.history import coverage, image_sets, refiled
from cohortlake.history.image_sets import ApplyResult
from cohortlake.ingest import older_versions, partitions
from cohortlake.ingest.confirm_deletions import DeletionResult, confirm_deletions
from cohortlake.ingest.due import due_windows, windows_of_days
from cohortlake.ingest.extract import search_days
from cohortlake.ingest.headers import choice as header_choice
from cohortlake.ingest.headers import fetch as header_fetch
from cohortlake.ingest.headers.choice import HeaderChoice, HeadersEstimate
from cohortlake.ingest.headers.fetch import HeadersResult
from cohortlake.ingest.older_versions import VersionsResult
from cohortlake.ingest.partition_search import SearchResult, SearchRun, new_run_id
from cohortlake.ingest.progress import Progress
from cohortlake.ingest.sweep import SweepResult, sweep_datastores
from cohortlake.privacy import policy_of
from cohortlake.privacy.erasures import ErasedPatients
from cohortlake.publish.iceberg import registration
from cohortlake.publish.publication.marker import Publication, read_marker
from cohortlake.publish.publisher import publish
from cohortlake.schema import UNDATED
from cohortlake.settings import Settings
from cohortlake.stop import Stop
from cohortlake.storage.root import Root


class Stages:
    """The stages of a run over one lake, one by one.

    Args:
        settings: Data stores, root, request rate and policy.
        service: The client; by default one with boto3's own configuration.
        stop: Ends searches early. They raise `Stopped`, and what had come is kept. A given
            service must have the same one.
        note: Gets, once, how the policy differs from that of the published tables, before
            anything is published.

    Attributes:
        settings: The settings.
        policy: The privacy policy of `published/`.

    Raises:
        PolicyError: The policy file cannot be used.
        SettingError: There is no such policy.
    """

    def __init__(
        self,
        settings: Settings,
        service: HealthImaging | None = None,
        stop: Stop | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self._stop = stop or Stop()
        self._note = note
        self._was_published = False
        self._noted: PolicyChange | None = None
        self.policy = policy_of(settings)
        self._given_service = service

    @functools.cached_property
    def root(self) -> Root:
        """The root of the lake, created when first used.

        Raises:
            RootNotUsable: It cannot be written.
        """
        root = Root(self.settings.root, self.settings.published)
        root.prepare()
        return root

    @functools.cached_property
    def _service(self) -> HealthImaging:
        # Created when first used: applying and publishing need no service.
        return self._given_service or HealthImaging(self.settings, stop=self._stop)

    def datastore(self, datastore_id: str) -> Datastore:
        """Look up a data store. Its `now` is the instant at which searches of it begin.

        Raises:
            ServiceError: See `errors`.
        """
        return self._service.datastore(datastore_id)

    @contextmanager
    def searching(self, datastore_id: str, progress: Progress | None = None) -> Iterator[Datastore]:
        """Let only this run search what is due of a data store; wait for another run to end.

        Ask for what is due inside the block. Then what the other run found is not searched again.
        Runs on other machines, and all runs on S3, are not seen.

        Args:
            datastore_id: The data store.
            progress: Gets a note when another run is waited for.

        Yields:
            The data store. Its `now` is after the waiting.

        Raises:
            SearchedByOthers: Another run waits already.
            Stopped: Somebody asked to end.
            ServiceError: See `errors`.
        """
        note = (progress or Progress()).note
        is_blind = not self.root.knows_who_is_there
        if is_blind and not self._was_published and self._read_marker() is None:
            note(
                f"{self.root.uri} is on S3, where runs cannot see each other: start no second run "
                "before this first load has ended, or both read everything"
            )
        waiting = f"another run searches data store {datastore_id}; waiting for it to end"
        with self.root.searching(datastore_id, self._stop, lambda: note(waiting)):
            yield self.datastore(datastore_id)

    def due(self, store: Datastore) -> dict[str, list[Window]]:
        """Return the windows to search, by day, so that nothing is missing up to now."""
        searched = coverage.searched(self.root, coverage.INTERVAL_COLUMNS)
        proven = coverage.covered_intervals(searched, store.datastore_id, self.settings.settle)
        return due_windows(store, proven, self.settings.lookback)

    def extract(
        self,
        store: Datastore,
        windows: Mapping[str, Sequence[Window]],
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, SearchResult]]:
        """Search windows of one data store; yield each day as soon as it is written.

        Args:
            store: The data store.
            windows: Day -> windows. A day without windows has an empty result.
            progress: Gets how far the search has come.

        Raises:
            ServiceError: The search did not reach its end. Days that were written stay, and so do
                the rows that had come of other days.
        """
        return search_days(self._run_of(store), windows, progress)

    def search_days(
        self, wanted: Mapping[str, Sequence[str] | None], progress: Progress | None = None
    ) -> Iterator[tuple[str, str, SearchResult]]:
        """Search days of several data stores; yield each day as soon as it is written.

        Args:
            wanted: Data store -> days (YYYY-MM-DD), or None for everything that is due. Of a named
                day, what is due is searched, or the whole day where nothing is due.
            progress: Gets how far the searches have come.

        Yields:
            Data store, day, and what was found.

        Raises:
            CohortlakeError: See `errors`. What was written stays. The error of a data store is
                raised at the end, after the others were searched.
        """
        failures = Failures()
        yield from self._search_days(wanted, progress, failures)
        failures.raise_all()

    def sweep_months(
        self, wanted: Mapping[str, Sequence[str] | None], progress: Progress | None = None
    ) -> Iterator[tuple[str, str, SweepResult]]:
        """Sweep study months; yield each as soon as what it misses is confirmed.

        Args:
            wanted: Data store -> months (YYYY-MM), or None for all of them.
            progress: Gets how far the searches have come.

        Yields:
            Data store, month, and what the sweep brought.

        Raises:
            ServiceError: The search of a data store did not reach its end. What was written stays.
            DeletionsRefused: In some months too much was deleted. The others were closed.
            SeveralFailed: Several of these.
        """
        return self._sweep(
            wanted,
            lambda store: wanted[store.datastore_id] or partitions.months_until_now(store),
            progress,
        )

    def sweep_undated(
        self, datastores: Iterable[str], progress: Progress | None = None
    ) -> Iterator[tuple[str, str, SweepResult]]:
        """Sweep what lies in no study month, which reads whole data stores. See `sweep_months`."""
        return self._sweep(datastores, lambda _: [UNDATED], progress)

    def _sweep(
        self,
        datastores: Iterable[str],
        keys_of: Callable[[Datastore], Iterable[str]],
        progress: Progress | None,
        *,
        accept_deletions: bool = False,
    ) -> Iterator[tuple[str, str, SweepResult]]:
        largest_share = 1.0 if accept_deletions else self.settings.max_deleted_share
        return sweep_datastores(
            datastores,
            lambda datastore_id: self._run_of(self.datastore(datastore_id)),
            keys_of,
            largest_share,
            progress,
        )

    def confirm_deletions(self, store: Datastore, image_set_ids: Iterable[str]) -> DeletionResult:
        """Close those of some image sets that are deleted. Events have announced their deletion.

        Args:
            store: The data store.
            image_set_ids: The image sets.

        Raises:
            ServiceError: See `errors`. Nothing was written.
        """
        return confirm_deletions(self._run_of(store), image_set_ids)

    def fill_versions(self, progress: Progress | None = None) -> VersionsResult:
        """Read the versions that no search saw, of all data stores.

        Each version costs a request for its metadata document, which moves an archived image set
        back to the frequent tier. Pending increments are applied first, because the versions that
        they hold need not be read.

        Args:
            progress: Gets what has come so far.

        Raises:
            CohortlakeError: See `errors`. What was written stays. The error of a data store is
                raised at the end, after the others were read.
        """
        failures = Failures()
        result = self._fill_versions(progress, failures)
        failures.raise_all()
        return result

    def _fill_versions(self, progress: Progress | None, failures: Failures) -> VersionsResult:
        result = VersionsResult()
        self.apply()
        for datastore_id in self.settings.require_datastores():
            if datastore_id in failures.datastores:
                continue
            with failures.of(datastore_id):
                for part in older_versions.fill(self._run_of(self.datastore(datastore_id))):
                    result += part
                    (progress or Progress()).versions_read(result)
        return result

    def estimate_headers(self, choice: HeaderChoice) -> HeadersEstimate:
        """Return what fetching headers would cost. Sends no request.

        Args:
            choice: Which headers are wanted.
        """
        datastores = self.settings.require_datastores()
        return header_choice.estimate(self.root, datastores, choice, self.settings.metadata_tps)

    def fetch_headers(
        self, choice: HeaderChoice, progress: Progress | None = None
    ) -> HeadersResult:
        """Fetch the whole headers of image sets that the lake holds. See `ingest.headers`.

        Args:
            choice: Which headers are wanted. Those that the lake has are not fetched again.
            progress: Gets what has come so far.

        Raises:
            CohortlakeError: See `errors`. What was written stays. The error of a data store is
                raised at the end, after the headers of the others were fetched.
        """
        wanted = dict.fromkeys(self.settings.require_datastores(), choice)
        return self._fetch_headers(wanted, progress)

    def fetch_headers_of_months(
        self, wanted: Mapping[str, Sequence[str] | None], progress: Progress | None = None
    ) -> HeadersResult:
        """Fetch the headers of the modalities in COHORTLAKE_HEADERS. See `fetch_headers`.

        Args:
            wanted: Data store -> months (YYYY-MM), or None for all of them.
            progress: Gets what has come so far.

        Raises:
            SettingError: COHORTLAKE_HEADERS is not set.
        """
        choice = HeaderChoice(self.settings.require_headers())
        choices = {
            datastore_id: choice if months is None else replace(choice, months=frozenset(months))
            for datastore_id, months in wanted.items()
        }
        return self._fetch_headers(choices, progress)

    def _fetch_headers(
        self, wanted: Mapping[str, HeaderChoice], progress: Progress | None
    ) -> HeadersResult:
        failures, result, told = Failures(), HeadersResult(), progress or Progress()

        def tell() -> None:
            told.note("another run fetches headers of the same data store; waiting for it to end")

        for datastore_id, choice in wanted.items():
            alone = self.root.searching(datastore_id, self._stop, tell, "fetching-headers")
            with failures.of(datastore_id), alone:
                run = self._run_of(self.datastore(datastore_id))
                for part in header_fetch.fetch(run, choice):
                    result += part
                    told.headers_read(result)
        failures.raise_all()
        return result

    def apply(self) -> ApplyResult:
        """Apply the pending increments to the version history, and record them in the coverage."""
        pending = coverage.pending(self.root)
        pending += refiled.drop_late(self.root, pending)
        applied = image_sets.apply(self.root, pending)
        # After the commit: if the run dies in between, they are applied again, without effect.
        coverage.record(self.root, pending)
        return applied

    def publish(self, *, verify: bool = False) -> Publication | None:
        """Update `published/` from the version history, and rewrite published files that changed.

        Args:
            verify: Whether to read all files and compare their content. By default their sizes
                are compared.

        Raises:
            PolicyNotAskedFor: It would change the policy, and no setting asks for that.
            NotRegistered: It is published, but not registered in the Iceberg catalogue.
        """
        with self.root.publishing():
            published = publish(
                self.root,
                self.policy,
                self.settings.patient_key,
                settle=self.settings.settle,
                verify=verify,
                may_replace=self._may_replace,
            )
            registration.register(self.root, self.settings.iceberg, verify=verify)
            return published

    def _search_days(
        self,
        wanted: Mapping[str, Sequence[str] | None],
        progress: Progress | None,
        failures: Failures,
    ) -> Iterator[tuple[str, str, SearchResult]]:
        for datastore_id, days in wanted.items():
            with failures.of(datastore_id), self._turn(datastore_id, days, progress) as store:
                due = self.due(store)
                windows = due if days is None else windows_of_days(store, days, due)
                for day, found in self.extract(store, windows, progress):
                    yield datastore_id, day, found

    def _turn(
        self, datastore_id: str, days: Sequence[str] | None, progress: Progress | None
    ) -> AbstractContextManager[Datastore]:
        """Search what is due alone. Named days may be searched beside other runs."""
        if days is None:
            return self.searching(datastore_id, progress)
        return nullcontext(self.datastore(datastore_id))

    def _require_policy(self) -> None:
        """Note a change of the policy that is asked for, and refuse any other."""
        self._may_replace(self._read_marker())

    def _may_replace(self, before: Publication | None) -> None:
        change = policy_change(self.settings, self.policy, before)
        if change and not change.is_asked_for:
            raise PolicyNotAskedFor(change)
        if change:
            registration.require_setting(self.root, self.settings.iceberg)
        self._note_once(change)

    def _policy_change(self) -> PolicyChange | None:
        return policy_change(self.settings, self.policy, self._read_marker())

    def _read_marker(self) -> Publication | None:
        marker = read_marker(self.root)
        self._was_published = marker is not None
        return marker

    def _note_once(self, change: PolicyChange | None) -> None:
        if change and self._note and change != self._noted:
            self._noted = change
            self._note(str(change))

    def _run_of(self, store: Datastore) -> SearchRun:
        return SearchRun(
            root=self.root,
            service=self._service,
            store=store,
            erased=ErasedPatients(self.root),
            run_id=new_run_id(store.now),
            settle=self.settings.settle,
            workers=self.settings.workers,
            stop=self._stop,
            trusts_search=self.settings.trust_search,
        )
