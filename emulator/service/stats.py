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
            cut_truncated, cut_empty.
    """

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Sets all counts to zero."""
        for counter in (self.requests, self.errors, self.faults):
            counter.clear()
