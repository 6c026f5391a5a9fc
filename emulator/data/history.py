"""Three years of imports: when the studies of the synthetic hospital were imported.

Before the clock's start there are daily imports, which follow the working week and grow, and a few
bulk imports from older archives. See `hospital` for the content of a study, and `control.life` for
the time after the clock's start.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import accumulate

from emulator.data.hospital import DAY_MS, Hospital
from emulator.data.records import Record

HISTORY_MS = 3 * 365 * DAY_MS
_HOUR_MS = 3_600_000
_BULK_SHARE = 0.4
_SETTLED_MS = 10 * DAY_MS
_WORKING_HOURS = (
    1,
    1,
    1,
    1,
    1,
    2,
    6,
    18,
    40,
    46,
    44,
    38,
    28,
    36,
    42,
    40,
    30,
    18,
    10,
    7,
    5,
    3,
    2,
    1,
)


def records(hospital: Hospital, image_sets: int) -> Iterator[Record]:
    """Yields a data store's records, `image_sets` of them current, in order of import."""
    if not image_sets:
        return
    sizes = hospital.sizes(image_sets)
    bulk = round(len(sizes) * _BULK_SHARE)
    moments = [(moment, True) for moment in _bulk_imports(hospital, bulk)]
    moments += [(moment, False) for moment in _trickle(hospital, len(sizes) - bulk)]
    for size, (moment, migrated) in zip(sizes, sorted(moments), strict=True):
        yield from hospital.study(size, moment, migrated=migrated)


def _rhythm(first_ms: int, hours: int) -> list[float]:
    """Returns a weight for each hour: working hours, working days, slow growth."""
    weights = []
    for hour in range(hours):
        moment = datetime.fromtimestamp((first_ms + hour * _HOUR_MS) / 1000, UTC)
        growth = 0.6 + 0.8 * hour / hours
        working_day = 1 if moment.weekday() < 5 else 0.25
        weights.append(_WORKING_HOURS[moment.hour] * growth * working_day)
    return weights


def _trickle(hospital: Hospital, studies: int) -> list[int]:
    first_ms, hours = hospital.now_ms - HISTORY_MS, HISTORY_MS // _HOUR_MS
    cumulative = list(accumulate(_rhythm(first_ms, hours)))
    chance = hospital.chance
    chosen = chance.choices(range(hours), cum_weights=cumulative, k=studies)
    return [first_ms + hour * _HOUR_MS + int(chance.random() * _HOUR_MS) for hour in chosen]


def _bulk_imports(hospital: Hospital, studies: int) -> list[int]:
    """Returns the moments of a few bulk imports, with about 40 studies per second each."""
    chance = hospital.chance
    imports = max(1, min(12, studies // 300))
    moments = []
    for number in range(imports):
        moment = hospital.now_ms - _SETTLED_MS - chance.random() * (HISTORY_MS - 2 * _SETTLED_MS)
        for _ in range(studies // imports + (number < studies % imports)):
            moment += chance.expovariate(1 / 25)
            moments.append(int(moment))
    return moments
