"""The stages in order, for those who run without Dagster, and one by one for those who do.

Data flows one way: search -> increments -> image_sets -> published. `Sync` puts the lake,
the service and the settings together; the Dagster assets call the same methods.
"""

from __future__ import annotations

import functools
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cohortlake.admin import erase_patient, rotate_patient_key, status
from cohortlake.cohort.freeze import rotate_cohort_keys
from cohortlake.cohort.freeze.erase_members import erase_members
from cohortlake.cohort.freeze.signature import read_key as read_cohort_key
from cohortlake.errors import DeletionsRefused, PolicyNotAskedFor, SettingError, Stopped
from cohortlake.failures import Failures
from cohortlake.healthimaging import Datastore, HealthImaging, Window, WindowSearch
from cohortlake.history import coverage, image_sets, maintenance, refiled
from cohortlake.history.image_sets import ApplyResult, KnownStates
from cohortlake.history.maintenance import Maintained
from cohortlake.increments import files
from cohortlake.increments.record import Record
from cohortlake.ingest import older_versions, partitions
from cohortlake.ingest import sweep as sweeps
from cohortlake.ingest.confirm_deletions import Confirmed, confirm
from cohortlake.ingest.extract import Extractor, Found, Search, joined
from cohortlake.ingest.older_versions import Filled
from cohortlake.ingest.progress import Progress
from cohortlake.ingest.sweep import Held, Swept
from cohortlake.privacy import erasures, key_store, policy_of
from cohortlake.privacy.erasures import Erased, Erasure, Patient
from cohortlake.publish import snapshots
from cohortlake.publish.marker import Publication, read_marker
from cohortlake.publish.policy_change import PolicyChange, policy_change
from cohortlake.publish.published_key import key_to_publish_with
from cohortlake.publish.publisher import publish, request_full_publish
from cohortlake.schema import UNDATED
from cohortlake.settings import Settings
from cohortlake.stop import Stop
from cohortlake.storage import delta
from cohortlake.storage.root import Root

