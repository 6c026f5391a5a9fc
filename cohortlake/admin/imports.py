"""Import jobs that failed or are under way: they tell what never arrived from what the lake lacks.

The lake shows what a data store has. What an import job did not bring is in no search. This asks
the service, for as far back as it lists jobs (90 days). What it does not answer is no error: a lake
can be healthy without the right to list jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cohortlake.errors import ServiceError, ServiceUnavailable, SettingError
from cohortlake.healthimaging import HealthImaging
from cohortlake.healthimaging.import_jobs import FAILED, UNDER_WAY, ImportJob

_MOST_JOBS = 1000
"""The most jobs of a data store and status that are read: 20 requests."""


@dataclass(frozen=True)
class DatastoreImports:
    """The import jobs of a data store that failed or are under way.

    Attributes:
        datastore_id: The data store.
        jobs: The jobs, the last submitted one first.
        is_whole: Whether these are all. Beyond a thousand of one status the others are left out.
        unknown_because: Why the jobs are not known; empty if they are.
    """

    datastore_id: str
    jobs: tuple[ImportJob, ...] = ()
    is_whole: bool = True
    unknown_because: str = ""

    @property
    def failed(self) -> tuple[ImportJob, ...]:
        """The jobs that failed."""
        return tuple(job for job in self.jobs if job.status == FAILED)

    @property
    def under_way(self) -> tuple[ImportJob, ...]:
        """The jobs that did not end yet."""
        return tuple(job for job in self.jobs if job.status in UNDER_WAY)


def imports(
    connect: Callable[[], HealthImaging], datastore_ids: Iterable[str]
) -> tuple[DatastoreImports, ...]:
    """List the import jobs of data stores that failed or are under way.

    Args:
        connect: Returns the client. Called only if there is a data store to ask about.
        datastore_ids: The data stores.
    """
    found: list[DatastoreImports] = []
    unreachable = ""
    for datastore_id in datastore_ids:
        if unreachable:  # to ask again would take as long again
            found.append(DatastoreImports(datastore_id, unknown_because=unreachable))
            continue
        try:
            found.append(_imports(connect(), datastore_id))
        except (ServiceError, SettingError) as error:
            found.append(DatastoreImports(datastore_id, unknown_because=str(error)))
            if isinstance(error, ServiceUnavailable | SettingError):
                unreachable = str(error)
    return tuple(found)


def _imports(service: HealthImaging, datastore_id: str) -> DatastoreImports:
    # Each job once: it may change its status between two listings, and the last one is right.
    jobs: dict[str, ImportJob] = {}
    is_whole = True
    for status in (*UNDER_WAY, FAILED):
        listed = service.import_jobs(datastore_id, status, _MOST_JOBS)
        is_whole &= len(listed) < _MOST_JOBS
        jobs |= {job.job_id: job for job in listed}
    newest_first = sorted(jobs.values(), key=_submitted, reverse=True)
    return DatastoreImports(datastore_id, tuple(newest_first), is_whole)


def _submitted(job: ImportJob) -> tuple[float, str]:
    return job.submitted_at.timestamp() if job.submitted_at else 0.0, job.job_id
