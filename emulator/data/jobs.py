"""Import jobs: what StartDICOMImportJob asked for, and how far each job is.

A job's status follows from the clock: it waits, runs, and then has its outcome. See
`service.import_jobs` for the operations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from emulator.data.store import Datastore, Store
from emulator.datetimes import seconds
from emulator.seeded import generator, identifier

JobStatus = Literal["SUBMITTED", "IN_PROGRESS", "COMPLETED", "FAILED"]

_TABLE = """
CREATE TABLE IF NOT EXISTS import_jobs (
    number INTEGER PRIMARY KEY, datastore INTEGER, id TEXT, name TEXT, role TEXT, input TEXT,
    output TEXT, configuration TEXT, client_token TEXT, submitted_ms INTEGER, starts_ms INTEGER,
    ends_ms INTEGER, outcome TEXT, message TEXT
)
"""
_COLUMNS = (
    "datastore, id, name, role, input, output, configuration, client_token, submitted_ms,"
    " starts_ms, ends_ms, outcome, message"
)
_SELECT = f"SELECT {_COLUMNS} FROM import_jobs WHERE datastore = ? "  # noqa: S608 - names above
_HOUR_MS = 3_600_000
# The service keeps jobs for 90 days.
_HISTORY_MS = 90 * 24 * _HOUR_MS
_SYNTHETIC_JOBS = 60
_FAILURES = (
    "Access Denied: the data access role may not read the input bucket",
    "The input prefix contains no DICOM P10 files",
    "Internal error while reading the input",
)


@dataclass(frozen=True)
class Job:
    """One import job.

    Attributes:
        outcome: Its status at its end; `None` while its files are still to be read.
        configuration: `importConfiguration` of the request as JSON; empty if there was none.
    """

    datastore: int
    id: str
    name: str
    role: str
    input: str
    output: str
    configuration: str
    client_token: str
    submitted_ms: int
    starts_ms: int
    ends_ms: int
    outcome: str | None = None
    message: str | None = None

    def status(self, now_ms: int) -> JobStatus:
        """Returns the status at a time."""
        if now_ms < self.starts_ms:
            return "SUBMITTED"
        if now_ms < self.ends_ms:
            return "IN_PROGRESS"
        return "FAILED" if self.outcome == "FAILED" else "COMPLETED"

    def summary(self, datastore: Datastore, now_ms: int) -> dict[str, Any]:
        """Returns the job as ListDICOMImportJobs shows it."""
        status = self.status(now_ms)
        shown: dict[str, Any] = {
            "jobId": self.id,
            "jobName": self.name,
            "jobStatus": status,
            "datastoreId": datastore.id,
            "dataAccessRoleArn": self.role,
            "submittedAt": seconds(self.submitted_ms),
        }
        if status in ("COMPLETED", "FAILED"):
            shown["endedAt"] = seconds(self.ends_ms)
            if self.message:
                shown["message"] = self.message
        return shown

    def properties(self, datastore: Datastore, now_ms: int) -> dict[str, Any]:
        """Returns the job as GetDICOMImportJob shows it."""
        shown = self.summary(datastore, now_ms)
        shown |= {"inputS3Uri": self.input, "outputS3Uri": self.output}
        if self.configuration:
            shown["importConfiguration"] = json.loads(self.configuration)
        return shown


class Jobs:
    """All import jobs of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.query(_TABLE, ())

    def add(self, job: Job) -> None:
        """Adds a job."""
        marks = ", ".join("?" * len(vars(job)))
        insert = f"INSERT INTO import_jobs ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 - names above
        self._store.query(insert, tuple(vars(job).values()))

    def get(self, datastore: Datastore, job_id: str) -> Job | None:
        """Returns a job by its id, if there is one."""
        return self._first(_SELECT + "AND id = ?", datastore.number, job_id)

    def of_token(self, datastore: Datastore, client_token: str) -> Job | None:
        """Returns the job that a request with this client token started, if there is one."""
        return self._first(_SELECT + "AND client_token = ?", datastore.number, client_token)

    def newest_first(self, datastore: Datastore) -> list[Job]:
        """Returns all jobs of a data store, the last submitted one first."""
        rows = self._store.query(
            _SELECT + "ORDER BY submitted_ms DESC, number DESC", (datastore.number,)
        )
        return [Job(*row) for row in rows]

    def due(self, datastore: Datastore, now_ms: int) -> list[Job]:
        """Returns the jobs whose files are to be read by now, in the order of their ends."""
        rows = self._store.query(
            _SELECT + "AND outcome IS NULL AND ends_ms <= ? ORDER BY ends_ms, number",
            (datastore.number, now_ms),
        )
        return [Job(*row) for row in rows]

    def next_due_ms(self) -> int | None:
        """Returns when the next job ends whose files are still to be read, if there is one."""
        rows = self._store.query("SELECT min(ends_ms) FROM import_jobs WHERE outcome IS NULL", ())
        earliest: int | None = rows[0][0]
        return earliest

    def finish(self, job: Job, outcome: JobStatus, message: str | None) -> None:
        """Sets the outcome of a job."""
        self._store.query(
            "UPDATE import_jobs SET outcome = ?, message = ? WHERE datastore = ? AND id = ?",
            (outcome, message, job.datastore, job.id),
        )

    def _first(self, sql: str, *parameters: object) -> Job | None:
        rows = self._store.query(sql, parameters)
        return Job(*rows[0]) if rows else None