_SEARCH_STOPPED = (
    "{rows:,} new rows had come; they are kept, applied and published. Run it again, and it goes "
    "on from there"
)
_SWEEP_STOPPED = (
    "{partitions:,} partitions had been swept to the end; what that showed is kept, applied and "
    "published. Part of a sweep proves nothing, so the others are discarded. Run it again, and it "
    "sweeps all of them"
)


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
        filled: What asking for older versions brought, or None where it was not asked for.
        unconfirmed: Image sets that sweeps did not find and that stay, because GetImageSet is
            denied, which would show whether they are gone.
    """

    partitions: int
    rows: int
    requests: int
    throttles: int
    applied: ApplyResult
    publication: Publication | None
    filled: Filled | None = None
    unconfirmed: int = 0


class Sync:
    """A lake, the service it is filled from, and the settings.

    Args:
        settings: Data stores, root, pace and policy.
        service: The client; by default one over boto3's own configuration.
        stop: Ends searches early: they raise `Stopped`, and what had come is kept. A service that
            is given has one of its own, which is to be the same.

    Attributes:
        settings: The same.
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
    ) -> None:
        self.settings = settings
        self._stop = stop or Stop()
        self.policy = policy_of(settings)
        self._given_service = service

    @functools.cached_property
    def root(self) -> Root:
        """The lake's root, made when first asked for.

        Raises:
            RootNotUsable: It cannot be written.
        """
        root = Root(self.settings.root, self.settings.published)
        root.prepare()
        return root

    @functools.cached_property
    def _service(self) -> HealthImaging:
        # Made when first asked for: applying and publishing need no service.
        return self._given_service or HealthImaging(self.settings, stop=self._stop)

    def datastore(self, datastore_id: str) -> Datastore:
        """Look a data store up; its `now` is when the searches that follow begin.

        Raises:
            ServiceError: See `errors`.
        """
        return self._service.datastore(datastore_id)

    @contextmanager
    def searching(self, datastore_id: str, progress: Progress | None = None) -> Iterator[Datastore]:
        """Let this run alone search what is due of a data store; wait for another run to end.

        What is due is to be asked for inside the block: then what the other run found is not
        searched again. Runs on other machines, and all runs on S3, are not seen.

        Args:
            datastore_id: The data store.
            progress: Told that another run is waited for.

        Yields:
            The data store; its `now` is after the waiting.

        Raises:
            SearchedByOthers: Another run waits already.
            Stopped: Somebody asked to end.
            ServiceError: See `errors`.
        """
        tell = (progress or Progress()).note
        if not self.root.knows_who_is_there and read_marker(self.root) is None:
            tell(
                f"{self.root.uri} is on S3, where runs cannot see one another: start no second "
                "one before this first load has ended, or both read everything"
            )
        waiting = f"another run searches data store {datastore_id}; waiting for it to end"
        with self.root.searching(datastore_id, self._stop, lambda: tell(waiting)):
            yield self.datastore(datastore_id)

    def due(self, store: Datastore) -> dict[str, list[Window]]:
        """Return what to search, by day, so that nothing up to now is missing."""
        ledger = coverage.searched(self.root)
        proven = coverage.covered_intervals(ledger, store.datastore_id, self.settings.settle)
        return partitions.due_windows(store, proven, self.settings.lookback)

    def extract(
        self,
        store: Datastore,
        windows: Mapping[str, Sequence[Window]],
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, Found]]:
        """Search days; yield each as it lands.

        Args:
            store: The data store.
            windows: Day -> windows.
            progress: Told how it goes.

        Raises:
            ServiceError: The search did not reach its end. The days that landed before stay,
                and so does what had come of others.
        """
        wanted = [Search(store, day, w) for day, w in partitions.disjoint(windows)]
        run = self._extractor(store)
        for search, found in self._landed(store, wanted, run, progress):
            yield search.partition, found

    def sweep(
        self,
        datastores: Iterable[str],
        keys_of: Callable[[Datastore], Iterable[str]],
        progress: Progress | None = None,
        *,
        accept_deletions: bool = False,
    ) -> Iterator[tuple[str, str, Swept]]:
        """Sweep study-date partitions; yield each, after its data store, as it lands.

        Args:
            datastores: The data stores. One that fails holds up no other.
            keys_of: Gives the study months (YYYY-MM) of a data store, `undated` among them.
            progress: Told how it goes.
            accept_deletions: Close what is gone however much it is.

        Raises:
            ServiceError: The search of a data store did not reach its end. What landed stays.
            DeletionsRefused: In some of them too much was gone; the others landed.
            SeveralFailed: Several of these.
        """
        most = 1.0 if accept_deletions else self.settings.max_deleted_share
        refused: dict[str, dict[str, int]] = {}
        failures = Failures()
        for datastore_id in datastores:
            with failures.of(datastore_id):
                store = self.datastore(datastore_id)
                for key, swept in self._swept(store, keys_of(store), most, progress):
                    if swept.refused:
                        refused.setdefault(datastore_id, {})[key] = swept.refused
                    yield datastore_id, key, swept
        if refused:
            failures.add(DeletionsRefused(refused))
        failures.raise_them()

    def confirm_gone(self, store: Datastore, image_set_ids: Iterable[str]) -> Confirmed:
        """Write down which of some image sets, said to be deleted, are gone.

        Args:
            store: The data store.
            image_set_ids: The image sets.

        Raises:
            ServiceError: See `errors`. Nothing was written.
        """
        return confirm(self._extractor(store), store, image_set_ids)

    def fill_versions(self, store: Datastore) -> Iterator[Filled]:
        """Read versions that no search saw; yield what came as it lands.

        Each costs a request for its metadata document, which moves an archived image set back
        to the frequent tier. What the increments hold already is applied first: it need not be
        asked for.

        Args:
            store: The data store.

        Raises:
            ServiceError: See `errors`. What landed before stays.
        """
        self.apply()
        yield from older_versions.fill(self._extractor(store), store)

    def apply(self) -> ApplyResult:
        """Bring the memory and the ledger up to date with the increments there are."""
        pending = coverage.pending(self.root)
        pending += refiled.drop_late(self.root, pending)
        applied = image_sets.apply(self.root, pending)
        # After the commit: a run that dies in between applies them again, to no effect.
        coverage.record(self.root, pending)
        return applied

    def policy_change(self) -> PolicyChange | None:
        """Return how the policy differs from that of what is published, or None."""
        return policy_change(self.settings, self.policy, read_marker(self.root))

    def publish(self, *, verify: bool = False) -> Publication | None:
        """Bring `published/` up to date with the memory, and write again what was altered there.

        Args:
            verify: Whether to compare the content of all files too, which reads them; else their
                sizes are compared.

        Raises:
            PolicyNotAskedFor: It would change the policy, and no setting asks for that.
        """
        with self.root.publishing():
            self._require_policy()
            return publish(self.root, self.policy, self.settings.patient_key, verify=verify)

    def rebuild(self) -> ApplyResult:
        """Make the memory, the ledger and `published/` anew from the increments.

        Brings over what an older release wrote, frozen cohorts too.

        Raises:
            PolicyNotAskedFor: See `publish`; then nothing was done.
            SettingError: A frozen cohort gets new keys, and there is no key to sign it with.
        """
        self._require_policy()
        applied = self._rebuild_tables()
        # If its log was damaged, the memory's versions begin at 0 again, and tell nothing.
        request_full_publish(self.root)
        self.publish()
        return applied

    def set_aside(self, path: str) -> str:
        """Move a damaged increment aside, and make its window due again.

        The memory and the ledger are made anew from the other increments, because a search keeps
        only what the memory does not know. Until the next search they lack what only this
        increment held. Earlier versions that the service does not find any more are lost.

        Args:
            path: The increment, below the root. One that was set aside already may be given again.

        Returns:
            The path that it has now.

        Raises:
            SettingError: It is no increment of this lake, or is not damaged.
            DamagedFile: Another increment is damaged too: set that aside next.
            LakeInUse: Another run is at work.
        """
        moved = f"{path}{files.DAMAGED_SUFFIX}"
        is_there = path in files.paths(self.root)
        if not is_there and not self.root.exists(moved):
            raise SettingError(
                f"{path} is no increment below {self.root.uri}; give the path as the error names it"
            )
        if is_there and not files.is_damaged(self.root, path):
            raise SettingError(f"{path} can be read, so it is not set aside")
        with self.root.alone():
            if is_there:
                files.set_aside(self.root, path)
            self._rebuild_tables()
        return moved

    def maintain(self) -> tuple[Maintained, ...]:
        """Compact the memory and the ledger, and delete what is older than the retention.

        Versions that a tag names stay. `published/` moves on too: it never stands on a version
        that can no longer be read.

        Raises:
            CommitConflict: Other writers kept committing first.
            PolicyNotAskedFor: See `publish`; then nothing was done.
        """
        self._require_policy()
        held = snapshots.tagged_versions(self.root)
        maintained = maintenance.maintain(self.root, self.settings.retention, held)
        self.root.delete_abandoned()
        self.publish()
        return maintained

    def erase(self, patient_id: str, datastore_id: str) -> Erasure:
        """Erase a patient from all of the lake, frozen cohorts too, and keep them out.

        Ended midway, by whatever, it is finished by doing it again.

        Args:
            patient_id: The PatientID, in any spelling.
            datastore_id: The data store that it is unique in.

        Raises:
            NoSuchPatient: The lake holds none.
            LakeInUse: Another run is at work. None brings them back from now on.
            MissingKey: The lake was published before, and its key is gone.
            PolicyNotAskedFor: See `publish`; then nothing was erased.
        """
        self._require_policy()
        patient = Patient(datastore_id, patient_id)
        begun = erase_patient.begin(self.root, patient, self._patient_key())
        if begun.erased_at:
            return begun
        with self.root.alone():
            removed = erase_patient.remove(self.root, patient, begun)
            self.publish()
            day = datetime.fromisoformat(removed.began_at).date()
            erase_members(self.root, removed.patient_keys, day)
            self.root.delete_abandoned(whatever_its_age=True)
            return erasures.finish(self.root, removed)

    def rotate_key(self, source: str) -> int:
        """Take up another patient key: all is published anew, and frozen cohorts get new keys.

        The link between old and new keys stays in `keys/links/` of the restricted zone. Ended
        midway, by whatever, it is finished by doing it again.

        Args:
            source: Where the new key is, or is to be, see COHORTLAKE_PATIENT_KEY.

        Returns:
            How many frozen cohorts got new keys.

        Raises:
            LakeInUse: Another run is at work.
            MissingKey: One of the keys cannot be read.
            WrongKey: COHORTLAKE_PATIENT_KEY is not the key that the lake was published with.
            SettingError: A source cannot be understood, or there is no key to sign cohorts with.
            PolicyNotAskedFor: See `publish`; then nothing was done.
        """
        self._require_policy()
        cohort_key = read_cohort_key(self.settings.cohort_key_file)
        with self.root.alone():
            rotate_cohort_keys.require_key(self.root, cohort_key)
            new = key_store.next_key(self.root, source)
            changed = 0
            if not key_store.is_taken_up(self.root, new):
                link = rotate_patient_key.write_link(self.root, self._patient_key(), new)
                changed = rotate_cohort_keys.rekey(self.root, link, cohort_key)
                request_full_publish(self.root)
            key_store.take_up(self.root, source, new)
            publish(self.root, self.policy, source, with_new_key=True)
            key_store.forget_next_key(self.root)
        return changed

    def status(self) -> status.Status:
        """Read how the lake stands."""
        return status.status(self.root, self.settings.datastores, self.settings.settle)

    def run(self, progress: Progress | None = None, *, fill_versions: bool = False) -> Outcome:
        """Bring the lake up to date: the first run backfills, later ones take what is new.

        Args:
            progress: Told how it goes.
            fill_versions: Then read the versions that no search saw, see `fill_versions`. What
                was found is published before: this may take hours.

        Raises:
            CohortlakeError: See `errors`. What landed stays, and the next run goes on. A data
                store that fails holds up no other; it is raised in the end.
        """
        failures = Failures()
        outcome = self._run(self._searched(progress, failures), _SEARCH_STOPPED)
        if fill_versions:
            outcome = self._filled(outcome, progress or Progress(), failures)
        failures.raise_them()
        return outcome

    def reconcile(
        self, progress: Progress | None = None, *, accept_deletions: bool = False
    ) -> Outcome:
        """Sweep all study-date partitions, and close what is gone.

        Args:
            progress: Told how it goes.
            accept_deletions: Close what is gone however much it is.

        Raises:
            CohortlakeError: See `errors`. What landed stays.
        """
        datastores = self.settings.require_datastores()
        sweeps_of_all = self.sweep(
            datastores, _all_partitions, progress, accept_deletions=accept_deletions
        )
        unconfirmed = list[int]()

        def landing() -> Iterator[Found]:
            for _, _, swept in sweeps_of_all:
                unconfirmed.append(swept.unconfirmed)
                yield swept.found

        outcome = self._run(landing(), _SWEEP_STOPPED)
        return replace(outcome, unconfirmed=sum(unconfirmed))

    def _run(self, landing: Iterable[Found], if_stopped: str) -> Outcome:
        """Let everything land, then apply and publish it."""
        found: list[Found] = []
        is_stopped = False
        try:
            found.extend(landing)
        except Stopped:
            is_stopped = True
        finally:
            # What landed before a failure counts: the next run need not ask for it again.
            applied = self.apply()
            publication = self.publish()
        if is_stopped:
            raise Stopped(if_stopped.format(rows=applied.rows, partitions=len(found)))
        return Outcome(
            partitions=len(found),
            rows=sum(f.rows for f in found),
            requests=sum(f.requests for f in found),
            throttles=sum(f.throttles for f in found),
            applied=applied,
            publication=publication,
        )

    def _filled(self, outcome: Outcome, progress: Progress, failures: Failures) -> Outcome:
        filled = Filled()
        try:
            for datastore_id in self.settings.require_datastores():
                if datastore_id in failures.datastores:
                    continue
                with failures.of(datastore_id):
                    for landed in self.fill_versions(self.datastore(datastore_id)):
                        filled += landed
                        progress.filled(filled)
        finally:
            self.apply()
            publication = self.publish()
        return replace(outcome, publication=publication, filled=filled)

    def _searched(self, progress: Progress | None, failures: Failures) -> Iterator[Found]:
        for datastore_id in self.settings.require_datastores():
            with failures.of(datastore_id), self.searching(datastore_id, progress) as store:
                for _, found in self.extract(store, self.due(store), progress):
                    yield found

    def _swept(
        self, store: Datastore, keys: Iterable[str], most: float, progress: Progress | None
    ) -> Iterator[tuple[str, Swept]]:
        wanted = [sweeps.search_of(store, key) for key in sorted(keys)]
        run = self._extractor(store)
        with Held(self.root, store) as held:
            for search, found in self._landed(store, wanted, run, progress):
                yield search.partition, sweeps.close_missing(run, held, search, found, most)

    def _require_policy(self) -> None:
        change = self.policy_change()
        if change and not change.is_asked_for:
            raise PolicyNotAskedFor(change)

    def _rebuild_tables(self) -> ApplyResult:
        for table in (image_sets.TABLE, coverage.TABLE):
            delta.discard_unreadable(self.root, table)
        refiled.drop_late(self.root, files.paths(self.root), are_all=True)
        applied, paths = image_sets.rebuild(self.root)
        coverage.record(self.root, paths, rebuild=True)
        if read_marker(self.root):
            link = rotate_patient_key.respelled(self.root, self._patient_key())
            rotate_cohort_keys.rekey(
                self.root, link, read_cohort_key(self.settings.cohort_key_file)
            )
        return applied

    def _patient_key(self) -> bytes:
        marker = read_marker(self.root)
        return key_to_publish_with(self.root, self.settings.patient_key, marker)

    def _extractor(self, store: Datastore) -> Extractor:
        return Extractor(
            self.root,
            self._service,
            KnownStates(self.root),
            Erased(self.root),
            new_run_id(store.now),
            self.settings.settle,
            self.settings.trust_search,
        )

    def _landed(
        self,
        store: Datastore,
        wanted: Sequence[Search],
        run: Extractor,
        progress: Progress | None,
    ) -> Iterator[tuple[Search, Found]]:
        """Search partitions, join their parts, and yield each once all of it has landed."""
        if not wanted:
            return
        windows = _stretches(search.window for search in wanted)
        searching = WindowSearch(self._service, store, windows, self.settings.workers, self._stop)
        missing: Counter[str] = Counter()
        for search in wanted:
            missing[search.partition] += _length(search.window)
        landed: dict[str, list[Found]] = {key: [] for key in missing}
        with (progress or Progress()).watching(searching):
            for search, part in run.land(searching, wanted):
                key = search.partition
                landed[key].append(part)
                missing[key] -= sum(_length(record) for record in part.records)
                if not missing[key]:
                    yield search, joined(self.root, landed.pop(key))


def _all_partitions(store: Datastore) -> list[str]:
    return [*partitions.months_until_now(store), UNDATED]


def _stretches(windows: Iterable[Window]) -> Iterator[Window]:
    """Join windows that follow one another: days that share pages cost one request."""
    stretch: Window | None = None
    for window in windows:
        if stretch and (stretch.axis, stretch.end) == (window.axis, window.start):
            stretch = replace(stretch, end=window.end)
            continue
        if stretch:
            yield stretch
        stretch = window
    if stretch:
        yield stretch


def _length(stretch: Window | Record) -> int:
    return (stretch.end - stretch.start) // timedelta(microseconds=1)


def new_run_id(now: datetime) -> str:
    """Return an id that sorts by time and that no other run has."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
