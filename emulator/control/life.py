"""Simulated days of a data store: which changes happen when, and what each change does.

See `data.history` for the imports before the clock's start, and `admin` for single changes on
demand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from emulator.data import records
from emulator.data.hospital import DAY_MS, Hospital
from emulator.data.records import Record
from emulator.data.store import Datastore
from emulator.seeded import generator
from emulator.world import World

# Changes a day, as a share of the image sets in the data store.
_DAILY = {
    "imported": 0.0012,
    "corrected": 0.0001,
    "updated": 0.0002,
    "reimported": 0.00005,
    "moved": 0.00005,
    "deleted": 0.00005,
}
_STUDY_SIZE = 3.4
_SURNAMES = ("Ravenhill", "Sotherby", "Thackeray", "Umberley", "Wexcombe")
_DESCRIPTIONS = ("Amended report", "Second reading", "Description corrected")


class Life:
    """The seeded days of one data store.

    Args:
        world: The emulator's state. Its clock moves forward with the days.
        datastore: The data store that changes.
        seed: The same seed, state and stopped clock give the same days.
    """

    def __init__(self, world: World, datastore: Datastore, seed: int) -> None:
        self._world = world
        self._datastore = datastore
        # The seed includes the time, so that a second call with the same seed gives other days.
        self._chance = generator("life", seed, datastore.number, world.clock.now_ms())
        self._seed = seed
        self._changes: Mapping[str, Callable[[int], list[Record]]] = {
            "imported": self._imported,
            "corrected": self._corrected,
            "updated": self._updated,
            "reimported": self._reimported,
            "moved": self._moved,
            "deleted": self._deleted,
        }

    async def live(self, days: float, over_s: float = 0.0) -> Counter[str]:
        """Simulates days and returns the number of changed image sets for each kind of change.

        The service answers searches meanwhile. They find the data store as of the clock's time.

        Args:
            days: Number of simulated days from the clock's time on.
            over_s: Real seconds that the changes are spread over.
        """
        clock = self._world.clock
        start_ms = clock.now_ms()
        end_ms = start_ms + round(days * DAY_MS)
        changed_counts: Counter[str] = Counter(dict.fromkeys(_DAILY, 0))
        plan = self._plan(start_ms, end_ms)
        for moment_ms, kind in plan:
            await asyncio.sleep(over_s / len(plan))
            now_ms = clock.move_to(moment_ms)
            changed = self._changes[kind](now_ms)
            self._world.store.put(changed, now_ms, self._world.faults.behaviour.index_lag_ms)
            changed_counts[kind] += len(changed)
        clock.move_to(end_ms)
        return changed_counts

    def _plan(self, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        """Returns the moments of all changes in order. Every kind happens at least once a day."""
        days = (end_ms - start_ms) / DAY_MS
        image_sets = self._world.store.current_count(self._datastore)
        plan = []
        for kind, share in _DAILY.items():
            daily = max(1.0, image_sets * share / (_STUDY_SIZE if kind == "imported" else 1))
            for _ in range(round(daily * days)):
                plan.append((start_ms + int(self._chance.random() * (end_ms - start_ms)), kind))
        return sorted(plan)

    def _pick(self) -> Record | None:
        return self._world.store.pick(self._datastore, self._chance.random())

    def _picked_study(self) -> list[Record]:
        picked = self._pick()
        if picked is None or picked.study_uid is None:
            return [] if picked is None else [picked]
        return self._world.store.of_study(self._datastore, picked.study_uid)

    def _imported(self, now_ms: int) -> list[Record]:
        hospital = Hospital(
            self._datastore.number,
            f"{self._seed}/{now_ms}",
            now_ms,
            series_size=self._world.options.series_size,
        )
        return hospital.study(self._chance.randint(1, 6), now_ms, migrated=False)

    def _corrected(self, now_ms: int) -> list[Record]:
        """Corrects one demographic value of a patient in every image set of a study."""
        chance = self._chance
        corrections = (
            {"DICOMPatientName": f"{chance.choice(_SURNAMES)}^Robin"},
            {"DICOMPatientId": f"MRN{chance.getrandbits(36):010d}"},
            {"DICOMPatientSex": chance.choice("FMO")},
            {"DICOMPatientBirthDate": _date(chance, 1930, 2020)},
        )
        tags = chance.choice(corrections)
        return [records.next_version(one, tags, now_ms) for one in self._picked_study()]

    def _updated(self, now_ms: int) -> list[Record]:
        picked = self._pick()
        tags = {"DICOMStudyDescription": self._chance.choice(_DESCRIPTIONS)}
        return [] if picked is None else [records.next_version(picked, tags, now_ms)]

    def _reimported(self, now_ms: int) -> list[Record]:
        """Imports a series again with conflicting tags: one more image set, not primary."""
        picked = self._pick()
        if picked is None:
            return []
        summary: dict[str, Any] = picked.wire()
        moment = now_ms / 1000
        image_set_id = f"{self._chance.getrandbits(128):032x}"
        summary |= {"imageSetId": image_set_id, "version": 1, "isPrimary": False}
        summary |= {"createdAt": moment, "updatedAt": moment, "lastAccessedAt": moment}
        summary |= {"storageTier": records.FREQUENT}
        if isinstance(summary.get("DICOMTags"), dict):
            summary["DICOMTags"] |= {"DICOMStudyDescription": "Sent again"}
        instances = picked.instances
        return [records.from_summary(self._datastore.number, summary, instances=instances)]

    def _moved(self, now_ms: int) -> list[Record]:
        """Moves a study to another study date, which a sweep by study date must notice."""
        tags = {"DICOMStudyDate": _date(self._chance, 2008, 2023)}
        return [records.next_version(one, tags, now_ms) for one in self._picked_study()]

    def _deleted(self, now_ms: int) -> list[Record]:
        """Deletes an image set, or sometimes a whole study."""
        gone = self._picked_study()
        if self._chance.random() < 0.7:
            gone = gone[:1]
        return [records.deletion(one, now_ms) for one in gone]


def _date(chance: Random, first_year: int, last_year: int) -> str:
    """Returns a valid DA value within these years."""
    year, month, day = chance.randint(first_year, last_year), chance.randint(1, 12), 15
    return f"{year}{month:02d}{day}"
