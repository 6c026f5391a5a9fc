"""Windows: half-open intervals of one axis, [start, end), and the criteria that find them.

It is not documented which ends the service's BETWEEN includes. So the criteria ask for a
little more than the window on both sides, and `healthimaging.positions` leaves out what lies
outside the half-open window. Either meaning gives the same rows, and adjacent windows never
share or lose a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from cohortlake.errors import WindowError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before any instant of the service: where the first window of a data store starts."""

# The service's timestamps are milliseconds; its index may round them either way.
MARGIN = timedelta(milliseconds=2)
"""How much more than a window its criteria ask for, on both sides."""

_DAY = timedelta(days=1)


Order = Literal["ASC", "DESC"]


class Axis(StrEnum):
    """The axis that a window is an interval of."""

    UPDATED_AT = "updated_at"
    CREATED_AT = "created_at"
    STUDY_DATE = "study_date"

    @property
    def member(self) -> str:
        """The service's name for it, as filter and as sort field."""
        return _MEMBERS[self]


_MEMBERS = {
    Axis.UPDATED_AT: "updatedAt",
    Axis.CREATED_AT: "createdAt",
    Axis.STUDY_DATE: "DICOMStudyDateAndTime",
}


@dataclass(frozen=True)
class Window:
    """The rows whose value on `axis` lies in [start, end).

    Attributes:
        axis: The axis.
        start: First instant, UTC. On the study date axis: midnight of the first day, of
            the modality's local calendar, which has no zone and is only labelled UTC.
        end: First instant after it, likewise.

    Raises:
        WindowError: The start is not before the end, or one of them is naive or, for
            study dates, not a midnight.
    """

    axis: Axis
    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound.utcoffset() != timedelta(0):
                raise WindowError(f"{bound.isoformat()} is not UTC; give windows in UTC")
            if self.axis is Axis.STUDY_DATE and bound.time() != EPOCH.time():
                raise WindowError(f"{bound.isoformat()} is not a midnight; study dates are days")
        if self.start >= self.end:
            raise WindowError(
                f"window [{self.start.isoformat()}, {self.end.isoformat()}) holds nothing: "
                "its start must be before its end"
            )

    def criteria(self, order: Order = "ASC", within: Window | None = None) -> dict[str, Any]:
        """Return the `searchCriteria` that find at least the window.

        Args:
            order: Ascending or descending on the window's axis.
            within: A window on another axis that the rows must lie in, too.
        """
        windows = (self, within) if within else (self,)
        return {
            "filters": [window._filter() for window in windows],
            "sort": {"sortField": self.axis.member, "sortOrder": order},
        }

    def _filter(self) -> dict[str, Any]:
        bounds = (
            (_last_instant_of(self.start - _DAY), {"DICOMStudyDate": _da(self.end)})
            if self.axis is Axis.STUDY_DATE
            else (self.start - MARGIN, self.end + MARGIN)
        )
        return {"operator": "BETWEEN", "values": [{self.axis.member: bound} for bound in bounds]}


def _da(day: datetime) -> str:
    return f"{day.year:04d}{day:%m%d}"


def _last_instant_of(day: datetime) -> dict[str, str]:
    # Without a time the service takes 00:00, and BETWEEN would lose the rest of the day.
    return {"DICOMStudyDate": _da(day), "DICOMStudyTime": "235959.999999"}
