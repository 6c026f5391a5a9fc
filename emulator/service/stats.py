"""Counters of one run: requests, injected faults and error answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts since the start or the last reset.

    Attributes:
        requests: Requests by operation, including those with an injected fault.
        errors: Error answers by code.
        faults: Injected faults by kind: throttled, failed, reset, token_refused, cut_short,
            cut_truncated, cut_empty, and `document_` with the kind of a bad document.
        moved_to_frequent: Image sets that a read moved from the archive to the frequent tier.
    """

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    moved_to_frequent: int = 0

    def clear(self) -> None:
        """Sets all counts to zero."""
        for counter in (self.requests, self.errors, self.faults):
            counter.clear()
        self.moved_to_frequent = 0
