"""StartDICOMImportJob, GetDICOMImportJob and ListDICOMImportJobs.

A bucket is a folder of the same name below `--s3-root`. A job reads the files when its time is
over, see `settle`. See `data.dicom` for how files become image sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator.clock import Clock
from emulator.data import dicom, jobs
from emulator.data.dicom import Import
from emulator.data.jobs import Job, Jobs, JobStatus
from emulator.data.store import Datastore, Store
from emulator.datetimes import seconds
from emulator.seeded import identifier
from emulator.service.faults import Faults
from emulator.wire import Answer, answer, encode, invalid, not_found

Input = Mapping[str, Any]

DEFAULT_PAGE_SIZE = 50
_NO_ROOT = "The input bucket does not exist: start the emulator with --s3-root"


class ImportJobs:
    """The operations on import jobs.

    Args:
        s3_root: The folder whose folders stand for buckets; `None` if there are no buckets.
    """

    def __init__(self, store: Store, clock: Clock, faults: Faults, s3_root: Path | None) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._s3_root = s3_root
        self._jobs = Jobs(store)
        self._next_due = self._jobs.next_due_ms()

    def start(self, given: Input) -> Answer:
        """Submits a job. The same client token again returns the same job."""
        datastore = self._store.datastore(given["datastoreId"])
        now_ms = self._clock.now_ms()
        token = given["clientToken"]
        job = self._jobs.of_token(datastore, token)
        if job is None:
            job = self._submitted(datastore, given, now_ms)
            self._jobs.add(job)
            self._next_due = self._jobs.next_due_ms()
        return answer(
            {
                "datastoreId": datastore.id,
                "jobId": job.id,
                "jobStatus": job.status(now_ms),
                "submittedAt": seconds(job.submitted_ms),
            }
        )

    def get(self, given: Input) -> Answer:
        """Returns one job."""
        datastore = self._store.datastore(given["datastoreId"])
        job = self._jobs.get(datastore, given["jobId"])
        if job is None:
            raise not_found(f"Import job {given['jobId']}")
        return answer({"jobProperties": job.properties(datastore, self._clock.now_ms())})

    def list(self, given: Input) -> Answer:
        """Returns one page of the jobs, the last submitted one first."""
        datastore = self._store.datastore(given["datastoreId"])
        now_ms, asked = self._clock.now_ms(), given.get("jobStatus")
        found = [
            job
            for job in self._jobs.newest_first(datastore)
            if asked is None or job.status(now_ms) == asked
        ]
        start = _start(found, given.get("nextToken"))
        end = start + given.get("maxResults", DEFAULT_PAGE_SIZE)
        listed = [job.summary(datastore, now_ms) for job in found[start:end]]
        page: dict[str, Any] = {"jobSummaries": listed}
        if end < len(found):
            page["nextToken"] = _token(found[end - 1])
        return answer(page)

    def add(self, datastore: Datastore, name: str, status: JobStatus, message: str | None) -> Job:
        """Adds a job that has a certain status now. The service has no such operation."""
        job = jobs.made(datastore, name, status, message, self._clock.now_ms())
        self._jobs.add(job)
        return job

    def settle(self) -> None:
        """Carries out the jobs whose time is over: reads their files and adds the image sets."""
        now_ms = self._clock.now_ms()
        if self._next_due is None or self._next_due > now_ms:
            return
        for datastore in self._store.datastores():
            for job in self._jobs.due(datastore, now_ms):
                self._run(datastore, job)
        self._next_due = self._jobs.next_due_ms()

    def _submitted(self, datastore: Datastore, given: Input, now_ms: int) -> Job:
        job_id = identifier("job", datastore.id, given["clientToken"])
        lasting_ms = self._faults.behaviour.import_ms
        configuration = given.get("importConfiguration")
        return Job(
            datastore=datastore.number,
            id=job_id,
            name=given.get("jobName") or f"import-{job_id[:8]}",
            role=given["dataAccessRoleArn"],
            input=given["inputS3Uri"],
            output=given["outputS3Uri"],
            configuration=encode(configuration).decode() if configuration else "",
            client_token=given["clientToken"],
            submitted_ms=now_ms,
            # A job waits for a quarter of its time.
            starts_ms=now_ms + lasting_ms // 4,
            ends_ms=now_ms + lasting_ms,
        )

    def _run(self, datastore: Datastore, job: Job) -> None:
        """Imports the files of a job, or notes why that failed."""
        folder = self._folder(job.input)
        if folder is None:
            self._jobs.finish(job, "FAILED", _NO_ROOT)
            return
        try:
            imported = dicom.read(folder, datastore, job.ends_ms)
        except (ValueError, OSError):
            self._jobs.finish(job, "FAILED", "The input prefix cannot be read")
            return
        if not imported.records:
            self._jobs.finish(job, "FAILED", "The input prefix contains no DICOM P10 files")
            return
        with self._store.transaction():
            self._add(datastore, imported, job.ends_ms)
            self._jobs.finish(job, "COMPLETED", None)

    def _folder(self, uri: str) -> Path | None:
        """Returns the folder that stands for an S3 URI. A URI never leads out of the root."""
        if self._s3_root is None:
            return None
        root = self._s3_root.resolve()
        folder = (root / uri.removeprefix("s3://")).resolve()
        return folder if folder.is_relative_to(root) else None

    def _add(self, datastore: Datastore, imported: Import, at_ms: int) -> None:
        """Adds image sets. One that the store holds unchanged adds nothing."""
        added, new_ids = [], {}
        documents = {image_set_id: text for _, image_set_id, _, text in imported.documents}
        for record in imported.records:
            known = self._store.versions(datastore, record.image_set_id, limit=1)
            image_set_id = record.image_set_id
            if known:
                if known[0].deleted_ms is None and (
                    self._store.document(known[0]) == documents[image_set_id]
                ):
                    continue
                image_set_id = identifier(image_set_id, at_ms)
            primary = record.is_primary and not self._store.has_primary(
                datastore, record.series_uid
            )
            new_ids[record.image_set_id] = image_set_id
            added.append(dicom.renamed(record, image_set_id, is_primary=bool(primary)))
        self._store.put(added, at_ms, self._faults.behaviour.index_lag_ms)
        self._store.add_documents(
            (number, new_ids[old], version, text)
            for number, old, version, text in imported.documents
            if old in new_ids
        )
        self._store.add_frames(
            (number, new_ids[old], frame)
            for number, old, frame in imported.frames
            if old in new_ids
        )


def _token(job: Job) -> str:
    return f"{job.submitted_ms}.{job.id}"


def _start(found: list[Job], token: str | None) -> int:
    """Returns where a page starts. A job that came meanwhile does not shift the pages.

    Raises:
        ServiceError: `ValidationException` if the token does not belong to this list.
    """
    if token is None:
        return 0
    for place, job in enumerate(found):
        if _token(job) == token:
            return place + 1
    raise invalid("The nextToken does not belong to this list; start the list again without it")
