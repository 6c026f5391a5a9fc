"""An import job, as ListDICOMImportJobs describes it, without what may hold identified data.

The message of a job that failed may quote a file name or a tag, and the locations in S3 are file
names of the hospital. So only the kind of the reason is kept. The name of a job is kept: who
submits jobs chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

UNDER_WAY = ("SUBMITTED", "IN_PROGRESS")
FAILED = "FAILED"
DAYS_LISTED = 90
"""How long the service lists a job:
https://docs.aws.amazon.com/healthimaging/latest/devguide/list-dicom-import-jobs.html."""

# The first reason with one of its words in the message. The messages are not documented.
_REASONS = (
    ("a key of KMS could not be used", ("kms",)),
    ("access denied", ("denied", "not authorized", "unauthorized", "permission", "assume")),
    ("a limit was exceeded", ("limit", "quota", "exceed", "too many", "too large")),
    ("no DICOM files at the input", ("no dicom", "contains no", "no files", "no objects", "empty")),
    ("input or output not found", ("does not exist", "not found", "no such", "nosuch")),
    ("input could not be read", ("cannot be read", "could not read", "unable to read")),
    ("the request was invalid", ("invalid", "validation", "malformed")),
    ("the service failed", ("internal", "service error", "timed out", "timeout")),
)
_OTHER, _NONE = "another reason; GetDICOMImportJob tells it", "no reason given"


@dataclass(frozen=True)
class ImportJob:
    """An import job.

    Attributes:
        job_id: Its id.
        name: The name that it was submitted with.
        status: SUBMITTED, IN_PROGRESS, COMPLETED or FAILED.
        submitted_at: When it was submitted, UTC.
        ended_at: When it ended, UTC; None before.
        reason: Why it failed, in general words; empty if it did not fail.
    """

    job_id: str
    name: str
    status: str
    submitted_at: datetime | None
    ended_at: datetime | None
    reason: str = ""

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> ImportJob:
        """Read an item of `jobSummaries`."""
        status = str(summary["jobStatus"])
        return cls(
            job_id=str(summary["jobId"]),
            name=str(summary.get("jobName") or ""),
            status=status,
            submitted_at=_utc(summary.get("submittedAt")),
            ended_at=_utc(summary.get("endedAt")),
            reason=_reason(summary.get("message")) if status == FAILED else "",
        )


def _reason(message: str | None) -> str:
    if not message:
        return _NONE
    lower = message.lower()
    return next((kind for kind, words in _REASONS if any(w in lower for w in words)), _OTHER)


def _utc(instant: datetime | None) -> datetime | None:
    return instant.astimezone(UTC) if instant else None
