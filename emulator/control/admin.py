"""The admin API: all routes under `/_emulator/`, which read and change the emulator's state.

The admin API is not part of HealthImaging and has no injected faults. Only it can move the clock,
return the true state, and make changes that a search must find.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast, get_args

from emulator.control.life import Life
from emulator.data import frames, metadata, records
from emulator.data.hospital import DAY_MS
from emulator.data.jobs import JobStatus
from emulator.data.records import Record
from emulator.data.store import Datastore, Store
from emulator.datetimes import seconds
from emulator.seeded import identifier
from emulator.service.bad_documents import BAD_DOCUMENTS
from emulator.service.faults import Behaviour
from emulator.service.import_jobs import ImportJobs
from emulator.wire import Answer, Stream, answer, decode, encode, invalid
from emulator.world import World

PREFIX = "/_emulator/"
_AT_ONCE = 1000

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Route:
    """One admin route. The docstring of `handle` says what it does, `example` shows its input."""

    method: str
    path: str
    handle: Callable[[Given], Awaitable[Answer | Stream]]
    example: str = ""


class Admin:
    """The admin API of one world. Routes use the first data store if `datastoreId` is missing."""

    def __init__(self, world: World, import_jobs: ImportJobs) -> None:
        self._world = world
        self._import_jobs = import_jobs
        self._store = world.store
        self.routes = (
            Route("GET", "clock", self.clock),
            Route("POST", "clock", self.advance, '{"seconds": 30, "days": 1}'),
            Route("POST", "live", self.live, '{"days": 7, "seed": 3, "overSeconds": 0}'),
            Route(
                "POST",
                "import",
                self.import_summaries,
                '{"summaries": [{"DICOMTags": {}}], "instances": 120}',
            ),
            Route(
                "POST", "update", self.update, '{"imageSetId": "", "tags": {}, "cascade": false}'
            ),
            Route("POST", "delete", self.delete, '{"imageSetId": ""}'),
            Route(
                "POST",
                "import-job",
                self.import_job,
                '{"status": "FAILED", "name": "night", "message": "Access Denied"}',
            ),
            Route("POST", "document", self.document, '{"imageSetId": "", "document": {}}'),
            Route("POST", "spoil", self.spoil, '{"imageSetIds": [""], "kind": "cut", "times": 0}'),
            Route("DELETE", "spoil", self.mend),
            Route("GET", "plan", self.plan, "?imageSetId="),
            Route("GET", "truth", self.truth, "?datastoreId="),
            Route("GET", "behaviour", self.behaviour),
            Route("POST", "behaviour", self.behave, '{"quota": 25, "cut_rate": 0.01}'),
            Route("GET", "stats", self.stats),
            Route("DELETE", "stats", self.clear_stats),
        )

    async def answer(
        self, method: str, path: str, query: Mapping[str, str], body: bytes
    ) -> Answer | Stream | None:
        """Answers an admin request. Returns `None` if there is no such route."""
        for route in self.routes:
            if (route.method, PREFIX + route.path) == (method, path):
                given = decode(body) if body else {}
                if not isinstance(given, dict):
                    raise invalid("The body must be one JSON object")
                return await route.handle({**query, **given})
        return None

    async def clock(self, given: Given) -> Answer:
        """Returns the simulated time."""
        now_ms = self._world.clock.now_ms()
        now = self._world.clock.now().isoformat(timespec="milliseconds")
        return answer({"now": now, "epochSeconds": seconds(now_ms)})

    async def advance(self, given: Given) -> Answer:
        """Moves the clock forward by seconds and days."""
        step_ms = _number(given, "seconds") * 1000 + _number(given, "days") * DAY_MS
        self._world.clock.advance(round(step_ms))
        return await self.clock(given)

    async def live(self, given: Given) -> Answer:
        """Simulates days, spread over real seconds if given. Counts changed image sets by kind."""
        life = Life(self._world, self._datastore(given), round(_number(given, "seed")))
        return answer(await life.live(_number(given, "days"), _number(given, "overSeconds")))

    async def import_summaries(self, given: Given) -> Answer:
        """Imports image sets, each with so many instances. Missing members get default values."""
        datastore, now_ms = self._datastore(given), self._world.clock.now_ms()
        summaries, instances = given.get("summaries"), round(_number(given, "instances"))
        if not isinstance(summaries, list) or not all(isinstance(one, dict) for one in summaries):
            raise invalid("summaries must be a list of objects")
        imported: dict[str, Record] = {}
        for place, summary in enumerate(summaries):
            record = self._imported(datastore, summary, now_ms, place)
            if instances:
                record = record._replace(instances=instances)
            if record.image_set_id in imported or self._is_known(datastore, record):
                raise invalid(
                    "An imageSetId is already taken; leave it out, or update the image set"
                )
            imported[record.image_set_id] = record
        return self._put(list(imported.values()), now_ms)

    async def update(self, given: Given) -> Answer:
        """Changes tags; null removes a tag. With cascade, changes every image set of the study."""
        datastore, now_ms = self._datastore(given), self._world.clock.now_ms()
        tags = given.get("tags")
        if not isinstance(tags, dict):
            raise invalid("tags must be an object with members of DICOMTags")
        changed = [self._current(datastore, given)]
        if given.get("cascade") and changed[0].study_uid is not None:
            changed = self._store.of_study(datastore, changed[0].study_uid)
        return self._put([records.next_version(one, tags, now_ms) for one in changed], now_ms)

    async def delete(self, given: Given) -> Answer:
        """Deletes an image set."""
        datastore, now_ms = self._datastore(given), self._world.clock.now_ms()
        return self._put([records.deletion(self._current(datastore, given), now_ms)], now_ms)

    async def import_job(self, given: Given) -> Answer:
        """Adds an import job that has this status now. It imports nothing."""
        datastore, status = self._datastore(given), str(given.get("status"))
        if status not in get_args(JobStatus):
            raise invalid(f"status must be one of {', '.join(get_args(JobStatus))}")
        name, message = str(given.get("name") or "job"), given.get("message") or None
        job = self._import_jobs.add(datastore, name, cast("JobStatus", status), message)
        return answer({"jobId": job.id})

    async def document(self, given: Given) -> Answer:
        """Sets the metadata document of an image set. The tags of its summary lie over it."""
        datastore = self._datastore(given)
        record = self._current(datastore, given)
        document = given.get("document")
        if not isinstance(document, dict) or not metadata.has_levels(document):
            raise invalid("document must have Patient.DICOM, Study.DICOM and Study.Series")
        where = (datastore.number, record.image_set_id)
        packed = metadata.pack(encode(document))
        self._store.add_documents([(*where, record.version, packed)])
        self._store.add_frames((*where, frame) for frame in frames.of_document(document))
        return answer({"imageSetIds": [record.image_set_id]})

    async def spoil(self, given: Given) -> Answer:
        """Makes metadata documents bad: always, or for so many requests."""
        image_set_ids, kind = given.get("imageSetIds"), given.get("kind")
        if not isinstance(image_set_ids, list) or kind not in BAD_DOCUMENTS:
            raise invalid(f"kind must be one of {', '.join(BAD_DOCUMENTS)}, imageSetIds a list")
        datastore, times = self._datastore(given), round(_number(given, "times"))
        self._world.faults.spoil(datastore.id, map(str, image_set_ids), kind, times)
        return answer({"imageSetIds": image_set_ids})

    async def mend(self, given: Given) -> Answer:
        """Makes all bad documents good again."""
        self._world.faults.mend()
        return answer({})

    async def plan(self, given: Given) -> Answer:
        """Returns what is special about a synthetic header: kind, geometry, and a wrong value."""
        datastore = self._datastore(given)
        record = self._current(datastore, given)
        if self._store.document(record) is not None:
            raise invalid("The header of this image set was given; only synthetic ones have a plan")
        return answer(asdict(metadata.header_of(record).plan))

    async def truth(self, given: Given) -> Stream:
        """Streams all current image sets as NDJSON by id, also those that no search finds yet."""
        return Stream(_truth(self._store, self._datastore(given)))

    async def behaviour(self, given: Given) -> Answer:
        """Returns how the service behaves."""
        return answer(asdict(self._world.faults.behaviour))

    async def behave(self, given: Given) -> Answer:
        """Changes how the service behaves: any of the options marked * above."""
        try:
            self._world.faults.behaviour = _changed(self._world.faults.behaviour, given)
        except ValueError as error:
            raise invalid(str(error)) from None
        return await self.behaviour(given)

    async def stats(self, given: Given) -> Answer:
        """Counts requests (also the most in ten seconds), errors, faults, moves between tiers."""
        return answer(self._world.stats.counts())

    async def clear_stats(self, given: Given) -> Answer:
        """Sets all counts to zero."""
        self._world.stats.clear()
        return await self.stats(given)

    def _datastore(self, given: Given) -> Datastore:
        asked = given.get("datastoreId")
        return self._store.datastore(str(asked)) if asked else self._store.datastores()[0]

    def _current(self, datastore: Datastore, given: Given) -> Record:
        return self._store.current(datastore, str(given.get("imageSetId")))

    def _is_known(self, datastore: Datastore, record: Record) -> bool:
        return bool(self._store.versions(datastore, record.image_set_id, limit=1))

    def _put(self, changed: list[Record], now_ms: int) -> Answer:
        self._store.put(changed, now_ms, self._world.faults.behaviour.index_lag_ms)
        return answer({"imageSetIds": [record.image_set_id for record in changed]})

    def _imported(
        self, datastore: Datastore, summary: dict[str, Any], now_ms: int, place: int
    ) -> Record:
        tags = summary.get("DICOMTags")
        series = tags.get("DICOMSeriesInstanceUID") if isinstance(tags, dict) else None
        size = self._store.row_count()
        defaults = {
            "imageSetId": identifier("import", datastore.id, size, place),
            "version": 1,
            "createdAt": seconds(now_ms),
            "updatedAt": seconds(now_ms),
            "lastAccessedAt": seconds(now_ms),
            "storageTier": records.FREQUENT,
            "DICOMTags": {},
            "isPrimary": not self._store.has_primary(datastore, series),
        }
        if not isinstance(summary.get("imageSetId", ""), str):
            raise invalid("An imageSetId must be a string")
        given = defaults | summary
        instances = records.suggested_instances(given)
        return records.from_summary(datastore.number, given, instances=instances)


def _truth(store: Store, datastore: Datastore) -> Iterator[bytes]:
    after = ""
    while found := store.truth(datastore, after, _AT_ONCE):
        yield b"".join(record.summary + b"\n" for record in found)
        after = found[-1].image_set_id


def _number(given: Given, name: str) -> float:
    value = given.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} must be a number")
    if not math.isfinite(value) or value < 0:
        raise invalid(f"{name} must be zero or more")
    return value


def _changed(behaviour: Behaviour, given: Given) -> Behaviour:
    """Returns a behaviour with some fields changed. A new value must have the field's type."""
    changes = dict(given)
    for name, value in given.items():
        now = getattr(behaviour, name, None)
        if now is None:
            raise ValueError(
                f"{name} is not a setting of the behaviour; GET {PREFIX}behaviour lists them"
            )
        whole = isinstance(now, float) and type(value) is int
        if type(value) is not type(now) and not whole:
            raise ValueError(f"{name} must be a {type(now).__name__}")
        changes[name] = type(now)(value)
    return replace(behaviour, **changes)
