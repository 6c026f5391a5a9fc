"""Counters of one run: what was asked, what went wrong on purpose and what was refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Stats:
    """How often each thing happened since the start or the last reset.

    Attributes:
        requests: Requests by operation, those that met a fault included.
        errors: Error answers by code.
        faults: Injected faults by kind: throttled, failed, reset, token_refused, cut_short,
            cut_truncated, cut_empty.
    """

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Starts counting anew."""
        for counter in (self.requests, self.errors, self.faults):
            counter.clear()
