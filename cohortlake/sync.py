"""Whole runs: the stages in order, for those who run without Dagster, and an operator's commands.

See `stages` for the stages one by one, which Dagster's assets call, and `admin` for what the
commands do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from cohortlake.errors import Stopped
from cohortlake.failures import Failures
from cohortlake.history import maintenance
from cohortlake.history.image_sets import ApplyResult
from cohortlake.history.maintenance import Maintained
from cohortlake.ingest import partitions
from cohortlake.ingest.headers.choice import HeaderChoice
from cohortlake.ingest.headers.fetch import HeadersResult
from cohortlake.ingest.older_versions import VersionsResult
from cohortlake.ingest.partition_search import SearchResult
from cohortlake.ingest.progress import Progress
from cohortlake.privacy.erasures import Erasure, Patient
from cohortlake.publish.iceberg import registration
from cohortlake.publish.publication import snapshots
from cohortlake.publish.publication.marker import Publication
from cohortlake.publish.publisher import request_full_publish
from cohortlake.stages import Stages

# The modules of `admin` that know cohorts are imported by the methods that need them: a tick needs
# none, and would import a third more.
if TYPE_CHECKING:
    from cohortlake.admin.checks import CheckResult
    from cohortlake.admin.imports import DatastoreImports
    from cohortlake.admin.status import Status

_SEARCH_STOPPED = (
    "{rows:,} new rows had come; they are kept, applied and published. Run it again: it goes on "
    "from there"
)
_SWEEP_STOPPED = (
    "{partitions:,} partitions had been swept to the end; their results are kept, applied and "
    "published. A partial sweep proves nothing, so the others are discarded. Run it again: it "
    "sweeps all of them"
)


@dataclass(frozen=True)
class Outcome:
    """What a whole run did.

    Attributes:
        partitions: Partitions searched.
        rows: Rows found.
        requests: Requests sent.
        throttles: Requests that the service throttled.
        applied: What is new in the version history.
        publication: What is published now, or None where nothing was ever found.
        filled: What reading older versions brought, or None where they were not read.
        unconfirmed: Image sets that sweeps did not find and that the lake keeps, because
            GetImageSet is denied.
    """

    partitions: int
    rows: int
    requests: int
    throttles: int
    applied: ApplyResult
    publication: Publication | None
    filled: VersionsResult | None = None
    unconfirmed: int = 0


class Sync(Stages):
    """Whole runs over one lake. See `Stages` for its arguments and for the single stages."""

    def run(self, progress: Progress | None = None, *, fill_versions: bool = False) -> Outcome:
        """Bring the lake up to date: the first run loads everything, later runs what is new.

        Args:
            progress: Gets how far the run has come.
            fill_versions: Then read the versions that no search saw, see `fill_versions`. This may
                take hours, so what was found is published before.

        Raises:
            CohortlakeError: See `errors`. What was written stays, and the next run goes on. The
                error of a data store is raised at the end, after the others were searched.
        """
        failures = Failures()
        everything_due = dict.fromkeys(self.settings.require_datastores())
        found = (f for *_, f in self._search_days(everything_due, progress, failures))
        outcome = self._apply_and_publish(found, _SEARCH_STOPPED)
        if fill_versions:
            try:
                filled = self._fill_versions(progress, failures)
            finally:
                self.apply()
                publication = self.publish()
            outcome = replace(outcome, publication=publication, filled=filled)
        failures.raise_all()
        return outcome

    def enrich(self, choice: HeaderChoice, progress: Progress | None = None) -> HeadersResult:
        """Fetch whole headers, and publish them. See `fetch_headers`.

        Args:
            choice: Which headers are wanted. Those that the lake has are not fetched again.
            progress: Gets what has come so far.

        Raises:
            CohortlakeError: See `errors`. What had come is published.
        """
        self._require_policy()
        try:
            return self.fetch_headers(choice, progress)
        finally:
            self.publish()

    def reconcile(
        self, progress: Progress | None = None, *, accept_deletions: bool = False
    ) -> Outcome:
        """Sweep all study-date partitions, and close what was deleted.

        Args:
            progress: Gets how far the run has come.
            accept_deletions: Close everything that was deleted, however much it is.

        Raises:
            CohortlakeError: See `errors`. What was written stays.
        """
        unconfirmed = list[int]()

        def found() -> Iterator[SearchResult]:
            for *_, swept in self._sweep(
                self.settings.require_datastores(),
                partitions.all_partitions,
                progress,
                accept_deletions=accept_deletions,
            ):
                unconfirmed.append(swept.unconfirmed)
                yield swept.search

        outcome = self._apply_and_publish(found(), _SWEEP_STOPPED)
        return replace(outcome, unconfirmed=sum(unconfirmed))

    def _apply_and_publish(self, found: Iterable[SearchResult], if_stopped: str) -> Outcome:
        """Search to the end, then apply and publish what was found."""
        self._note_once(self._policy_change())  # a first search takes hours
        results: list[SearchResult] = []
        is_stopped = False
        try:
            results.extend(found)
        except Stopped:
            is_stopped = True
        finally:
            # Also after a failure: the next run need not search again what was written.
            applied = self.apply()
            publication = self.publish()
        if is_stopped:
            raise Stopped(if_stopped.format(rows=applied.rows, partitions=len(results)))
        return Outcome(
            partitions=len(results),
            rows=sum(result.rows for result in results),
            requests=sum(result.requests for result in results),
            throttles=sum(result.throttles for result in results),
            applied=applied,
            publication=publication,
        )

    def rebuild(self) -> ApplyResult:
        """Rebuild the version history, the coverage and `published/` from the increments.

        Also upgrades what an older release wrote, frozen cohorts included.

        Raises:
            PolicyNotAskedFor: See `publish`. Nothing was done.
            SettingError: A frozen cohort gets new keys, and there is no key to sign it with.
        """
        from cohortlake.admin.rebuild_tables import rebuild_tables

        self._require_policy()
        applied = rebuild_tables(self.root, self.settings)
        # After a damaged log the table's versions begin at 0 again, so they show no difference.
        request_full_publish(self.root)
        self.publish()
        return applied

    def set_aside(self, path: str) -> str:
        """Set a damaged increment aside, and make its window due. See `admin.set_aside`."""
        from cohortlake.admin.set_aside import set_aside

        return set_aside(self.root, self.settings, path)

    def maintain(self) -> tuple[Maintained, ...]:
        """Compact the tables, and delete what is older than the retention.

        Versions that a tag names stay. Publishes too, so that `published/` never shows a version
        that can no longer be read. Expires snapshots of the Iceberg tables.

        Raises:
            CommitConflict: Other writers kept committing first.
            PolicyNotAskedFor: See `publish`. Nothing was done.
        """
        self._require_policy()
        tagged = snapshots.tagged_versions(self.root)
        maintained = maintenance.maintain(self.root, self.settings.retention, tagged)
        self.root.delete_abandoned()
        self.publish()
        with self.root.publishing():
            registration.expire(self.root, self.settings.iceberg, self.settings.retention)
        return maintained

    def erase(self, patient_id: str, datastore_id: str) -> Erasure:
        """Erase a patient from the whole lake, and keep them out. See `admin.erase_patient.erase`.

        Args:
            patient_id: The PatientID, in any spelling.
            datastore_id: The data store in which it is unique.

        Raises:
            PolicyNotAskedFor: See `publish`. Nothing was erased.
            SettingError: The lake has Iceberg tables, and the setting does not name them.
        """
        from cohortlake.admin import erase_patient

        self._require_policy()
        registration.require_setting(self.root, self.settings.iceberg)
        patient = Patient(datastore_id, patient_id)
        return erase_patient.erase(self.root, self.settings, patient, self.publish)

    def erase_again(self) -> tuple[Erasure, ...]:
        """Erase once more the patients who came back with a restored backup.

        See `admin.erase_again`.

        Raises:
            PolicyNotAskedFor: See `publish`. Nothing was erased.
        """
        from cohortlake.admin import erase_again

        self._require_policy()
        registration.require_setting(self.root, self.settings.iceberg)
        return erase_again.erase_again(self.root, self.publish)

    def rotate_key(self, source: str) -> int:
        """Publish under another patient key. See `admin.rotate_patient_key.rotate`.

        Args:
            source: Where the new key is, or will be. See COHORTLAKE_PATIENT_KEY.

        Returns:
            How many frozen cohorts got new keys.

        Raises:
            PolicyNotAskedFor: See `publish`. Nothing was done.
        """
        from cohortlake.admin import rotate_patient_key

        self._require_policy()
        registration.require_setting(self.root, self.settings.iceberg)
        changed = rotate_patient_key.rotate(self.root, self.settings, self.policy, source)
        with self.root.publishing():
            registration.register(self.root, self.settings.iceberg)
        return changed

    def status(self) -> Status:
        """Read the state of the lake."""
        from cohortlake.admin import status

        return status.status(self.root, self.settings.datastores, self.settings.settle)

    def imports(self) -> tuple[DatastoreImports, ...]:
        """List the import jobs that failed or are under way. See `admin.imports.imports`."""
        from cohortlake.admin import imports

        return imports.imports(lambda: self._service, self.settings.require_datastores())

    def check_imports(self) -> CheckResult:
        """Check that no import job failed in the last day. See `admin.checks.check_imports`."""
        from cohortlake.admin import checks

        return checks.check_imports(self.imports(), self._now_of)

    def check_coverage(self) -> CheckResult:
        """Check that nothing is missing up to a day ago. See `admin.checks.check_coverage`."""
        from cohortlake.admin import checks

        return checks.check_coverage(self.status(), self.settings.settle, self._now_of)

    def _now_of(self, datastore_id: str) -> datetime:
        return self.datastore(datastore_id).now
