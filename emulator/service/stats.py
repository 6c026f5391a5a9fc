"""Counters of one run: requests, injected faults and error answers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

_SPAN_SECONDS = 10


@dataclass
class Stats:
    """Counts since the start or the last reset.

    Attributes:
        requests: Requests by operation, including those with an injected fault.
        most_in_10_s: The most requests of an operation that came within ten seconds.
        errors: Error answers by code.
        faults: Injected faults by kind: throttled, failed, reset, token_refused, cut_short,
            cut_truncated, cut_empty, and `document_` with the kind of a bad document.
        moved_to_frequent: Image sets that a read moved from the archive to the frequent tier.
    """

    requests: Counter[str] = field(default_factory=Counter)
    most_in_10_s: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    moved_to_frequent: int = 0
    _instants: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def count(self, operation: str) -> None:
        """Counts a request that comes now."""
        self.requests[operation] += 1
        instants, now = self._instants[operation], time.monotonic()
        instants.append(now)
        while instants[0] <= now - _SPAN_SECONDS:
            instants.popleft()
        self.most_in_10_s[operation] = max(self.most_in_10_s[operation], len(instants))

    def counts(self) -> dict[str, Any]:
        """Returns all counts by name."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def clear(self) -> None:
        """Sets all counts to zero."""
        for counter in (self.requests, self.most_in_10_s, self.errors, self.faults):
            counter.clear()
        self._instants.clear()
        self.moved_to_frequent = 0
