"""Life: simulated days of a data store, with everything that changes in them.

It owns which changes come when and what each one does to the image sets it touches. The history up
to the clock's start is for `history`; single changes on demand are for `admin`.
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

# Image sets or studies touched a day, in proportion to the image sets that there are.
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
        world: Where they happen; its clock moves on with them.
        datastore: The data store that lives.
        seed: Equal seeds on equal states and stopped clocks give equal days.
    """

    def __init__(self, world: World, datastore: Datastore, seed: int) -> None:
        self._world = world
        self._datastore = datastore
        # The time is in it, so that the same seed lives other days when it is used again.
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
        """Lives some days and returns how many image sets each kind of change touched.

        Searches are answered in between: they find the data store as it was at the clock's time.

        Args:
            days: Simulated days from the clock's time on.
            over_s: Real seconds to spread them over.
        """
        clock = self._world.clock
        start_ms = clock.now_ms()
        end_ms = start_ms + round(days * DAY_MS)
        touched: Counter[str] = Counter(dict.fromkeys(_DAILY, 0))
        plan = self._plan(start_ms, end_ms)
        for moment_ms, kind in plan:
            await asyncio.sleep(over_s / len(plan))
            now_ms = clock.move_to(moment_ms)
            changed = self._changes[kind](now_ms)
            self._world.store.put(changed, now_ms, self._world.faults.behaviour.index_lag_ms)
            touched[kind] += len(changed)
        clock.move_to(end_ms)
        return touched

    def _plan(self, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        """The moments of all changes in order; every kind happens at least once a day."""
        days = (end_ms - start_ms) / DAY_MS
        image_sets = self._world.store.current_count(self._datastore)
        plan = []
        for kind, share in _DAILY.items():
            daily = max(1.0, image_sets * share / (_STUDY_SIZE if kind == "imported" else 1))
            for _ in range(round(daily * days)):
                plan.append((start_ms + int(self._chance.random() * (end_ms - start_ms)), kind))
        return sorted(plan)

    def _pick(self) -> Record | None:
        return self._world.store.near(self._datastore, self._chance.random())

    def _picked_study(self) -> list[Record]:
        picked = self._pick()
        if picked is None or picked.study_uid is None:
            return [] if picked is None else [picked]
        return self._world.store.of_study(self._datastore, picked.study_uid)

    def _imported(self, now_ms: int) -> list[Record]:
        hospital = Hospital(self._datastore.number, f"{self._seed}/{now_ms}", now_ms)
        return hospital.study(self._chance.randint(1, 6), now_ms, migrated=False)

    def _corrected(self, now_ms: int) -> list[Record]:
        """Corrects a patient's demographics in every image set of a study."""
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
        """Imports a series again with tags in conflict: a further image set, not primary."""
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
        """Deletes an image set, or now and then a whole study."""
        gone = self._picked_study()
        if self._chance.random() < 0.7:
            gone = gone[:1]
        return [records.deletion(one, now_ms) for one in gone]


def _date(chance: Random, first_year: int, last_year: int) -> str:
    """A valid DA value within these years."""
    year, month, day = chance.randint(first_year, last_year), chance.randint(1, 12), 15
    return f"{year}{month:02d}{day}"
