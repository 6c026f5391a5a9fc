"""A stand-in for the client `HealthImaging`, for tests of how a search is shared among workers.

It has no HTTP and no emulator: the order of the answers alone decides there, and tens of thousands
of rows must come at once. It may order rows of one instant alike in both directions, and refuse
tokens or a second filter.
"""

from __future__ import annotations

import bisect
import json
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cohortlake.errors import RequestRefused, TokenRefused
from cohortlake.healthimaging import Meter, Page


class FakeService:
    """Answers as `HealthImaging` does.

    Args:
        image_sets: Summaries as on the wire; study dates without times.
        reverses_ties: Whether descending order is the ascending one reversed among equals.
        takes_two_filters: Whether a second filter is allowed.
        refused_tokens: Share of tokens refused.
        latency: Seconds that each answer takes.
    """

    def __init__(
        self,
        image_sets: list[dict[str, Any]],
        *,
        reverses_ties: bool = True,
        takes_two_filters: bool = True,
        refused_tokens: float = 0.0,
        latency: float = 0.0,
    ) -> None:
        self.image_sets = image_sets
        self._reverses_ties = reverses_ties
        self._takes_two_filters = takes_two_filters
        self._refused_tokens = refused_tokens
        self._latency = latency
        self._random = random.Random(0)  # noqa: S311
        self._lock = threading.Lock()
        self._orders: dict[tuple[str, str], tuple[list[float], list[dict[str, Any]]]] = {}
        self.requests: list[Mapping[str, Any]] = []

    def has_slack(self) -> bool:
        """Return True: there is no quota."""
        return True

    def search_page(
        self, _: str, criteria: Mapping[str, Any], token: str | None, meter: Meter
    ) -> Page:
        """Answer one page."""
        time.sleep(self._latency)
        with self._lock:
            meter.requests += 1
            self.requests.append(criteria)
            if len(criteria["filters"]) > 1 and not self._takes_two_filters:
                raise RequestRefused("one filter only")
            if token and self._random.random() < self._refused_tokens:
                raise TokenRefused("no")
            found = self._found(criteria)
        start = int(token or 0)
        answer: dict[str, Any] = {"imageSetsMetadataSummaries": found[start : start + 50]}
        if start + 50 < len(found):
            answer["nextToken"] = str(start + 50)
        return Page.checked(json.dumps(answer).encode())

    def _found(self, criteria: Mapping[str, Any]) -> list[dict[str, Any]]:
        field, order = criteria["sort"]["sortField"], criteria["sort"]["sortOrder"]
        first, *others = (_bounds(condition) for condition in criteria["filters"])
        assert first[0] == field
        values, rows = self._ordered(field, order)
        low, high = first[1:] if order == "ASC" else (-first[2], -first[1])
        found = rows[bisect.bisect_left(values, low) : bisect.bisect_right(values, high)]
        for other, least, most in others:
            found = [row for row in found if least <= _value(row, other) <= most]
        return found

    def _ordered(self, field: str, order: str) -> tuple[list[float], list[dict[str, Any]]]:
        if (field, order) not in self._orders:
            sign = 1 if order == "ASC" else -1
            ties = sign if self._reverses_ties else 1
            rows = sorted(
                self.image_sets,
                key=lambda row: (sign * _value(row, field), ties * int(row["imageSetId"])),
            )
            self._orders[field, order] = [sign * _value(row, field) for row in rows], rows
        return self._orders[field, order]


def _bounds(condition: Mapping[str, Any]) -> tuple[str, float, float]:
    (low, high) = condition["values"]
    ((field, least),) = low.items()
    return field, _number(least), _number(high[field])


def _number(bound: datetime | Mapping[str, str]) -> float:
    if isinstance(bound, datetime):
        return bound.timestamp()
    text = bound["DICOMStudyDate"] + bound.get("DICOMStudyTime", "000000")[:6]
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()


def _value(row: Mapping[str, Any], field: str) -> float:
    if field == "DICOMStudyDateAndTime":
        return _number(row["DICOMTags"])
    return float(row[field])