def synthetic(datastore: Datastore, seed: int, now_ms: int) -> list[Job]:
    """Returns the jobs of the last 90 days of a synthetic hospital, in order of submission.

    About one in twenty failed. The last two are under way and waiting.
    """
    chance = generator("import jobs", seed, datastore.number)
    latest_ms = now_ms - 2 * _HOUR_MS
    moments = sorted(latest_ms - int(chance.random() * _HISTORY_MS) for _ in range(_SYNTHETIC_JOBS))
    jobs = [_past(chance, datastore, number, moment) for number, moment in enumerate(moments)]
    jobs.append(made(datastore, "running", "IN_PROGRESS", None, now_ms))
    jobs.append(made(datastore, "waiting", "SUBMITTED", None, now_ms))
    return jobs


def made(
    datastore: Datastore, name: str, status: JobStatus, message: str | None, now_ms: int
) -> Job:
    """Returns a job that has a certain status now, for tests.

    Args:
        datastore: Its data store.
        name: Its name.
        status: Its status now. A job that is not at its end completes after an hour or two.
        message: What the service says about its end.
        now_ms: The simulated time.
    """
    starts_ms = now_ms + _HOUR_MS if status == "SUBMITTED" else now_ms
    ends_ms = now_ms if status in ("COMPLETED", "FAILED") else starts_ms + _HOUR_MS
    outcome = "FAILED" if status == "FAILED" else "COMPLETED"
    return Job(
        **_requested(datastore, name, now_ms),
        submitted_ms=now_ms,
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        outcome=outcome,
        message=message,
    )


def _past(chance: Random, datastore: Datastore, number: int, moment_ms: int) -> Job:
    failed = chance.random() < 0.06 or number == _SYNTHETIC_JOBS - 3
    starts_ms = moment_ms + chance.randrange(1000, 60_000)
    return Job(
        **_requested(datastore, f"nightly-{number:03d}", moment_ms),
        submitted_ms=moment_ms,
        starts_ms=starts_ms,
        ends_ms=min(starts_ms + chance.randrange(60_000, _HOUR_MS), moment_ms + _HOUR_MS),
        outcome="FAILED" if failed else "COMPLETED",
        message=chance.choice(_FAILURES) if failed else None,
    )


def _requested(datastore: Datastore, name: str, moment_ms: int) -> dict[str, Any]:
    return {
        "datastore": datastore.number,
        "id": identifier("job", datastore.id, name, moment_ms),
        "name": name,
        "role": "arn:aws:iam::123456789012:role/emulated-import",
        "input": f"s3://emulated-input/{name}/",
        "output": f"s3://emulated-output/{name}/",
        "configuration": "",
        "client_token": "",
    }
