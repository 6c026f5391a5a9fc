"""A hospital that changes all the time, behind a service whose faults change too.

It draws the changes and the faults from a seed. How they coincide with the runs depends on the
machine.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from emulator import Emulator, running

NOW = "2026-06-01T12:00:00Z"
SETTLE_SECONDS = 300
LAGS_MS = (0, 4_000, 60_000, 240_000)
NO_FAULTS = {"error_rate": 0.0, "reset_rate": 0.0, "cut_rate": 0.0, "token_refusal_rate": 0.0,
        "quota": 0.0, "burst": 0, "latency_ms": 0.0}  # fmt: skip


class ChangingHospital:
    """A hospital that changes while `changing` lasts.

    Args:
        emulator: The emulator that serves it.
        seed: The seed of the changes and the faults.
    """

    def __init__(self, emulator: Emulator, seed: int) -> None:
        self.emulator = emulator
        self._chance = random.Random(f"world {seed}")  # noqa: S311
        self._stopped = threading.Event()
        self.changes: Counter[str] = Counter()

    @property
    def endpoint(self) -> str:
        """The URL of the service."""
        return self.emulator.endpoint

    @property
    def datastore_id(self) -> str:
        """The id of the data store."""
        return self.emulator.datastores[0]

    @property
    def lag_seconds(self) -> float:
        """How many seconds the index lags."""
        return float(self.emulator.admin.behaviour()["index_lag_ms"]) / 1000

    def faults(self) -> Counter[str]:
        """Return how many faults were injected until now, by kind."""
        return Counter(self.emulator.admin.stats()["faults"])

    def truth(self) -> Iterator[dict[str, Any]]:
        """Yield the summary of each image set that exists."""
        return self.emulator.admin.truth()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change the hospital and the faults while the block lasts, and end all faults after it."""
        with ThreadPoolExecutor(1) as pool:
            changes = pool.submit(self._change_until_stopped)
            try:
                yield
            finally:
                self._stopped.set()
                changes.result()
                self.emulator.admin.behave(**NO_FAULTS)

    def pass_days(self, days: float) -> None:
        """Let time pass without a change."""
        self.emulator.admin.advance(days=days)

    def _change_until_stopped(self) -> None:
        while not self._stopped.wait(self._chance.uniform(0, 0.3)):
            self.emulator.admin.behave(**self._draw_faults())
            change = self._chance.choice(
                (self._some_days, self._some_days, self._one_hour, self._jump, self._empty_month)
            )
            change()

    def _draw_faults(self) -> dict[str, float]:
        chance = self._chance
        if chance.random() < 0.2:
            return NO_FAULTS
        return {
            "error_rate": chance.uniform(0, 0.12),
            "reset_rate": chance.uniform(0, 0.1),
            "cut_rate": chance.uniform(0, 0.1),
            "token_refusal_rate": chance.uniform(0, 0.3),
            "quota": chance.choice((0.0, 0.0, 150.0, 300.0)),
            "burst": chance.choice((1, 20)),
            "latency_ms": chance.choice((0.0, 0.0, 5.0)),
        }

    def _some_days(self) -> None:
        days, over_s = self._chance.uniform(0.6, 1.5), self._chance.uniform(0.1, 0.6)
        lived = self.emulator.admin.live(days, seed=self._chance.getrandbits(30), over_s=over_s)
        self.changes.update(lived)

    def _one_hour(self) -> None:
        """Make some changes while time passes normally, so that runs begin within the index lag."""
        for _ in range(self._chance.randint(1, 20)):
            change = self._chance.choice((self._update_some, self._import_some, self._delete_one))
            change([summary["imageSetId"] for summary in self.truth()])
            if self._stopped.wait(self._chance.uniform(0, 0.4)):
                break

    def _update_some(self, ids: list[str]) -> None:
        for image_set_id in self._chance.sample(ids, self._chance.randint(1, 15)):
            tags = {"DICOMStudyDescription": f"Read {self._chance.getrandbits(20)}"}
            self.emulator.admin.update(image_set_id, tags)
            self.changes["updated"] += 1

    def _import_some(self, _: list[str]) -> None:
        tags = {"DICOMPatientId": f"P{self._chance.getrandbits(8)}"}
        summaries = [{"DICOMTags": tags}] * self._chance.randint(1, 15)
        self.emulator.admin.import_summaries(summaries)
        self.changes["imported"] += len(summaries)

    def _delete_one(self, ids: list[str]) -> None:
        self.emulator.admin.delete(self._chance.choice(ids))
        self.changes["deleted"] += 1

    def _jump(self) -> None:
        """Let the service's clock jump ahead."""
        self.emulator.admin.advance(seconds=self._chance.choice((1, 90, 3_600, 100_000)))
        self.changes["clock jumped"] += 1

    def _empty_month(self) -> None:
        """Delete all image sets of a study month that has few."""
        months: dict[str, list[str]] = defaultdict(list)
        for summary in self.truth():
            months[_month(summary)].append(summary["imageSetId"])
        few = sorted(month for month, ids in months.items() if month and len(ids) <= 3)
        for image_set_id in months[self._chance.choice(few)] if few else ():
            self.emulator.admin.delete(image_set_id)
            self.changes["deleted"] += 1


def _month(summary: dict[str, Any]) -> str:
    return str(summary["DICOMTags"].get("DICOMStudyDate", ""))[:6]


@contextmanager
def serve(seed: int) -> Iterator[ChangingHospital]:
    """Serve a hospital whose size, index lag and undocumented behaviour come from the seed."""
    chance = random.Random(f"service {seed}")  # noqa: S311
    options: dict[str, Any] = {
        "synthetic": chance.randint(300, 900),
        "index_lag_ms": chance.choice(LAGS_MS),
        "between": chance.choice(("inclusive", "half-open", "open", "exclusive-start")),
        "undated_match": chance.random() < 0.5,
        "undated_sort": chance.random() < 0.5,
        "deleted_found": chance.random() < 0.5,
    }
    with running(seed=seed, now=NOW, **options) as emulator:
        yield ChangingHospital(emulator, seed)
