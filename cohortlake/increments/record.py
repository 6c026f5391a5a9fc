"""The record in an increment's footer: what was searched, when, by which run, and its counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from cohortlake import schema

FOOTER_KEY = "cohortlake"
HASH_MODULUS = 2**63


@dataclass(frozen=True)
class Record:
    """The record of one increment. Its fields are the columns of `schema.COVERAGE`."""

    datastore_id: str
    axis: str
    partition: str
    start: datetime
    end: datetime
    searched_at: datetime
    run_id: str
    duration_seconds: float = 0.0
    complete: bool = True
    pages: int = 0
    rows: int = 0
    kept_rows: int = 0
    requests: int = 0
    throttles: int = 0
    content_hash: int = 0
    missing: int | None = None
    invalid_values: dict[str, int] = field(default_factory=dict)
    erased_rows: int = 0
    counted: bool = True

    @property
    def path(self) -> str:
        """Path of the increment, relative to the root."""
        # A run may search a day in several parts. The start tells their names apart.
        name = f"{self.run_id}-{self.start:%Y%m%dT%H%M%S%f}.parquet"
        return "/".join(("increments", self.datastore_id, self.axis, self.partition, name))

    def to_footer(self) -> bytes:
        """Return the record as JSON for the footer."""
        items = {"format": schema.FORMAT_VERSION} | asdict(self)
        return json.dumps(items, default=datetime.isoformat).encode()

    @classmethod
    def from_footer(cls, text: bytes) -> Record:
        """Parse the JSON of a footer."""
        items = json.loads(text)
        del items["format"]
        return cls.from_items(items)

    @classmethod
    def from_items(cls, items: dict[str, Any]) -> Record:
        """Return the record of parsed JSON."""
        for name in ("start", "end", "searched_at"):
            items[name] = datetime.fromisoformat(items[name])
        return cls(**items)


def format_of(footer: bytes) -> int:
    """Return the format version of a footer."""
    return int(json.loads(footer)["format"])


def content_hash(state_keys: Iterable[int] | np.ndarray) -> int:
    """Return a hash of a set of rows that does not depend on their order.

    It is the sum of the state keys modulo 2^63.
    """
    total = np.asarray(state_keys, np.int64).astype(np.uint64).sum(dtype=np.uint64)
    return int(total) % HASH_MODULUS
